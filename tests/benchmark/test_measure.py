"""The bytes that each phase of a training step must move."""

from torch import nn

from ocensa_nb.benchmark.measure import traffic
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.models.classifier import freeze
from tests.helpers.small_engine import NO_SCALING, batch, engine, objective, small_model, split_batch


def small_engine(precision="fp32", frozen=0):
    model = small_model()
    freeze(model, frozen)
    return engine(model, objective(), NO_SCALING, precision)


def count(parameters):
    return sum(p.numel() for p in parameters)


def linear_parameters(model):
    return [p for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()]


def test_traffic_of_fp32_step_has_no_casts_and_forty_bytes_per_trained_parameter():
    made = small_engine()
    trained = count(made.model.parameters())
    moved = traffic(made, [batch(4)])
    assert moved["forward"] == moved["backward"] == 0
    assert moved["clipping"] == 12 * trained
    assert moved["update"] == 28 * trained
    assert moved["loading"] == 2 * 2 * 4 * 11 * 8  # ids and mask, int64, read and written


def test_traffic_in_bf16_counts_casts_once_per_micro_batch():
    made = small_engine("bf16")
    weights = count(linear_parameters(made.model))
    assert traffic(made, [batch(4)])["forward"] == 6 * weights
    assert traffic(made, split_batch(batch(8), 4))["forward"] == 2 * 6 * weights


def test_traffic_in_bf16_counts_frozen_weights_unless_their_output_is_cached():
    made = small_engine("bf16", frozen=1)
    every, trained = linear_parameters(made.model), [p for p in linear_parameters(made.model) if p.requires_grad]
    assert count(trained) < count(every)
    assert traffic(made, [batch(4)])["forward"] == 6 * count(every)
    made.table = FrozenFeatures(None, None, None, None)
    moved = traffic(made, [batch(4)])
    assert moved["forward"] == moved["backward"] == 6 * count(trained)
