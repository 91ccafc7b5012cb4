"""One value has one form, however a program or a person has written it."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocensa_nb.data.canonical import canonical, canonical_id, merge_spellings, plain

SPELLINGS = [
    [
        "2-Alta",
        "2–Alta",
        "2‑Alta",
        "２-Alta",
        "2-ALTA",
        " 2-alta",
        "2 - Alta",
        "2-Al\u200bta",
        "\ufeff2-Alta",
        "2-Alta\u00a0",
    ],
    ["Corrosión", "corrosion", "Corrosio\u0301n", "CORROSIÓN", "Co\u00adrrosión"],
    ["Sobre carga", "Sobre  carga", "Sobrecarga", "sobre\tcarga"],
    ["2", "2.0", "2,0", "2.00", "02", "２"],
    ["VERDADERO", "True", "TRUE"],
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_spellings_of_a_value_have_one_canonical_form(spellings):
    assert len({canonical(value) for value in spellings}) == 1


def test_different_values_have_different_canonical_forms():
    values = ["2-Alta", "1-Alta", "Alta", "2", "20", "2.5", "2.000", "0", "Corrosión", "Erosión"]
    assert len({canonical(value) for value in values}) == len(values)


@given(st.text(max_size=20))
def test_canonical_and_plain_are_idempotent(text):
    assert canonical(canonical(text)) == canonical(text)
    assert plain(plain(text)) == plain(text)


@pytest.mark.parametrize(
    ("number", "expected"),
    [("000010", "10"), ("10.0", "10"), ("0", "0"), ("A-01", "a-01"), ("1,0E+09", ""), ("1.00234E+07", ""), ("", "")],
)
def test_canonical_id_has_no_leading_zeros_and_is_empty_if_digits_are_lost(number, expected):
    assert canonical_id(number) == expected


def test_merge_spellings_shows_the_most_frequent_and_counts_the_others():
    values, several = merge_spellings(pd.Series(["2-Alta", "2-ALTA", "", "2-Alta", "3-Media"]))
    assert values.tolist() == ["2-Alta", "2-Alta", "", "2-Alta", "3-Media"]
    assert several == {"2-Alta": {"2-Alta": 2, "2-ALTA": 1}}


@pytest.mark.filterwarnings("error")
def test_merge_spellings_of_an_empty_column_is_empty():
    assert merge_spellings(pd.Series(["", ""]))[0].tolist() == ["", ""]
