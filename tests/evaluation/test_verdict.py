"""The verdict on a label: its rule, that the test rows never choose the threshold, and what it says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.evaluation import verdict
from ocensa_nb.evaluation.verdict import NOT_YET, USEFUL, USEFUL_ABOVE, Answers

CLASSES = ["Wear", "Corrosion", "Other", "Vibration"]
ROWS = np.array([500, 20, 300, 80])


def answers(*blocks, true=0, wrong=3):
    """Return answers of blocks (rows, confidence, right rows); wrong ones take the class `true` for `wrong`."""
    confidence = np.concatenate([np.full(rows, value, float) for rows, value, _ in blocks])
    correct = np.concatenate([np.arange(rows) < right for rows, _, right in blocks])
    return Answers(confidence, np.where(correct, true, wrong), np.full(len(correct), true))


def judge(val, test=None, **settings):
    return verdict.judge("modo", CLASSES, ROWS, val, test, **settings)


MIXED = answers((200, 0.85, 190), (300, 0.5, 150))


def test_label_whose_lower_bound_reaches_the_target_is_useful():
    found = judge(MIXED, answers((400, 0.95, 380)))
    assert found["status"] == USEFUL
    assert found["accuracy_all_low"] == pytest.approx(0.9288, abs=1e-3)
    assert found["sentence"] == "modo: sirve (95 % de acierto en 400 avisos de prueba)."
    assert found["advice"] == ""


def test_label_with_90_percent_of_few_rows_is_not_useful():
    found = judge(answers((50, 0.5, 46)), answers((50, 0.5, 46)))  # 92 %, but at least 83 % only
    assert found["status"] == NOT_YET


def test_label_with_a_threshold_is_useful_above_it_as_measured_on_test_rows():
    found = judge(MIXED, answers((82, 0.9, 77), (118, 0.6, 60)))
    assert found["status"] == USEFUL_ABOVE
    assert found["threshold"] == 0.85
    assert found["coverage"] == pytest.approx(0.41)
    assert found["accuracy"] == pytest.approx(77 / 82)
    assert found["sentence"] == (
        "modo: sirve por encima de 0.85 de confianza (41 % de los avisos, 94 % de acierto); revise los demás."
    )


@given(st.lists(st.tuples(st.integers(1, 90), st.sampled_from([0.3, 0.6, 0.85, 0.95]), st.integers(0, 90)), min_size=1))
@settings(deadline=None)
def test_threshold_depends_on_validation_rows_alone(blocks):
    test = answers(*[(rows, value, min(right, rows)) for rows, value, right in blocks])
    found = judge(MIXED, test)
    assert found["threshold"] in ((0.0,) if found["status"] == USEFUL else (0.85,))
    above = test.confidence >= found["threshold"]
    assert found["coverage"] == pytest.approx(above.mean())
    if found["status"] != NOT_YET:
        assert found["accuracy"] == pytest.approx(test.correct[above].mean())
        assert found["accuracy"] >= 0.9
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (answers((82, 0.9, 70), (118, 0.6, 60)), "(41 % de los avisos, 85 % de acierto) debía acertar el 90 %"),
        (answers((25, 0.9, 25), (500, 0.6, 200)), "son muy pocos avisos (5 % de los avisos, 100 % de acierto)"),
        (answers((10, 0.9, 10), (20, 0.6, 3)), "son muy pocos avisos (33 % de los avisos, 100 % de acierto)"),
        (answers((200, 0.6, 100)), "ninguno de 200 avisos de prueba pasa de 0.85 de confianza"),
    ],
)
def test_threshold_that_test_rows_do_not_confirm_is_not_useful_yet(test, words):
    found = judge(MIXED, test)
    assert found["status"] == NOT_YET
    assert found["sentence"].startswith("modo: todavía no sirve: ")
    assert words in found["sentence"]


def test_label_without_threshold_says_its_accuracy_and_that_of_the_surest():
    found = judge(answers((200, 0.8, 120)), answers((20, 0.8, 16), (180, 0.5, 84)))
    assert found["status"] == NOT_YET
    assert found["accuracy_top"] == pytest.approx(0.8)
    assert "acierta el 50 % (200 avisos de prueba) y, del 10 % con más confianza, el 80 %" in found["sentence"]


def test_other_target_gives_another_verdict():
    test = answers((82, 0.9, 70), (118, 0.6, 60))
    assert judge(MIXED, test, target=0.8)["status"] == USEFUL_ABOVE
    assert "llegue al 99 %" in judge(MIXED, test, target=0.99)["sentence"]


@pytest.mark.parametrize("test", [None, answers((0, 0.5, 0))])
def test_verdict_without_test_rows_is_that_of_validation_and_says_so(test):
    found = judge(MIXED, test)
    assert found["status"] == USEFUL_ABOVE
    assert found["measured_on"] == "val"
    assert "en validación, sin comprobar en otros avisos" in found["sentence"]


def test_verdict_without_any_rows_says_that_it_is_unknown():
    found = judge(answers((0, 0.5, 0)))
    assert found["status"] == NOT_YET
    assert "todavía no se sabe" in found["sentence"]
    assert found["advice"] == ""


def test_advice_asks_for_notices_of_rare_classes_with_their_rows():
    found = judge(answers((200, 0.5, 100)), answers((200, 0.5, 100), true=1, wrong=0))
    assert "Etiquete más avisos" in found["advice"]
    assert "«Corrosion» (20)" in found["advice"]
    assert "confunde" not in found["advice"]


def test_advice_names_the_most_confused_pair_of_frequent_classes():
    found = judge(answers((200, 0.5, 100)), answers((200, 0.5, 100)))
    assert "100 avisos de «Wear» se predicen como «Vibration»" in found["advice"]
    assert "cuaderno 06" in found["advice"]
    assert "Etiquete" not in found["advice"]


def test_advice_says_nothing_of_the_class_of_merged_rare_classes():
    assert judge(answers((200, 0.5, 100)), answers((200, 0.5, 100), true=2, wrong=0))["advice"] == ""


@pytest.mark.parametrize(
    ("threshold", "shown"), [(0.8, 0.8), (0.801, 0.81), (0.29, 0.29), (0.9951, 0.9951), (1.0, 1.0)]
)
def test_threshold_is_rounded_up_to_what_is_shown(threshold, shown):
    assert verdict._rounded_up(threshold) == shown


@pytest.mark.parametrize(("share", "shown"), [(1.0, "100 %"), (0.998, "99 %"), (0.414, "41 %")])
def test_percent_says_100_of_all_only(share, shown):
    assert verdict._percent(share) == shown


def test_apply_verdict_counts_the_new_notices_above_the_threshold():
    found = judge(MIXED, answers((82, 0.9, 77), (118, 0.6, 60)))
    sentence = verdict.apply_verdict("modo", found, np.array([0.85, 0.9, 0.84, 0.2]))
    assert "2 de 4 avisos (50 %) pasan de 0.85 de confianza" in sentence
    assert "94 % de acierto" in sentence
    assert "sirve; se espera un 95 %" in verdict.apply_verdict(
        "modo", judge(MIXED, answers((400, 0.95, 380))), np.array([0.5])
    )
    assert "todavía no sirve" in verdict.apply_verdict("modo", judge(answers((9, 0.5, 1))), np.array([0.5]))
