"""Which settings matter: pairs, intervals, and what is called noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.experiments.effects import effects, interval
from ocensa_nb.experiments.results import read_results
from tests.helpers.experiments import add_case, add_run

numbers = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=12)


def found(out):
    return effects(read_results(out).finished, "f1")


def fill(out, f1, seeds=(1, 2, 3)):
    """Write a finished case for each changes (as pairs) and seed; `f1` gives F1 and seconds."""
    for changes, (score, seconds) in f1.items():
        for seed in seeds:
            add_run(add_case(out, dict(changes), seed), score + 0.001 * seed, seconds)


@settings(max_examples=50, deadline=None)
@given(numbers)
def test_interval_contains_the_mean_and_grows_with_the_comparisons(values):
    one, many = interval(values), interval(values, comparisons=10)
    assert one.low <= one.mean <= one.high
    assert one.mean == pytest.approx(np.mean(values))
    assert many.corrected_low <= one.low
    assert one.high <= many.corrected_high


def test_interval_of_three_contains_the_true_mean_in_about_95_of_100_samples():
    samples = np.random.default_rng(1).normal(0.02, 0.01, (400, 3))
    inside = [found.low <= 0.02 <= found.high for found in map(interval, samples)]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_effect_pairs_cases_that_differ_in_one_setting_and_have_the_same_seed(tmp_path):
    both = {(): (0.5, 100), (("epochs", 3),): (0.4, 50), (("epochs", 3), ("max_length", 64)): (0.41, 25)}
    fill(tmp_path, both)
    changes = {(c.field, c.before, c.after): c for c in found(tmp_path)}
    assert set(changes) == {("epochs", "—", "3"), ("max_length", "256", "64")}  # not both at once
    fewer = changes["epochs", "—", "3"]
    assert (fewer.pairs, fewer.seeds) == (3, 3)
    assert fewer.mean == pytest.approx(-0.1)
    assert fewer.verdict == "empeora"
    assert fewer.time.mean == pytest.approx(0.5)


def test_effect_with_fewer_than_three_pairs_cannot_be_told(tmp_path):
    fill(tmp_path, {(): (0.5, 100), (("epochs", 3),): (0.1, 50)}, seeds=(1, 2))
    (change,) = found(tmp_path)
    assert change.score is None
    assert change.verdict == "no se puede saber: hacen falta 3 pares y hay 2"


def test_effect_whose_interval_includes_zero_is_called_noise(tmp_path):
    for seed, difference in ((1, 0.02), (2, -0.03), (3, 0.02)):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10)
        add_run(add_case(tmp_path, {"epochs": 3}, seed), 0.5 + difference, 10)
    (change,) = found(tmp_path)
    assert change.score.low < 0 < change.score.high
    assert change.verdict == "no se distingue del ruido"


def test_effect_that_only_chance_among_many_comparisons_explains_is_said_so(tmp_path):
    for seed, noise in ((1, -0.004), (2, 0.0), (3, 0.004)):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10)
        for value in range(8):
            add_run(add_case(tmp_path, {"epochs": value + 20}, seed), 0.5 + 0.012 + noise, 10)
    changes = found(tmp_path)
    assert len(changes) == 8
    assert {change.verdict for change in changes} == {"mejora, pero puede ser azar entre tantas comparaciones"}


def test_seconds_of_another_machine_are_not_compared(tmp_path):
    for seed in (1, 2, 3):
        add_run(add_case(tmp_path, {}, seed), 0.5, 10, cores=2)
        add_run(add_case(tmp_path, {"epochs": 3}, seed), 0.5, 5, cores=8)
    (change,) = found(tmp_path)
    assert change.score is not None
    assert change.time is None
