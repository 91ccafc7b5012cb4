"""Near-duplicates across a split."""

import numpy as np

from ocensa_nb.audit import repeats
from ocensa_nb.audit.repeats import find_near_duplicates

TEXTS = [
    "fuga de crudo por el sello mecánico de la bomba principal de despacho en la estación",
    "no arranca el motor eléctrico del compresor auxiliar",
    "fuga de crudo por sello mecánico de la bomba principal de despacho en la estación",
    "calibrar transmisor de presión",
    "",
]


def test_text_with_a_word_less_is_close_and_another_is_not():
    found = find_near_duplicates(TEXTS, np.array([0, 1]), np.array([2, 3, 4]))
    assert found.close.tolist() == [True, False, False]
    assert found.nearest[0] == 0
    assert found.repeated.tolist() == [0]


def test_similarities_in_blocks_are_those_of_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    words = ["fuga", "bomba", "sello", "motor", "crudo", "válvula", "presión"]
    texts = [" ".join(rng.choice(words, 5)) for _ in range(40)]
    train, asked = np.arange(25), np.arange(25, 40)
    whole = find_near_duplicates(texts, train, asked)
    monkeypatch.setattr(repeats, "BLOCK", 4)
    parts = find_near_duplicates(texts, train, asked)
    np.testing.assert_allclose(parts.similarity, whole.similarity, atol=1e-6)
    assert parts.repeated.tolist() == whole.repeated.tolist()


def test_texts_without_letters_have_no_near_duplicates():
    found = find_near_duplicates(["", "", ""], np.array([0, 1]), np.array([2]))
    assert not found.close.any()
    assert len(found.repeated) == 0
