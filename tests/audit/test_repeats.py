"""Repeated texts: counts and ceilings, against plain references and the generator's ceiling."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from ocensa_nb.audit import repeats
from ocensa_nb.audit.repeats import find_repeats
from ocensa_nb.data import synthetic

ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=60)


def by_hand(rows):
    """Return counts and agreement of (group, label) rows, with loops."""
    groups = {}
    for group, label in rows:
        groups.setdefault(group, []).append(label)
    repeated = [labels for labels in groups.values() if len(labels) > 1]
    mixed = [labels for labels in repeated if len(set(labels)) > 1]
    agreeing = [(labels.count(label) - 1) / (len(labels) - 1) for labels in repeated for label in labels]
    return len(repeated), sum(map(len, repeated)), len(mixed), sum(map(len, mixed)), agreeing


@given(ROWS)
def test_repeats_are_those_counted_by_hand(rows):
    groups, labels = np.array(rows).T
    found = find_repeats(labels, groups, seed=0)
    texts, repeated, mixed, contradictory, agreeing = by_hand(rows)
    assert (found.texts, found.rows, found.contradictory_texts, found.contradictory_rows) == (
        texts,
        repeated,
        mixed,
        contradictory,
    )
    shares = repeats.pairs_agreeing(groups, labels)
    assert shares[np.isin(groups, [g for g, n in Counter(groups).items() if n > 1])].sum() == pytest.approx(
        sum(agreeing)
    )


@given(ROWS)
def test_ceilings_are_the_scores_of_the_most_frequent_label_of_each_text(rows):
    groups, labels = np.array(rows).T
    overall = Counter(labels.tolist())
    best = {}
    for group in set(groups.tolist()):
        own = Counter(labels[groups == group].tolist())
        best[group] = max(own, key=lambda label, own=own: (own[label], overall[label]))
    predicted = np.array([best[group] for group in groups.tolist()])
    found = find_repeats(labels, groups, seed=0)
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert found.accuracy >= accuracy_score(labels, np.full(len(labels), labels[0]))
    if len(set(overall.values())) == len(overall):  # otherwise another label may break a tie
        assert found.f1 == pytest.approx(f1_score(labels, predicted, average="weighted", zero_division=0))
        assert found.f1_macro == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


def test_texts_that_never_repeat_have_no_ceiling_and_a_perfect_score():
    found = find_repeats(np.arange(50) % 3, np.arange(50), seed=0)
    assert (found.texts, found.accuracy, found.agreement, found.ceiling) == (0, 1.0, None, None)


def test_ceiling_of_texts_with_known_noise_holds_the_best_accuracy():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(2_000), 3)
    clean = rng.integers(0, 4, 2_000)[groups]
    labels = np.where(rng.random(6_000) < 0.3, rng.integers(0, 4, 6_000), clean)  # right: 0.7 + 0.3 / 4 = 0.775
    found = find_repeats(labels, groups, seed=0)
    low, value, high = found.ceiling
    assert found.agreement == pytest.approx(0.775**2 + 3 * 0.075**2, abs=0.01)
    assert low < value < high < 0.8
    assert 0.775 < value < found.accuracy  # the majority of three is too high a ceiling


@pytest.mark.parametrize("head", synthetic.COLUMNS)
def test_ceiling_of_synthetic_notices_is_the_ceiling_of_the_generator(head):
    frame = synthetic.generate(6_000, seed=8, with_rule=True)
    state = ["familia_equipo", "componente", *(f"regla_{other}" for other in synthetic.COLUMNS)]
    groups = pd.factorize(frame[state].agg("|".join, axis=1))[0]  # notices that state the same
    labels = pd.factorize(frame[synthetic.COLUMNS[head]], sort=True)[0]
    low, value, high = find_repeats(labels, groups, seed=0).ceiling
    assert low - 0.01 <= synthetic.ceiling()[f"{head}_f1"] <= high + 0.01
    assert value - synthetic.ceiling()[f"{head}_f1"] < 0.02
