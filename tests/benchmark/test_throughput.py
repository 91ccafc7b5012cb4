"""Throughput of this machine: fitted rates, progress, cancelling, and an untouched random state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.benchmark import throughput
from ocensa_nb.models import catalogue
from ocensa_nb.runtime.seeding import random_state


@pytest.fixture(scope="module")
def shape(notices):
    return catalogue.architecture("tiny", catalogue.load_tokenizer("tiny", notices.texts))


def test_measure_leaves_the_random_state_unchanged_and_reports_progress(shape, config, notices):
    before, shares = random_state(), []
    found = throughput.measure(shape, "fp32", config, notices, shares.append)
    assert all((a == b).all() for a, b in zip(before, random_state(), strict=True))
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] <= 1
    assert (found.training >= 0).all()
    assert found.training.sum() > 0
    assert found.spread >= throughput.EXTRAPOLATION


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
