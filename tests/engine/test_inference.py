"""Forward passes without gradients: casts of weights, batches by tokens, widths on a GPU."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ocensa_nb.engine import batching, frozen_features, inference
from ocensa_nb.engine.batching import StepDataset
from ocensa_nb.models import tokens
from ocensa_nb.models.classifier import freeze
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime.machine import width_multiple
from ocensa_nb.runtime.precision import autocast, without_gradients
from tests.helpers.small_engine import small_model

CPU = torch.device("cpu")
LENGTHS = np.array([3, 9, 4, 11, 5, 8, 3, 10, 7, 6, 11, 4])
TABLE = TokenTable(
    np.random.default_rng(0).integers(5, 60, int(LENGTHS.sum()), np.int32),
    np.concatenate([[0], np.cumsum(LENGTHS)]),
    pad_id=0,
    max_length=16,
)
ROWS = np.arange(len(LENGTHS))
CASTS = (torch.ops.aten._to_copy.default, torch.ops.aten.to.dtype)  # the second is seen in inference mode


class CastCounter(TorchDispatchMode):
    """Count the casts of each weight, by its address."""

    def __init__(self, model):
        super().__init__()
        self.weights = {p.data_ptr(): name for name, p in model.named_parameters()}
        self.casts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if operator in CASTS and args[0].data_ptr() in self.weights and result.dtype != args[0].dtype:
            self.casts[self.weights[args[0].data_ptr()]] += 1
        return result


@pytest.fixture(autouse=True)
def three_batches(monkeypatch):
    monkeypatch.setitem(tokens.SCORING_TOKENS, "cpu", 36)
    assert len(list(tokens.scoring_batches(LENGTHS, CPU))) == 3


def test_scoring_casts_each_weight_once_in_three_batches():
    model = small_model()
    freeze(model, 1)
    with CastCounter(model) as counter:
        inference.logits(model, TABLE, ROWS, "bf16")
    assert any("layer.0" in name for name in counter.casts)
    assert set(counter.casts.values()) == {1}


def test_frozen_features_cast_each_weight_once_in_three_batches():
    model = small_model()
    freeze(model, 1)
    hidden = torch.zeros(int(LENGTHS.sum()), 16, dtype=torch.bfloat16)
    with CastCounter(model) as counter:
        frozen_features.compute(model, TABLE, TABLE.offsets, 1, "bf16", hidden)
    assert len(counter.casts) == 12  # weight and bias of six matrices
    assert set(counter.casts.values()) == {1}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_logits_without_gradients_have_the_bits_of_plain_autocast(precision):
    model = small_model().eval()
    freeze(model, 1)
    inputs = TABLE.batch(ROWS)
    with torch.inference_mode(), autocast(precision, CPU):
        expected = model(*inputs)
    with without_gradients(model, precision, CPU):
        found = model(*inputs)
    assert all(torch.equal(found[head], expected[head]) for head in expected)


def test_frozen_weights_stay_frozen_after_scoring_that_fails():
    model = small_model()
    freeze(model, 1)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    with pytest.raises(RuntimeError), without_gradients(model, "bf16", CPU):
        raise RuntimeError
    assert frozen == [name for name, p in model.named_parameters() if not p.requires_grad]


@pytest.fixture
def padded_for_cuda(monkeypatch):
    for owner in (frozen_features, inference, batching):
        monkeypatch.setattr(owner, "width_multiple", lambda device: 8)


def test_widths_padded_to_a_multiple_give_the_same_logits_and_frozen_features(monkeypatch, padded_for_cuda):
    model = small_model(layers=3)
    freeze(model, 1)
    widths = []
    for name, owner in (("batch", TokenTable), ("batch", frozen_features.FrozenFeatures)):
        whole = getattr(owner, name)

        def seen(table, *args, whole=whole, **named):
            inputs, mask = whole(table, *args, **named)
            widths.append(inputs.shape[1])
            return inputs, mask

        monkeypatch.setattr(owner, name, seen)

    def logits():
        features = frozen_features.build(model, TABLE, 1, "fp32")
        return [inference.logits(model, table, ROWS, "fp32") for table in (TABLE, features)]

    padded = logits()
    assert set(widths[1:]) == {8, 16}  # the first is the sample that compares two computations
    monkeypatch.undo()
    plain = [
        inference.logits(model, table, ROWS, "fp32")
        for table in (TABLE, frozen_features.build(model, TABLE, 1, "fp32"))
    ]
    torch.testing.assert_close(padded, plain, atol=1e-6, rtol=1e-6)


def test_steps_on_cuda_have_widths_that_are_multiples_of_eight():
    table = dataclasses.replace(TABLE, max_length=10)
    dataset = StepDataset(table, {"modo": np.zeros(len(ROWS), np.int64)}, 2, "dynamic", multiple=8)
    widths = {
        int(lengths): dataset[rows][0]["inputs"].shape[1] for lengths, rows in ((3, ROWS[[0, 6]]), (10, ROWS[[7]]))
    }
    assert widths == {3: 8, 10: 10}  # not past max_length: the encoder may have no more positions
    assert width_multiple(torch.device("cuda")) == 8
    assert width_multiple(CPU) == 1


def test_cls_features_have_one_position_on_cuda_too():
    features = frozen_features.FrozenFeatures(torch.ones(3, 4), np.arange(4), np.arange(3), np.array([5, 6, 7]))
    assert features.batch(np.arange(3), multiple=8)[0].shape == (3, 1, 4)
