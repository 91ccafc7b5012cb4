"""Near-duplicates: those of a comparison of every pair, found in any blocks."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data import synthetic
from ocensa_nb.data.canonical import normalise
from ocensa_nb.models import near_duplicates
from ocensa_nb.models.near_duplicates import CHARACTERS, SIMILARITY, find_near_duplicates

TEXTS = [
    "fuga de crudo por el sello mecánico de la bomba principal de despacho en la estación",
    "no arranca el motor eléctrico del compresor auxiliar",
    "fuga de crudo por sello mecánico de la bomba principal de despacho en la estación",
    "calibrar transmisor de presión",
    "",
]
WORDS = ["fuga", "bomba", "sello", "motor", "crudo", "válvula", "presión"]


def of_all_pairs(texts, train, asked):
    """Return the cosine of each asked and each training row, float64 (asked, train)."""
    weighted = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTERS, sublinear_tf=True)
    vectors = weighted.fit_transform([normalise(text) for text in texts])
    return (vectors[asked] @ vectors[train].T).toarray()


def drawn(seed, rows=300):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(rows)]


def formulaic(seed, rows=300):
    """Return synthetic notices, a third of them with a word less."""
    texts = synthetic.generate(rows, seed)["descripcion"].tolist()
    return texts + [text.rsplit(" ", 1)[0] for text in texts[::2]]


@pytest.mark.parametrize("made", [drawn, formulaic])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("block", [7, 1_000])
def test_near_duplicates_are_those_of_all_pairs(made, seed, block, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    monkeypatch.setattr(near_duplicates, "PAIRS", 3 * block)
    texts = made(seed)
    order = np.random.default_rng(seed).permutation(len(texts))
    train, asked = np.sort(order[100:]), np.sort(order[:100])
    found, cosine = find_near_duplicates(texts, train, asked), of_all_pairs(texts, train, asked)
    sure = np.abs(cosine - SIMILARITY) > 1e-5  # others are a matter of rounding
    assert sure.all()
    near = cosine >= SIMILARITY
    assert near.any()
    assert found.close.tolist() == near.any(axis=1).tolist()
    assert found.repeated.tolist() == train[near.any(axis=0)].tolist()
    best = cosine[found.close, np.searchsorted(train, found.nearest[found.close])]
    np.testing.assert_allclose(best, cosine.max(axis=1)[found.close], atol=1e-5)


def test_text_with_a_word_less_is_close_and_another_is_not():
    found = find_near_duplicates(TEXTS, np.array([0, 1]), np.array([2, 3, 4]))
    assert found.close.tolist() == [True, False, False]
    assert found.nearest[0] == 0
    assert found.repeated.tolist() == [0]


def test_texts_without_letters_have_no_near_duplicates():
    found = find_near_duplicates(["", "", ""], np.array([0, 1]), np.array([2]))
    assert not found.close.any()
    assert len(found.repeated) == 0
