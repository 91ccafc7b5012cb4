"""The expected range of F1: the bootstrap against scikit-learn, and the range against its definition."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from ocensa_nb.audit import verdict
from ocensa_nb.audit.repeats import find_repeats
from ocensa_nb.audit.verdict import expect_f1
from ocensa_nb.evaluation.metrics import bootstrap


def answers(rows, right, seed=0, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    predicted = np.where(rng.random(rows) < right, labels, rng.integers(0, classes, rows))
    return labels, predicted


def test_bootstrap_of_fewer_texts_is_scikit_learn_on_the_drawn_rows():
    labels, predicted = answers(60, 0.6)
    groups = np.arange(60) // 3
    scores = bootstrap(labels, {"linear": predicted}, groups, 5, 3, share=0.5)["linear"]
    rng = np.random.default_rng(3)
    for weighted, macro, kappa in zip(*(scores[name][1:] for name in ("f1", "f1_macro", "kappa")), strict=True):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in rng.integers(0, 20, 10)])
        for average, value in (("weighted", weighted), ("macro", macro)):
            assert value == pytest.approx(f1_score(labels[rows], predicted[rows], average=average, zero_division=0))
        assert kappa == pytest.approx(cohen_kappa_score(labels[rows], predicted[rows]))


def test_range_holds_the_score_of_most_test_sets_of_its_size():
    labels, predicted = answers(4_000, 0.7)
    groups = np.arange(4_000)
    found = expect_f1(labels, predicted, groups, 400, find_repeats(labels, groups, 0), seed=0)
    low, high = found.f1
    high -= verdict.GAIN * (1 - found.linear_f1)  # what an encoder may add
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        rows = rng.choice(4_000, 400, replace=False)
        inside += low <= f1_score(labels[rows], predicted[rows], average="weighted") <= high
    assert inside >= 180
    assert high - low < 0.12


def test_range_of_contradictory_texts_ends_below_their_ceiling():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), 2)
    labels = rng.integers(0, 3, 600)  # the text says nothing
    found = expect_f1(labels, labels, groups, 600, find_repeats(labels, groups, 0), seed=0)
    assert found.f1[1] <= find_repeats(labels, groups, 0).f1
    assert found.ceiling < 0.7


@pytest.mark.parametrize("right", [0.0, 0.5])
def test_only_a_model_that_knows_something_beats_chance(right):
    labels, predicted = answers(1_000, right)
    groups = np.arange(1_000)
    found = expect_f1(labels, predicted, groups, 100, find_repeats(labels, groups, 0), seed=0)
    assert found.beats_chance is (right > 0)
    constant = np.full(1_000, np.bincount(labels).argmax())
    assert found.majority == pytest.approx(f1_score(labels, constant, average="weighted", zero_division=0))
