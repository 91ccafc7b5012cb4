"""Runs written by commit 261e85b: the finished one loads, the interrupted one resumes.

They were trained on 120 synthetic notices (seed 3) with the encoder `tiny` for two epochs. `narrowed` has no frozen
layers and died after its first checkpoint: that version trained only the embeddings of the tokens that occur.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.config import from_recipe
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import evaluate, predict, predictor
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine
from ocensa_nb.training import train

WRITTEN = Path(__file__).parent / "version_261e85b"
SETTINGS = {"model": "tiny", "epochs": 2, "freeze_layers": 1, "precision": "fp32"}
# What the recipe and the defaults of that version set otherwise.
SETTINGS |= {"learning_rate": 6e-4, "head_learning_rate": 2e-3, "monitor": "causa_f1"}
SETTINGS |= {"text_fields": ("equipo", "familia_equipo", "denominacion", "problema", "componente")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "avisos.csv"
    synthetic.write_csv(synthetic.generate(120, seed=3), path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Return an uninterrupted run of the same training by the current version."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return train.fit(from_recipe("cpu", {**SETTINGS, "data": str(data), "out": str(out)}))


def weights(run):
    encoder = load_file(run / run_folder.ENCODER / "model.safetensors")
    return encoder | load_file(run / run_folder.HEADS)


def is_original_machine():
    """Return whether CPU, threads and versions are those that wrote the files, so that rounding is the same."""
    then = json.loads((WRITTEN / "machine.json").read_text())
    versions = run_folder.read_config(WRITTEN / "finished")["versions"]
    processors = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return then["cpu"] in processors and machine.threads() == then["threads"] and machine.versions() == versions


def assert_same(found, expected):
    """Compare weights: exactly on the machine that wrote the files, else within a tolerance."""
    tolerance = {"rtol": 0, "atol": 0} if is_original_machine() else {"rtol": 1e-5, "atol": 1e-6}
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=name)


def test_load_finished_run_of_earlier_version_warns_and_scores_the_same(data, tmp_path, capsys):
    run = Run.load(shutil.copytree(WRITTEN / "finished", tmp_path / "run"))
    assert "versión anterior" in capsys.readouterr().out
    notices = train.load_notices(run.config.replace(data=str(data)))
    rows = notices.split["test"]
    predicted = predictor.predictions(predictor.score_texts(run, [notices.texts[row] for row in rows], "Evaluando"))
    scores = flat_metrics({head: labels[rows] for head, labels in notices.labels.items()}, predicted)
    recorded = run.metrics["test"]
    assert {name: scores[name] for name in recorded} == pytest.approx(recorded)


def test_run_of_earlier_version_ignores_columns_with_a_repeated_title(data, tmp_path):
    run = Run.load(shutil.copytree(WRITTEN / "finished", tmp_path / "run"))
    table = pd.read_csv(data, dtype=str)
    table.insert(len(table.columns), "componente", "OTRO", allow_duplicates=True)
    table.to_csv(tmp_path / "avisos.csv", index=False)
    found, expected = (predict.predict(run, path) for path in (tmp_path / "avisos.csv", data))
    added = [f"{kind}_{head}" for head in run.classes for kind in ("pred", "conf")]
    pd.testing.assert_frame_equal(found[added], expected[added])
    assert evaluate.evaluate(run, tmp_path / "avisos.csv").source == "las filas de prueba"


def test_fit_reproduces_the_weights_of_the_earlier_version(uninterrupted):
    assert_same(weights(WRITTEN / "finished"), weights(uninterrupted.path))


def test_resume_run_of_earlier_version_gives_the_weights_of_an_uninterrupted_run(data, uninterrupted, tmp_path, capsys):
    folder = shutil.copytree(WRITTEN / "interrupted", tmp_path / "run")
    run = train.fit(from_recipe("cpu", {**SETTINGS, "data": str(data), "out": str(folder)}))
    assert "Continúa" in capsys.readouterr().out
    assert_same(weights(run.path), weights(uninterrupted.path))
    assert run.metrics["best_epoch"] == uninterrupted.metrics["best_epoch"]


def test_resume_run_with_the_narrowed_vocabulary_of_the_earlier_version_is_refused_and_kept(data, tmp_path):
    folder = shutil.copytree(WRITTEN / "narrowed", tmp_path / "run-001")
    checkpoint = (folder / run_folder.LAST / "checkpoint.safetensors").read_bytes()
    config = from_recipe("cpu", {**SETTINGS, "freeze_layers": 0, "data": str(data)})
    assert config.fingerprint() == run_folder.read_config(folder)["fingerprint"]
    with pytest.raises(UserError, match=r"versión anterior.*solo los tokens.*se conserva.*resume = 'never'"):
        train.fit(config, root=tmp_path)
    assert (folder / run_folder.LAST / "checkpoint.safetensors").read_bytes() == checkpoint
    assert train.fit(config.replace(resume="never", epochs=1), root=tmp_path).path == tmp_path / "run-002"
