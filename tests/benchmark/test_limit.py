"""Roofline: the arithmetic of work and peaks, the bytes of a step, and the measured seconds of its phases."""

import pytest
import torch
from torch import nn

from ocensa_nb.benchmark import limit
from ocensa_nb.benchmark.limit import PHASES, Peaks, Work
from ocensa_nb.engine.frozen_features import FeatureTable
from ocensa_nb.engine.loss import Objective
from ocensa_nb.models.classifier import freeze
from ocensa_nb.runtime import timing
from tests.helpers.small_engine import HEADS, NO_SCALING, batch, engine, small_model, split_batch


def small_engine(precision="fp32", frozen=0):
    model = small_model()
    freeze(model, frozen)
    return engine(model, Objective(HEADS, {}, 0.0), NO_SCALING, precision)


def count(parameters):
    return sum(p.numel() for p in parameters)


def linear_parameters(model):
    return [p for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()]


def test_seconds_of_work_are_flops_over_peak_plus_bytes_over_bandwidth():
    assert Peaks(flops=100.0, bandwidth=10.0).seconds(Work(flops=50.0, bytes=20.0)) == pytest.approx(2.5)
    assert Work(1.0, 2.0) + Work(3.0, 4.0) == Work(4.0, 6.0)


def test_traffic_of_fp32_step_has_no_casts_and_forty_bytes_per_trained_parameter():
    made = small_engine()
    trained = count(made.model.parameters())
    found = limit.traffic(made, [batch(4)])
    assert tuple(found) == PHASES
    assert found["forward"].bytes == found["backward"].bytes == 0
    assert found["clipping"].bytes == 12 * trained
    assert found["update"].bytes == 28 * trained
    assert found["loading"].bytes == 2 * 2 * 4 * 11 * 8  # ids and mask, int64, read and written


def test_traffic_in_bf16_counts_casts_once_per_micro_batch():
    made = small_engine("bf16")
    weights = count(linear_parameters(made.model))
    assert limit.traffic(made, [batch(4)])["forward"].bytes == 6 * weights
    assert limit.traffic(made, split_batch(batch(8), 4))["forward"].bytes == 2 * 6 * weights


def test_traffic_in_bf16_counts_frozen_weights_unless_their_output_is_cached():
    made = small_engine("bf16", frozen=1)
    every, trained = linear_parameters(made.model), [p for p in linear_parameters(made.model) if p.requires_grad]
    assert count(trained) < count(every)
    assert limit.traffic(made, [batch(4)])["forward"].bytes == 6 * count(every)
    made.table = FeatureTable(None, None, None, None)
    found = limit.traffic(made, [batch(4)])
    assert found["forward"].bytes == found["backward"].bytes == 6 * count(trained)


def test_work_adds_up_to_the_flops_of_a_step_and_backward_is_about_twice_the_forward():
    made, other = small_engine(), small_engine()
    found = limit.work(made, split_batch(batch(8), 4))
    whole = timing.flops_of(lambda: other.step(split_batch(batch(8), 4)))
    assert sum(work.flops for work in found.values()) == whole
    assert 1.7 < found["backward"].flops / found["forward"].flops <= 2


def test_measured_phases_cover_the_step_and_leave_the_engine_as_it_was():
    made, other = small_engine(), small_engine()
    forward = made.forward
    torch.manual_seed(3)
    seconds = limit.measure(made, lambda: [batch(4)])
    torch.manual_seed(3)
    other.step([batch(4)])
    assert set(seconds) == set(PHASES)
    assert all(value > 0 for value in seconds.values())
    assert made.forward is forward
    assert "run" not in vars(made.micro_batches)
    for one, same in zip(made.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, same)


def test_memory_bandwidth_is_that_of_a_real_machine():
    assert 1e8 < timing.memory_bandwidth(torch.device("cpu")) < 1e13
