"""The expected range of F1: the bootstrap against scikit-learn, and the range against its definition."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from ocensa_nb.audit import verdict
from ocensa_nb.audit.columns import COLUMNS
from ocensa_nb.audit.repeats import find_repeats
from ocensa_nb.audit.verdict import CAN, CANNOT, UNKNOWN, expect_f1, judge_label
from ocensa_nb.evaluation.metrics import bootstrap

NO_COLUMNS = pd.DataFrame(columns=COLUMNS)


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


def level(labels, predicted):
    groups = np.arange(len(labels))
    test_rows = max(len(labels) // 10, 1)
    found = expect_f1(labels, predicted, groups, test_rows, find_repeats(labels, groups, 0), seed=0)
    classes = pd.DataFrame({"clase": ["a", "b"], "avisos": np.bincount(labels, minlength=2), "nota": ["", ""]})
    return judge_label("modo", find_repeats(labels, groups, 0), NO_COLUMNS, classes, found, None, 0).level


def test_label_shuffled_over_its_texts_cannot_be_learnt_however_high_its_f1():
    rng = np.random.default_rng(0)
    found = [level(*(rng.random((2, 600)) < 0.03).astype(np.int64)) for _ in range(40)]
    assert found.count(CAN) == 0
    assert found.count(CANNOT) >= 36
    labels = (rng.random(600) < 0.03).astype(np.int64)
    assert level(labels, labels) == CAN


@pytest.mark.parametrize("rows", [10, 20])
def test_few_rows_cannot_be_measured_which_is_no_verdict_on_the_label(rows):
    rng = np.random.default_rng(rows)
    found = [level(*rng.integers(0, 2, (2, rows))) for _ in range(20)]
    assert found.count(CANNOT) == 0
    assert found.count(UNKNOWN) >= 17
