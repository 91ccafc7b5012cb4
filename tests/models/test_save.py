"""Runs with a valid manifest, but missing, extra, mis-shaped or non-finite weights."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ocensa_nb.errors import UserError
from ocensa_nb.models import save
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import ENCODER, HEADS
from ocensa_nb.runs.run import Run

WEIGHTS = f"{ENCODER}/model.safetensors"
IN_ENCODER, IN_HEADS = "encoder.layer.2.output.dense.weight", "heads.causa.0.weight"


@pytest.fixture
def rewrite(run, tmp_path):
    """Return a function that edits the tensors of a file in a copy of the run, updates its manifest and loads it."""
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))

    def rewritten(file, change):
        tensors = load_file(copy / file)
        change(tensors)
        save_file(tensors, copy / file, {"format": "pt"})
        manifest.write(copy)
        return Run.load(copy)

    return rewritten


def load_error(run):
    with pytest.raises(UserError) as refused:
        save.load_model(run)
    return str(refused.value)


@pytest.mark.parametrize(("file", "name"), [(WEIGHTS, IN_ENCODER), (HEADS, IN_HEADS)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_load_model_with_non_finite_weights_names_them(rewrite, file, name, value):
    message = load_error(rewrite(file, lambda tensors: tensors[name].view(-1)[:1].fill_(value)))
    assert "no son números" in message
    assert name in message
    assert str(Path(file).parts[0]) in message


@pytest.mark.parametrize(("file", "name"), [(WEIGHTS, IN_ENCODER), (HEADS, IN_HEADS)])
def test_load_model_with_missing_weights_names_them(rewrite, file, name):
    message = load_error(rewrite(file, lambda tensors: tensors.pop(name)))
    assert "faltan" in message
    assert name in message


@pytest.mark.parametrize("extra", ["heads.otra.weight", f"encoder.{IN_ENCODER}"])
def test_load_model_with_extra_weights_in_heads_file_names_them(rewrite, extra):
    message = load_error(rewrite(HEADS, lambda tensors: tensors.update({extra: torch.zeros(2)})))
    assert f"sobran: {extra}" in message


@pytest.mark.parametrize("change", [lambda tensor: tensor[:1].clone(), lambda tensor: tensor.to(torch.float8_e4m3fn)])
def test_load_model_with_heads_of_another_shape_or_dtype_names_them(rewrite, change):
    message = load_error(rewrite(HEADS, lambda tensors: tensors.update({IN_HEADS: change(tensors[IN_HEADS])})))
    assert f"otro tipo: {IN_HEADS}" in message


def test_load_model_twice_returns_identical_weights(rewrite):
    run = rewrite(HEADS, lambda tensors: None)
    first, second = save.load_model(run)[0].state_dict(), save.load_model(run)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
