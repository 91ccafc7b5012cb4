"""The error to expect above each confidence, against plain counting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocensa_nb.review.automation import ALL, THRESHOLDS, Scored, automation, wilson

shares = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(shares, shares)
def test_counts_and_errors_are_those_of_plain_counting(rows, tested):
    confidence = {"a": np.array([row[0] for row in rows]), "b": np.array([row[1] for row in rows])}
    scored = Scored(
        {"a": np.array([row[0] for row in tested]), "b": np.array([row[1] for row in tested])},
        {"a": np.array([row[2] for row in tested]), "b": np.array([row[3] for row in tested])},
    )
    found = automation(confidence, scored).set_index(["etiqueta", "confianza mínima"])
    for least in THRESHOLDS:
        for head, place in (("a", 0), ("b", 1)):
            errors = [not row[2 + place] for row in tested if row[place] >= least]
            assert found.at[(head, least), "avisos"] == sum(row[place] >= least for row in rows)
            assert found.at[(head, least), "avisos de prueba"] == len(errors)
            if errors:
                assert found.at[(head, least), "error esperado"] == pytest.approx(sum(errors) / len(errors))
        errors = [not (row[2] and row[3]) for row in tested if min(row[:2]) >= least]
        assert found.at[(ALL, least), "avisos de prueba"] == len(errors)
        if errors:
            assert found.at[(ALL, least), "error esperado"] == pytest.approx(sum(errors) / len(errors))


def test_without_tested_rows_errors_are_missing_and_counts_are_not():
    found = automation({"a": np.array([0.3, 0.9])}, None)
    assert found["error esperado"].isna().all()
    assert found["avisos"].tolist() == [2, 1, 1, 1, 1, 1, 0]
    assert set(found["etiqueta"]) == {"a"}


def test_wilson_interval_has_the_published_values():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81/263, 15/148, 0/20, 1/29.
    for wrong, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson(wrong, count) == pytest.approx((low, high), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert all(map(math.isnan, wilson(0, 0)))
