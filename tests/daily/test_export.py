"""What is exported computes what the run does, also where nothing of this project is installed."""

import csv
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.daily import export as exporting
from ocensa_nb.daily import score
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models.tokens import encode

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "onnx"
    return folder, exporting.export(run, folder)


def test_exported_file_gives_the_calibrated_probabilities_of_the_encoder(run, exported, notices):
    folder, result = exported
    assert result["distance"] < exporting.FARTHEST
    predictor = Predictor.load(run)
    table = encode(notices.texts[:40], predictor._encoder[1], run.config.max_length)
    ids, mask = table.batch(np.arange(40))  # other texts, rows and widths than those of the export
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    computed = session.run(list(run.classes), {"ids": ids.numpy(), "mask": mask.numpy()})
    expected = predictor.probabilities(notices.texts[:40], source="encoder")
    for head, values in zip(run.classes, computed, strict=True):
        np.testing.assert_allclose(values, expected[head], atol=1e-4)
        assert (values.argmax(axis=1) == expected[head].argmax(axis=1)).all()


def test_export_in_int8_is_smaller_and_says_how_far_it_is(run, exported, tmp_path):
    result = exporting.export(run, tmp_path / "int8", int8=True)
    size = (tmp_path / "int8/model.onnx").stat().st_size
    assert size < (exported[0] / "model.onnx").stat().st_size
    assert 0 < result["distance"] < 0.5
    assert [path.name for path in (tmp_path / "int8").glob("*.onnx")] == ["model.onnx"]


def test_export_that_differs_from_torch_or_lacks_its_packages_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SMALLEST", 0.2)  # another calibration
    with pytest.raises(UserError, match="no da lo mismo que torch"):
        exporting.export(run, tmp_path / "wrong")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx"):
        exporting.export(run, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_script_scores_a_file_where_nothing_else_is_installed(run, exported, tmp_path):
    folder, _ = exported
    lines = (folder / "score.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 60
    venv.create(tmp_path / "bare", with_pip=True)
    python = next(path for path in (tmp_path / "bare").glob("*/python*") if path.stem == "python")
    constraints = Path(__file__).parents[2] / "constraints.txt"
    install = [python, "-m", "pip", "install", "-q", "-c", constraints, "onnxruntime", "numpy", "tokenizers"]
    subprocess.run(install, check=True, timeout=240)
    data = tmp_path / "a.csv"
    table = synthetic.generate(60, 4)
    table.loc[5, "descripcion"] = ""
    table.loc[6, "descripcion"] = "fuga en la bomba\x0bdel tanque"  # a line break for str.splitlines, not for a CSV
    table.to_csv(data, index=False, sep=";", encoding="cp1252")
    command = [python, folder / "score.py", data, tmp_path / "out.csv"]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path, env={})
    score.score(Predictor.load(run), data, tmp_path / "p.csv", source="encoder")
    columns = [f"pred_{head}" for head in run.classes]
    expected, result = (
        pd.read_csv(tmp_path / f"{name}.csv", sep=";", dtype=str, encoding=code)
        for name, code in (("p", "cp1252"), ("out", "utf-8-sig"))
    )
    pd.testing.assert_frame_equal(result[columns], expected[columns])
    with open(tmp_path / "out.csv", encoding="utf-8-sig", newline="") as file:
        assert next(csv.reader(file, delimiter=";"))[:3] == list(table.columns[:3])
