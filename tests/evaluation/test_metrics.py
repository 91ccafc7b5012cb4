"""The paired bootstrap of F1, against a plain loop with scikit-learn's F1, and what its sentences say."""

import json
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ocensa_nb.errors import num
from ocensa_nb.evaluation import metrics
from ocensa_nb.evaluation.metrics import Predictions


def answers(labels, accuracy, classes, rng):
    """Return predictions that are right with a probability, and otherwise of a random class."""
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(classes, size=len(labels)))


def sample(rows=120, classes=6, seed=0, accuracies=(0.5, 0.7)):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=rows, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    guesses = (answers(labels, accuracy, classes, rng) for accuracy in accuracies)
    return labels, dict(zip(("encoder", "linear", "blend"), guesses, strict=False))


def predictions(labels, predicted, head="modo"):
    """Return the predictions of each model for one label."""
    return {model: {head: Predictions(np.ones(len(labels)), guess, labels)} for model, guess in predicted.items()}


def f1(labels, guess, average):
    return f1_score(labels, guess, average=average, zero_division=0)


def drawn_units(units, resamples, seed):
    return np.concatenate([chosen.T for chosen in metrics._draws(units, units, resamples, seed)]).astype(int)


@pytest.mark.parametrize("chunk", [metrics.CHUNK, 500])
@pytest.mark.parametrize("grouped", [False, True])
def test_bootstrap_equals_a_plain_loop_with_f1_score(grouped, chunk):
    labels, predicted = sample(rows=40)
    groups = np.array([f"texto {i // 3}" for i in range(40)]) if grouped else None
    with patch.object(metrics, "CHUNK", chunk):
        scores = metrics.bootstrap(labels, predicted, groups, resamples=25, seed=4)
        counts = drawn_units(14 if grouped else 40, 25, 4)
    _, unit = np.unique(groups if grouped else np.arange(40), return_inverse=True)
    assert (counts[0] == 1).all()
    for place, times in enumerate(counts):
        rows = np.repeat(np.arange(40), times[unit])
        for model, guess in predicted.items():
            assert scores[model]["f1"][place] == pytest.approx(f1(labels[rows], guess[rows], "weighted"))
            assert scores[model]["f1_macro"][place] == pytest.approx(f1(labels[rows], guess[rows], "macro"))


@given(st.integers(1, 50), st.integers(1, 30), st.integers(0, 99))
@settings(deadline=None)
def test_draws_have_as_many_units_as_there_are(units, resamples, seed):
    counts = drawn_units(units, resamples, seed)
    assert counts.shape == (1 + resamples, units)
    assert (counts.sum(axis=1) == units).all()


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_compare_of_any_rows_has_the_difference_of_scikit_learn(rows):
    labels, encoder, linear = np.array(rows).T
    found = metrics.compare(predictions(labels, {"encoder": encoder, "linear": linear}), resamples=20)
    entry = found["modo"]["encoder-linear"]
    for metric, average in (("f1", "weighted"), ("f1_macro", "macro")):
        expected = f1(labels, encoder, average) - f1(labels, linear, average)
        assert entry[metric]["difference"] == pytest.approx(expected)
        assert entry[metric]["low"] <= entry[metric]["high"]
    assert json.loads(json.dumps(found)) == found


def test_interval_contains_the_true_difference_in_about_95_of_100_samples():
    labels, predicted = sample(rows=200_000, classes=4)
    true = f1(labels, predicted["encoder"], "weighted") - f1(labels, predicted["linear"], "weighted")
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(300):
        rows = rng.choice(200_000, 300, replace=False)
        part = predictions(labels[rows], {model: guess[rows] for model, guess in predicted.items()})
        interval = metrics.compare(part, resamples=400, seed=trial)["modo"]["encoder-linear"]
        inside += interval["f1"]["low"] <= true <= interval["f1"]["high"]
    assert 0.91 <= inside / 300 <= 0.985  # binomial: 0.95 ± 3 standard deviations


def test_interval_of_grouped_rows_is_wider_than_that_of_single_rows():
    labels, predicted = sample(rows=60)
    repeated = predictions(np.repeat(labels, 10), {model: np.repeat(guess, 10) for model, guess in predicted.items()})
    widths = []
    for groups in (None, np.repeat(np.arange(60), 10)):
        interval = metrics.compare(repeated, groups)["modo"]["encoder-linear"]["f1"]
        widths.append(interval["high"] - interval["low"])
    assert widths[1] > 2.5 * widths[0]  # √10 in theory


def test_compare_is_the_same_with_the_same_seed_and_other_with_another():
    labels, predicted = sample()
    models = predictions(labels, predicted)
    first, again, other = (metrics.compare(models, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_compare_leaves_out_absent_models_and_labels_without_rows():
    labels, predicted = sample()
    models = predictions(labels, predicted)
    empty = Predictions(np.ones(0), labels[:0], labels[:0])
    assert list(metrics.compare({model: {**heads, "causa": empty} for model, heads in models.items()})) == ["modo"]
    assert metrics.compare({"encoder": models["encoder"]}) == {"modo": {}}


def compared(accuracies, rows=800):
    labels, predicted = sample(rows, accuracies=accuracies)
    return metrics.sentences(metrics.compare(predictions(labels, predicted, "prioridad")))


def test_sentence_names_the_better_model_with_a_positive_difference():
    (sentence,) = compared((0.4, 0.6))
    assert sentence.startswith("En prioridad, el modelo simple va mejor que el codificador: +0,")
    assert "−" not in sentence
    (sentence,) = compared((0.6, 0.4))
    assert sentence.startswith("En prioridad, el codificador va mejor que el modelo simple: +0,")


def test_sentence_of_models_that_chance_explains_says_so():
    (sentence,) = compared((0.5, 0.5))
    assert sentence.startswith("En prioridad, el codificador y el modelo simple no se distinguen: ")
    assert "(−0," in sentence


def test_sentence_of_an_undecided_pair_has_the_sign_of_first_minus_second():
    labels, predicted = sample(rows=300, accuracies=(0.5, 0.55))
    found = metrics.compare(predictions(labels, predicted))["modo"]["encoder-linear"]
    assert found["f1"]["difference"] < 0 < found["f1"]["high"]
    assert f"no se distinguen: −{num(-found['f1']['difference'], 2)} (−" in found["sentence"]


def test_sentence_of_equal_predictions_says_that_they_are_the_same():
    labels, predicted = sample()
    same = dict.fromkeys(("encoder", "linear", "blend"), predicted["linear"])
    found = metrics.sentences(metrics.compare(predictions(labels, same)))
    assert found[2] == "En modo, la mezcla y el modelo simple responden lo mismo en todos los avisos."
    assert len(found) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.114, "+0,11"),
        (-0.114, "−0,11"),
        (0.0, "0,00"),
        (-1e-9, "0,00"),
        (0.0031, "+0,003"),
        (-0.0031, "−0,003"),
        (2e-4, "+0,0002"),
    ],
)
def test_signed_shows_a_minus_sign_and_small_numbers_with_more_decimals(value, text):
    assert metrics.signed(value, plus=True) == text
