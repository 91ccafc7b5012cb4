"""Which notices are selected for a review: uncertain, different from each other, and not known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data import synthetic
from ocensa_nb.data.canonical import normalise
from ocensa_nb.review.selection import SIMILAR, select, uncertainty

TEXTS = synthetic.generate(600, seed=5)["descripcion"].tolist()


def scores(count, seed=0):
    return np.random.default_rng(seed).random(count)


def test_uncertainty_is_one_minus_the_mean_margin():
    found = uncertainty({"a": np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), "b": np.array([[0.5, 0.5], [0.9, 0.1]])})
    assert found == pytest.approx([1 - (0.2 + 0.0) / 2, 1 - (1.0 + 0.8) / 2])


@given(st.integers(1, 80), st.integers(0, 20), st.integers(0, 300))
@settings(max_examples=25, deadline=None)
def test_selected_texts_are_distinct_unknown_and_as_many_as_asked(count, seed, known_rows):
    known = {normalise(text) for text in TEXTS[:known_rows]}
    uncertain = scores(len(TEXTS), seed)
    rows = select(TEXTS, uncertain, count, known)
    assert len(rows) == len(set(rows)) == count
    assert (np.diff(uncertain[rows]) <= 0).all()
    assert not known & {normalise(TEXTS[row]) for row in rows}
    plain = [normalise(text) for text in TEXTS]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+").fit_transform(plain)[rows]
    near = (vectors @ vectors.T).toarray() - np.eye(len(rows))
    assert near.max() < SIMILAR + 1e-9


def test_select_twice_gives_the_same_rows():
    first, second = (select(TEXTS, scores(len(TEXTS)), 50) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_selected_are_among_the_most_uncertain():
    uncertain = np.linspace(1, 0, len(TEXTS))
    assert max(select(TEXTS, uncertain, 20)) < 250  # 100 candidates, and the repeats among them


@pytest.mark.parametrize(("texts", "expected"), [(["fuga"] * 9, 1), (["", "12", "fuga", "FUGA."], 2), (["", " "], 0)])
def test_repeated_and_empty_texts_are_selected_once_or_not(texts, expected):
    assert len(select(texts, scores(len(texts)), 5)) == expected


def test_nothing_is_selected_if_all_texts_are_known():
    assert len(select(TEXTS, scores(len(TEXTS)), 5, {normalise(text) for text in TEXTS})) == 0
