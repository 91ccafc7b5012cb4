"""Out of memory outside of training steps: retry in smaller pieces, or a `UserError`."""

import gc
import weakref

import numpy as np
import pytest
import torch

from ocensa_nb.engine import frozen_features, inference
from ocensa_nb.engine.out_of_memory import explained, releases_memory, run_in_pieces
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models import save
from ocensa_nb.models.classifier import MultiHeadClassifier, freeze
from ocensa_nb.models.tokens import encode
from ocensa_nb.runtime.machine import out_of_memory
from ocensa_nb.training import train
from ocensa_nb.training.early_stopping import EarlyStopping

MESSAGES = (
    "CUDA error: out of memory",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
)


def failing(function, most: int):
    """Return a function that raises out-of-memory for more than `most` rows."""

    def limited(inputs, mask):
        if len(inputs) > most:
            raise RuntimeError("CUDA error: out of memory")
        return function(inputs, mask)

    return limited


@pytest.fixture
def loaded(run, notices):
    model, tokenizer = save.load_model(run)
    return model, encode(notices.texts[:40], tokenizer, 64)


@pytest.mark.parametrize("message", MESSAGES)
def test_out_of_memory_recognises_every_known_error_message(message):
    assert out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("most", [1, 3, 64])
def test_logits_out_of_memory_are_retried_in_halves_with_the_same_values(loaded, monkeypatch, most):
    model, table = loaded
    expected = inference.logits(model, table, np.arange(40), "fp32")
    monkeypatch.setattr(model, "forward", failing(model.forward, most))
    logits = inference.logits(model, table, np.arange(40), "fp32")
    for head, values in expected.items():
        np.testing.assert_allclose(logits[head], values, atol=1e-5)


def test_logits_without_memory_for_one_row_raises_user_error(loaded, monkeypatch):
    model, table = loaded
    monkeypatch.setattr(model, "forward", failing(model.forward, 0))
    with pytest.raises(UserError, match="ni siquiera para un aviso"):
        inference.logits(model, table, np.arange(40), "fp32")


def test_frozen_features_out_of_memory_are_retried_in_halves_with_the_same_values(loaded, monkeypatch):
    model, table = loaded
    freeze(model, 2)
    expected = frozen_features.build(model, table, 2, "fp32").hidden
    frozen = MultiHeadClassifier.frozen_forward
    monkeypatch.setattr(MultiHeadClassifier, "frozen_forward", lambda model, k: failing(frozen(model, k), 5))
    torch.testing.assert_close(frozen_features.build(model, table, 2, "fp32").hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fit_out_of_memory_for_adamw_moments_raises_user_error(config, notices, tmp_path, monkeypatch, precision):
    def full(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", full)
    with pytest.raises(UserError, match=r"No hay memoria para los dos momentos de AdamW.*freeze_layers"):
        train.fit(config.replace(out=str(tmp_path / "run"), precision=precision), notices)


def test_early_stopping_copies_best_weights_to_the_cpu_and_restores_them(config, monkeypatch):
    """A GPU may not have memory for a second copy of the weights."""
    model, asked = torch.nn.Linear(3, 2), []
    move = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda weight, *args, **kw: asked.append(args) or move(weight, *args, **kw))
    stopping = EarlyStopping(config)
    stopping.update(1, {config.monitor: 0.5}, model)
    assert asked == [("cpu",), ("cpu",)]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.nn.init.zeros_(model.weight)
    stopping.restore(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_predictor_without_memory_for_the_weights_raises_user_error_and_keeps_none(run, notices, monkeypatch):
    def full(model, *_):
        made.append(weakref.ref(model))
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = []
    monkeypatch.setattr(MultiHeadClassifier, "to", full)
    predictor = Predictor.load(run)
    with pytest.raises(UserError, match="No hay memoria para los pesos") as kept:
        predictor.logits(notices.texts[:3])
    gc.collect()
    assert made[0]() is None
    assert kept.value is not None


def test_pieces_process_each_row_once_and_keep_the_size_that_fits():
    calls, done = [], []

    def work(rows):
        calls.append(len(rows))
        if len(rows) > 3:
            raise RuntimeError("CUDA error: out of memory")
        done.extend(rows)

    run_in_pieces(work, [np.arange(10), np.arange(10, 17)])
    assert done == list(range(17))
    assert calls == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 1]


def test_other_runtime_errors_are_raised_unchanged():
    def wrong(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_in_pieces(wrong, [np.arange(4)])
    with pytest.raises(RuntimeError, match="mat1"), explained("nada"):
        wrong(None)


def test_error_that_is_kept_keeps_no_tensor_of_a_frame_that_ran_out_of_memory():
    """IPython keeps the last error, with the variables of its frames."""
    tensors = []

    def layer():
        activations = torch.ones(3)
        tensors.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    @releases_memory
    def train():
        weights = torch.ones(3)
        tensors.append(weakref.ref(weights))
        with explained("la prueba"):
            layer()

    with pytest.raises(UserError, match="No hay memoria para la prueba") as kept:
        train()
    assert kept.value.__suppress_context__
    assert [tensor() for tensor in tensors] == [None, None]


def test_fit_that_runs_out_of_memory_keeps_no_weights(config, notices, tmp_path, monkeypatch):
    def full(model, *_):
        made.append(weakref.ref(model))
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = []
    monkeypatch.setattr(MultiHeadClassifier, "to", full)
    with pytest.raises(UserError, match="No hay memoria") as kept:
        train.fit(config.replace(out=str(tmp_path / "run")), notices)
    gc.collect()
    assert made[0]() is None
    assert kept.value is not None
