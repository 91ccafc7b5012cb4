"""Sets, decisions and verdicts against simulated labels: what is claimed is false as seldom as it is said."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta, betabinom

from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import suggestion
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.evaluation.suggestion import ACCEPT, CHOOSE, REVIEW, Count, Rows, Suggestion
from ocensa_nb.evaluation.verdict import NOT_YET, SUGGESTION, USEFUL, USEFUL_ABOVE, judge


def drawn(rng, rows, classes=8, scale=2.0, sharper=1.0):
    """Return rows whose labels are drawn from their shares, before these are sharpened, which no method may rely on."""
    logits = rng.normal(0, scale, (rows, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return Rows(softmax(sharper * logits, axis=1), labels, np.arange(rows))


def confident(rng, rows, accuracy, classes=4, least=0.5):
    """Return rows of a uniform confidence, which are right with the chance `accuracy(confidence)`."""
    confidence, predicted = rng.uniform(least, 1, rows), rng.integers(classes, size=rows)
    shares = np.repeat((1 - confidence)[:, None] / (classes - 1), classes, axis=1)
    shares[np.arange(rows), predicted] = confidence
    other = (predicted + rng.integers(1, classes, rows)) % classes
    labels = np.where(rng.random(rows) < accuracy(confidence), predicted, other)
    return Rows(shares, labels, np.arange(rows))


def verdict_of(val, test, class_rows):
    names = [f"Clase {i}" for i in range(len(class_rows))]
    fitted = Suggestion.fit(val, test, np.array(class_rows))
    predictions = Predictions(test.shares.max(axis=1), test.shares.argmax(axis=1), test.labels)
    return judge("modo", names, np.array(class_rows), fitted, fitted.measure(test, names), predictions)


@pytest.mark.parametrize(("sharper", "target"), [(1.0, 0.9), (2.5, 0.9), (0.4, 0.7)])
def test_sets_have_the_right_class_as_often_as_they_promise_however_wrong_the_probabilities(sharper, target):
    rng, inside = np.random.default_rng(0), 0
    low, high = betabinom.interval(0.98, 1_000, np.ceil(501 * target), 501 - np.ceil(501 * target))
    for _ in range(100):
        val, test = drawn(rng, 500, sharper=sharper), drawn(rng, 1_000, sharper=sharper)
        found = Suggestion.fit(val, test, np.full(8, 100), target)
        inside += low <= found.measure(test, "abcdefgh")["sets"]["right"] * 1_000 <= high
    assert inside >= 95


def test_set_is_never_empty_starts_with_the_prediction_and_has_all_classes_if_there_are_few_rows():
    rng = np.random.default_rng(0)
    test = drawn(rng, 300, scale=0.1)
    found = Suggestion.fit(drawn(rng, 300, scale=9.0), test, np.full(8, 100))
    assert found.sets(test.shares).sum(axis=1).min() == 1
    columns = found.columns(test.shares, list("abcdefgh"))
    assert all(held.split(" | ")[0] == first for held, first in zip(columns["conjunto"], columns["pred"], strict=True))
    few = Suggestion.fit(drawn(rng, 8), test, np.full(8, 100))
    assert few.sets(test.shares).all()
    assert set(few.decisions(test.shares)) == {REVIEW}


def test_columns_rank_the_classes_and_a_label_of_two_has_no_third():
    found = Suggestion(0.9, 0.2, 0.8, None, True)
    columns = found.columns(np.array([[0.3, 0.5, 0.2], [0.05, 0.1, 0.85], [0.6, 0.1, 0.3]]), ["a", "b", "c"])
    assert columns["pred"].tolist() == ["b", "c", "a"]
    assert columns["top2"].tolist() == ["a", "b", "c"]
    assert columns["top3"].tolist() == ["c", "a", "b"]
    assert columns["conjunto"] == ["b | a | c", "c", "a | c"]
    assert columns["decision"].tolist() == [CHOOSE, ACCEPT, CHOOSE]
    assert set(found.columns(np.array([[0.1, 0.9]]), ["a", "b"], reliable=False)["decision"]) == {REVIEW}
    assert found.columns(np.array([[0.1, 0.9]]), ["a", "b"])["top3"].tolist() == [""]


def test_bound_of_a_count_is_exact_and_a_repeated_text_counts_once():
    assert Count(9, 10, 10).bound(0.05) == pytest.approx(beta.ppf(0.05, 9, 2))
    assert Count(10, 10, 10).bound(0.05) == pytest.approx(0.05**0.1)
    assert (Count(10, 10, 10).bound(0.95), Count(0, 10, 10).bound(0.05), Count(0, 0, 0).bound(0.05)) == (1, 0, 0)
    repeated = Rows(np.ones((40, 1)), np.zeros(40, np.int64), np.repeat(np.arange(4), 10))
    assert repeated.count(np.ones(40, bool)).distinct == pytest.approx(4)


@pytest.mark.parametrize("shares", [(0.97, 0.03), (0.7, 0.25, 0.03, 0.02), (0.3, 0.3, 0.2, 0.1, 0.1)])
def test_shuffled_labels_are_called_useful_less_often_than_stated(shares):
    rng, useful = np.random.default_rng(0), 0
    for _ in range(200):
        # Scores around the shares of the classes, as a model has that learnt nothing else.
        sides = []
        for _ in range(2):
            noisy = softmax(np.log(shares) + rng.normal(0, 0.8, (400, len(shares))), axis=1)
            sides.append(Rows(noisy, rng.choice(len(shares), size=400, p=shares), np.arange(400)))
        useful += verdict_of(*sides, 1_000 * np.array(shares))["status"] != NOT_YET
    assert useful <= 0.05 * 200


def test_repeated_texts_of_shuffled_labels_are_no_evidence():
    rng, useful = np.random.default_rng(0), 0
    for _ in range(200):
        groups, right = np.repeat(np.arange(25), 20), np.repeat(rng.random(25) < 0.85, 20)
        shares = np.where(right[:, None], [0.05, 0.95], [0.95, 0.05])
        test = Rows(shares, np.ones(500, np.int64), groups)
        useful += verdict_of(test, test, [500, 500])["status"] != NOT_YET
    assert useful <= 0.05 * 200


def test_label_of_95_percent_one_class_is_not_useful_and_says_what_is_never_found():
    labels = np.repeat([0, 1], [950, 50])
    constant = Rows(np.full((1_000, 2), [0.97, 0.03]), labels, np.arange(1_000))
    found = verdict_of(constant, constant, [950, 50])
    assert found["status"] == NOT_YET
    assert found["sentence"] == (
        "modo: todavía no sirve: acierta el 95 % (al menos el 93 %), y quien responde siempre «Clase 0», el 95 %. "
        "Nunca reconoce «Clase 1» (50)."
    )


@pytest.mark.parametrize("rows", [200, 700])
def test_claim_of_90_percent_is_made_in_5_percent_of_the_runs_of_labels_that_miss_it_at_most(rows):
    rng, claimed = np.random.default_rng(rows), 0
    for _ in range(300):
        val, test = (confident(rng, rows, lambda confidence: 0.93 * confidence) for _ in range(2))
        found = verdict_of(val, test, [250] * 4)
        # The accuracy from c on is the mean of 0.93 × confidence there, below 0.9 unless c is above 0.936.
        claimed += found["status"] in (USEFUL, USEFUL_ABOVE) and 0.93 * (1 + found["threshold"]) / 2 < 0.9
    assert claimed <= 0.05 * 300


def test_label_that_is_learnt_has_the_level_that_its_accuracy_deserves():
    rng = np.random.default_rng(0)
    good, better = (confident(rng, 2_000, lambda c, s=s: np.minimum(1, c + s), least=0.3) for s in (0, 0.65))
    found = [verdict_of(side, side, [250] * 4) for side in (better, good)]
    assert [part["status"] for part in found] == [USEFUL, USEFUL_ABOVE]
    assert found[1]["sentence"].startswith("modo: sirve por encima de 0,")
    logits = rng.normal(0, 1, (4_000, 12)) + 3 * (np.arange(12) < 3)
    labels = rng.integers(3, size=4_000)
    third = Rows(softmax(logits, axis=1), labels, np.arange(4_000))
    assert verdict_of(third, third, [1_000] * 12)["status"] == SUGGESTION


def test_few_test_rows_cannot_be_measured_which_is_no_verdict_on_the_label():
    rng = np.random.default_rng(0)
    found = verdict_of(confident(rng, 20, np.ones_like), confident(rng, 20, np.ones_like), [250] * 4)
    assert found["status"] == NOT_YET
    assert "todavía no se sabe si sirve: con 20 avisos de prueba no se puede medir (hacen falta 29" in found["sentence"]


def test_class_that_the_sets_miss_is_named():
    test = Rows(np.tile([0.9, 0.06, 0.04], (400, 1)), np.repeat([0, 1], [360, 40]), np.arange(400))
    found = Suggestion(0.9, 0.5, None, None, True).measure(test, ["a", "b", "c"])
    assert found["sets"]["right"] == 0.9
    assert found["uncovered"] == {"b": 0.0}


@pytest.mark.parametrize("target", [0.4, 0.995])
def test_target_out_of_range_is_refused(target):
    with pytest.raises(UserError, match=r"debe ser de 0\.5 a 0\.99"):
        suggestion.require_target(target)
