"""Answers for rows that a model was not fitted on, and likely label errors, with cleanlab and without it."""

import importlib.util
import threading

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.audit import label_errors
from ocensa_nb.audit.audit import settings
from ocensa_nb.audit.label_errors import (
    REVIEW_COLUMNS,
    confidently_other,
    find_label_errors,
    fold_rows,
    predict_out,
    sample_rows,
)
from ocensa_nb.data import corrections, synthetic
from ocensa_nb.models.linear import count_ngrams

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


def test_fits_one_after_another_because_liblinear_shares_its_generator(monkeypatch):
    threads, fit = [], label_errors.LinearModel.fit

    def recorded(*arguments):
        threads.append(threading.current_thread())
        return fit(*arguments)

    monkeypatch.setattr(label_errors.LinearModel, "fit", recorded)
    texts, fields = synthetic.generate(80, seed=1)["descripcion"].tolist(), pd.DataFrame(index=range(80))
    labels = {"modo": np.arange(80) % 3}
    split, folds = fold_rows(np.arange(80), labels, settings(""))
    fewer = {"fewer": split["train"][::2]}
    found = predict_out(texts, count_ngrams(texts), np.arange(80), fields, {}, labels, split, folds, fewer)
    assert set(threads) == {threading.main_thread()}
    assert len(threads) == label_errors.FOLDS + len(found.without)


def test_models_of_a_long_file_are_fitted_to_a_sample_with_every_class_and_answer_every_row(monkeypatch):
    monkeypatch.setattr(label_errors, "MOST_FITTED", 100)
    monkeypatch.setattr(label_errors, "OF_RARE", 4)
    frame = synthetic.generate(600, seed=1)
    texts, fields = frame["descripcion"].tolist(), pd.DataFrame(index=range(600))
    labels = {"prioridad": pd.factorize(frame["prioridad"])[0], "rare": (np.arange(600) >= 597).astype(int)}
    sample = sample_rows(labels, seed=0)
    assert 100 <= len(sample) <= 130
    assert set(sample) >= {597, 598, 599}
    split, folds = fold_rows(np.arange(600), {"prioridad": labels["prioridad"]}, settings(""))
    counts = count_ngrams([texts[row] for row in sample])
    found = predict_out(texts, counts, sample, fields, {}, labels, split, folds, {})
    right = (found.predicted("prioridad") == labels["prioridad"]).mean()
    assert found.probabilities["prioridad"].shape == (600, 4)
    assert right > 0.5
