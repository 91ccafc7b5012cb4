"""The FLOPs of a pass, against the closed form and other batches; the speed of this machine, measured and cancelled."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ocensa_nb.benchmark import throughput
from ocensa_nb.engine import step
from ocensa_nb.models import catalogue
from ocensa_nb.models.layers import layers
from ocensa_nb.runtime.process import random_state


@pytest.fixture(scope="module")
def shape(notices):
    return catalogue.architecture("tiny", catalogue.load_tokenizer("tiny", notices.texts))


@pytest.fixture(scope="module")
def model(shape, notices, config):
    config = config.replace(freeze_layers=0, cls_only=False)
    return step.classifier(config, notices, catalogue.untrained(shape, "meta")).to("meta").train()


@pytest.fixture(scope="module")
def counted(model):
    """Return the work of a training pass, which is counted once and asked for any batch."""
    return throughput.count(model)


def test_flops_of_forward_pass_match_the_closed_form(model, shape, notices):
    hidden, inner, depth, width = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, 20
    layer = 2 * width * (4 * hidden**2 + 2 * hidden * inner)
    half = max(hidden // 2, 16)
    heads = 2 * hidden**2 + sum(2 * half * (hidden + len(names)) for names in notices.classes.values())
    _, weights, attention = throughput.count(model, backward=False).work(np.array([(3, width)]))[0]
    assert weights == pytest.approx(3 * (depth * layer + heads))
    assert attention == pytest.approx(3 * depth * 4 * width**2 * hidden)


def test_flops_of_training_pass_are_three_times_those_of_a_forward_pass(model):
    shapes = np.array([(4, 9), (1, 30)])
    training, forward = (throughput.count(model, backward=b).work(shapes)[:, 1:] for b in (True, False))
    np.testing.assert_allclose(training, 3 * forward)


@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 40), width=st.integers(2, 60))
@pytest.mark.slow
def test_flops_of_any_batch_equal_its_own_count(model, counted, rows, width):
    ids = torch.empty((rows, width), dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        sum(values.sum() for values in model(ids, torch.ones_like(ids)).values()).backward()
    model.zero_grad(set_to_none=True)
    assert counted.work(np.array([(rows, width)]))[0, 1:].sum() == pytest.approx(counter.get_total_flops())


def test_flops_with_cached_features_leave_out_the_frozen_layers(shape, notices, config):
    flops = {}
    for features in (0, shape.hidden_size):
        model = step.classifier(config.replace(freeze_layers=1), notices, catalogue.untrained(shape, "meta")).to("meta")
        model.accept_features_from(1)
        flops[features] = throughput.count(model.train(), features).work(np.array([(1, 16)]))[0, 1:].sum()
    depth, hidden, inner = len(layers(model.encoder)), shape.hidden_size, shape.intermediate_size
    layer = 2 * 16 * (4 * hidden**2 + 2 * hidden * inner) + 4 * 16**2 * hidden
    assert depth > 1
    assert flops[0] - flops[hidden] == pytest.approx(layer)  # forward only


def test_measure_leaves_the_random_state_unchanged_and_reports_progress(shape, config, notices):
    before, shares = random_state(), []
    rates = throughput.measure(shape, "fp32", config, notices, shares.append)
    assert all((a == b).all() for a, b in zip(before, random_state(), strict=True))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] <= 1
    assert (rates.training >= 0).all()
    assert rates.training.sum() > 0
    assert rates.spread >= throughput.EXTRAPOLATION


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_measure_stops_before_the_next_step_once_cancelled(steps, shape, config, notices):
    shares = []
    assert throughput.measure(shape, "fp32", config, notices, shares.append, lambda: len(shares) >= steps) is None
    assert len(shares) == steps


@settings(max_examples=40, deadline=None)
@given(rates=st.lists(st.floats(1e-6, 1e-2), min_size=3, max_size=3), seed=st.integers(0, 2**16))
def test_fit_of_exact_times_recovers_the_rates(rates, seed):
    work = np.random.default_rng(seed).uniform(1, 100, (20, 3))
    np.testing.assert_allclose(throughput._fit(work, work @ rates), rates, rtol=1e-4)
