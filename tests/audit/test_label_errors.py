"""Likely label errors, with cleanlab and without it."""

import importlib.util

import numpy as np
import pytest

from ocensa_nb.audit import label_errors
from ocensa_nb.audit.label_errors import REVIEW_COLUMNS, confidently_other, find_label_errors
from ocensa_nb.data import corrections

needs_cleanlab = pytest.mark.skipif(not importlib.util.find_spec("cleanlab"), reason="cleanlab is not installed")


@pytest.fixture(scope="module")
def noisy():
    """Return labels of which 30 are wrong, probabilities of a model that is right 9 times of 10, and the wrong rows."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 600)
    probabilities = rng.dirichlet(np.ones(4), 600) * 0.3
    sure = np.where(rng.random(600) < 0.95, truth, (truth + 1) % 4)
    probabilities[np.arange(600), sure] += 0.7
    wrong = rng.choice(600, 30, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + 2) % 4
    return labels, probabilities, wrong


@pytest.mark.parametrize("method", ["own", pytest.param("cleanlab", marks=needs_cleanlab)])
def test_wrong_labels_are_found_least_probable_first(noisy, method, monkeypatch):
    monkeypatch.setattr(label_errors, "has_cleanlab", lambda: method == "cleanlab")
    labels, probabilities, wrong = noisy
    found = find_label_errors(labels, probabilities)
    assert np.isin(wrong, found).mean() > 0.8
    assert len(found) < 90
    own = probabilities[found, labels[found]]
    assert (np.diff(own) >= 0).all()


def test_own_method_is_the_confident_joint_of_the_paper(noisy):
    labels, probabilities, _ = noisy
    thresholds = [probabilities[labels == c, c].mean() for c in range(4)]
    expected = set()
    for row, label in enumerate(labels):
        reached = [c for c in range(4) if probabilities[row, c] >= thresholds[c]]
        if reached and max(reached, key=lambda c: probabilities[row, c]) != label:
            expected.add(row)
    assert set(confidently_other(labels, probabilities).tolist()) == expected


def test_right_labels_with_sure_answers_have_no_suspects():
    labels = np.arange(40) % 4
    assert len(confidently_other(labels, np.eye(4)[labels])) == 0


def test_column_for_the_right_class_is_that_of_corrections():
    assert f"{corrections.RIGHT}…" in REVIEW_COLUMNS
