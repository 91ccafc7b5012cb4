"""Runs that an earlier version of the program wrote, kept as files: they open, and an interrupted one resumes.

They were written by commit 261e85b on 120 synthetic notices (seed 3), with the encoder `tiny` and two epochs.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.config import from_recipe
from ocensa_nb.data import synthetic
from ocensa_nb.evaluation import inference
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.runtime import environment
from ocensa_nb.storage import run_folder
from ocensa_nb.storage.run_folder import Run
from ocensa_nb.training import train

WRITTEN = Path(__file__).parent / "version_261e85b"
SETTINGS = {"model": "tiny", "epochs": 2, "freeze_layers": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "avisos.csv"
    synthetic.write_csv(synthetic.generate(120, seed=3), path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """Return a run of the same training by this version."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return train.fit(from_recipe("cpu", {**SETTINGS, "data": str(data), "out": str(out)}))


def weights(run):
    encoder = load_file(run / run_folder.ENCODER / "model.safetensors")
    return encoder | load_file(run / run_folder.HEADS)


def is_the_machine_of_then():
    """Return whether sums are rounded here as they were when the files were written."""
    then = json.loads((WRITTEN / "machine.json").read_text())
    versions = run_folder.read_config(WRITTEN / "finished")["versions"]
    processors = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return then["cpu"] in processors and environment.threads() == then["threads"] and environment.versions() == versions


def assert_same(found, expected):
    """Compare weights: bit by bit on the machine that wrote the files, else nearly."""
    tolerance = {"rtol": 0, "atol": 0} if is_the_machine_of_then() else {"rtol": 1e-5, "atol": 1e-6}
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], **tolerance, msg=name)


def test_finished_run_opens_with_a_warning_and_scores_as_it_did(data, tmp_path, capsys):
    run = Run.load(shutil.copytree(WRITTEN / "finished", tmp_path / "run"))
    assert "versión anterior" in capsys.readouterr().out
    notices = train.load_notices(run.config.replace(data=str(data)))
    rows = notices.split["test"]
    predicted = inference.predictions(inference.score_texts(run, [notices.texts[row] for row in rows], "Evaluando"))
    scores = flat_metrics({head: labels[rows] for head, labels in notices.labels.items()}, predicted)
    assert scores == pytest.approx(run.metrics["test"])


def test_finished_run_has_the_weights_that_this_version_trains(uninterrupted):
    assert_same(weights(WRITTEN / "finished"), weights(uninterrupted.path))


def test_interrupted_training_resumes_and_ends_with_the_weights_of_one_that_was_not(
    data, uninterrupted, tmp_path, capsys
):
    folder = shutil.copytree(WRITTEN / "interrupted", tmp_path / "run")
    run = train.fit(from_recipe("cpu", {**SETTINGS, "data": str(data), "out": str(folder)}))
    assert "Continúa" in capsys.readouterr().out
    assert_same(weights(run.path), weights(uninterrupted.path))
    assert run.metrics["best_epoch"] == uninterrupted.metrics["best_epoch"]
