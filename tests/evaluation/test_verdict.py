"""The verdict on a label: its rule, that the test rows never choose the threshold, what it says, and the warnings."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from ocensa_nb.evaluation import verdict
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.evaluation.suggestion import ACCEPT, CHOOSE, REVIEW, Suggestion
from ocensa_nb.evaluation.verdict import NOT_YET, SUGGESTION, USEFUL_ABOVE

CLASSES = ["Wear", "Corrosion", "Other", "Vibration"]
ROWS = np.array([500, 20, 300, 80])
PRIORITIES = ["1-Critica", "2-Alta", "3-Media", "4-Baja"]
TRAINED = np.array([440, 300, 220, 40])


def answers(*blocks, true=0, wrong=3):
    """Return predictions of blocks (rows, confidence, right rows); wrong ones take the class `true` for `wrong`."""
    confidence = np.concatenate([np.full(rows, value, float) for rows, value, _ in blocks])
    correct = np.concatenate([np.arange(rows) < right for rows, _, right in blocks])
    return Predictions(confidence, np.where(correct, true, wrong), np.full(len(correct), true))


SUGGESTED = Suggestion(0.9, 0.2, 0.86, 3, True)


def share(rows, right, low):
    return {"rows": rows, "right": right, "low": low}


MEASURED = {
    "distinct": 600.0,
    "all": share(700, 0.69, 0.66),
    "accepted": share(168, 0.957, 0.912),
    "chosen": share(500, 0.889, 0.86),
    "options": share(700, 0.938, 0.915),
    "top": [0.69, 0.86, 0.938, 0.96, 0.98],
    "sets": share(700, 0.905, 0.88),
    "interval": [0.876, 0.929],
    "size": 2.12,
    "trusted": {"Wear": 0.96},
    "by_class": {"Wear": 0.91, "Other": 0.62},
    "uncovered": {"Other": 0.62},
}


def judge(suggestion=SUGGESTED, test=None, **changes):
    test = answers((200, 0.5, 100)) if test is None else test
    return verdict.judge("modo", CLASSES, ROWS, suggestion, MEASURED | changes, test)


def test_levels_say_the_share_on_the_test_rows_and_its_lower_bound():
    options = "la correcta está entre 3 opciones el 93 % (al menos el 91 %)."
    found = judge()
    assert (found["status"], found["threshold"], found["advice"]) == (USEFUL_ABOVE, 0.86, "")
    assert found["sentence"] == (
        "modo: sirve por encima de 0,86 de confianza, en el 24 % de los avisos: acierta el 95 % (al menos el 91 %); "
        f"sobre todo «Wear». L{options[1:]}"
    )
    assert judge(all=share(700, 0.95, 0.93))["sentence"] == "modo: sirve: acierta el 95 % (al menos el 93 %)."
    less = judge(accepted=share(168, 0.92, 0.88))
    assert less["status"] == SUGGESTION
    assert less["sentence"] == (
        f"modo: sirve como sugerencia: {options} Acepte sin revisar el 24 % de los avisos, los que pasan de 0,86 de "
        "confianza: acierta el 92 % (al menos el 88 %); sobre todo «Wear»."
    )
    every = judge(dataclasses.replace(SUGGESTED, accept=0.0), accepted=share(700, 0.92, 0.88))
    assert "Acepte sin revisar todos los avisos: acierta el 92 %" in every["sentence"]
    neither = judge(dataclasses.replace(SUGGESTED, accept=None, options=None), accepted=share(0, 0.0, 0.0))
    assert neither["status"] == NOT_YET
    assert neither["sentence"] == (
        "modo: todavía no sirve: acierta el 69 % (al menos el 66 %), y la correcta está entre 3 opciones el 93 % de "
        "las veces."
    )
    assert neither["advice"] != ""


def test_decisions_and_sets_are_counted_with_what_to_expect_of_them():
    decisions = {ACCEPT: 120, CHOOSE: 300, REVIEW: 80}
    assert verdict.describe_decisions("modo", MEASURED, decisions) == (
        "modo: de 500 avisos, acepte 120 (acierta el 95 %, al menos el 91 %); en 300 elija entre 3 clases o menos (con "
        "la correcta el 88 %); revise 80."
    )
    assert verdict.describe_decisions("modo", MEASURED, {REVIEW: 80}) == "modo: de 80 avisos, revise 80."
    assert verdict.describe_sets("modo", MEASURED) == (
        "conjunto_modo: 2,1 clases de media, con la correcta el 90 % de las veces (de 87 % a 92 %). Mucho menos en "
        "«Other», 62 %."
    )


def advised(test):
    return judge(dataclasses.replace(SUGGESTED, accept=None, options=None), test, accepted=share(0, 0.0, 0.0))


def test_advice_asks_for_notices_of_rare_classes_with_their_rows():
    found = advised(answers((200, 0.5, 100), true=1, wrong=0))
    assert "Etiquete más avisos" in found["advice"]
    assert "«Corrosion» (20)" in found["advice"]
    assert "confunde" not in found["advice"]


def test_advice_names_the_most_confused_pair_of_frequent_classes():
    found = advised(answers((200, 0.5, 100)))
    assert "100 avisos de «Wear» se predicen como «Vibration»" in found["advice"]
    assert "cuaderno 02" in found["advice"]
    assert "Etiquete" not in found["advice"]


def test_advice_says_nothing_of_the_class_of_merged_rare_classes():
    assert advised(answers((200, 0.5, 100), true=2, wrong=0))["advice"] == ""


@pytest.mark.parametrize(("part", "shown"), [(1.0, "100 %"), (0.998, "99 %"), (0.0951, "9 %"), (0.9, "90 %")])
def test_percent_is_never_more_than_the_share(part, shown):
    assert verdict.percent(part) == shown


def class_indices(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def drawn(rows, seed):
    return np.random.default_rng(seed).choice(4, size=rows, p=TRAINED / TRAINED.sum())


def test_classes_that_are_never_recognised_are_named_of_any_level():
    test = Predictions(np.ones(707), class_indices(700, 7), class_indices(700, 0, 7))
    assert judge(test=test)["sentence"].endswith(" Nunca reconoce «Other» (7).")
    few = Predictions(np.ones(704), class_indices(700, 4), class_indices(700, 0, 4))
    assert "Nunca" not in judge(test=few)["sentence"]


def test_far_shares_states_the_class_the_test_and_its_size():
    (warning,) = verdict.far_shares("prioridad", PRIORITIES, TRAINED, class_indices(2_430, 500, 70, 0))
    assert warning.startswith(
        "prioridad: 81 % de las predicciones son «1-Critica», que en el entrenamiento es el 44 % "
        "(chi-cuadrado, p < 0,001; diferencia total 0,37 en 3 000 avisos)"
    )


def test_far_shares_names_the_class_that_is_missing_if_it_differs_most():
    (warning,) = verdict.far_shares("prioridad", PRIORITIES, TRAINED, class_indices(100, 420, 350, 130))
    assert "42 % de las predicciones son «3-Media»" not in warning
    assert ", y 10 % «1-Critica», que es el 44 % (chi-cuadrado" in warning


@given(st.integers(0, 2_000), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_far_shares_is_silent_for_predictions_drawn_from_the_training_shares(rows, seed):
    assert verdict.far_shares("prioridad", PRIORITIES, TRAINED, drawn(rows, seed)) == []


def test_far_shares_is_silent_for_a_small_difference_on_many_rows():
    predicted = class_indices(50_000, 26_000, 20_000, 4_000)
    assert verdict._homogeneity(np.stack([100 * TRAINED, np.bincount(predicted)])) < 1e-6
    assert verdict.far_shares("prioridad", PRIORITIES, 100 * TRAINED, predicted) == []


def test_far_shares_is_silent_for_a_large_difference_on_few_rows():
    assert verdict.far_shares("prioridad", PRIORITIES, TRAINED, class_indices(6, 0, 0, 0)) == []


@pytest.mark.parametrize("counts", [[[440, 300, 220], [100, 90, 20]], [[10, 20, 0], [30, 10, 0]]])
def test_homogeneity_with_enough_rows_per_class_is_scipys_test(counts):
    counts = np.array(counts)
    used = counts[:, counts.sum(axis=0) > 0]
    assert verdict._homogeneity(counts) == pytest.approx(chi2_contingency(used, correction=False).pvalue)


def test_homogeneity_merges_classes_with_few_expected_rows():
    merged = chi2_contingency([[400, 300, 6], [40, 20, 6]], correction=False).pvalue
    assert verdict._homogeneity(np.array([[400, 300, 2, 4], [40, 20, 6, 0]])) == pytest.approx(merged)
    assert verdict._homogeneity(np.array([[2, 1], [1, 2]])) == 1


def test_homogeneity_rejects_one_of_20_draws_at_5_percent():
    p = np.array(
        [verdict._homogeneity(np.stack([TRAINED, np.bincount(drawn(700, s), minlength=4)])) for s in range(400)]
    )
    assert (p < 0.05).mean() < 0.08


def test_check_predictions_warns_of_far_shares_only():
    def warnings(predicted):
        predictions = {"prioridad": Predictions(np.ones(800), predicted)}
        return verdict.check_predictions({"prioridad": PRIORITIES}, {"prioridad": TRAINED}, predictions)

    assert len(warnings(np.zeros(800, np.int64))) == 1
    assert warnings(drawn(800, 1)) == []


def test_scores_are_reported_without_the_test_rows_that_almost_repeat_a_training_row():
    text = "fuga de crudo por el sello mecánico de la bomba principal de despacho en la estación"
    near = text.replace(" el ", " ")
    texts = [text, "no arranca el motor eléctrico", near, "calibrar transmisor de presión", "ruido en rodamiento", near]
    split = {"train": np.array([0, 1]), "val": np.array([5]), "test": np.array([2, 3, 4])}
    predictions = {"modo": Predictions(np.ones(3), np.array([0, 0, 0]), np.array([0, 1, 1]))}
    measured = verdict.measure_near(texts, split, predictions)
    assert measured["share"] == pytest.approx(1 / 3)
    assert measured["f1"]["modo"] == pytest.approx({"with": 1 / 6, "without": 0})
    (sentence,) = verdict.describe_near(measured)
    assert sentence == (
        "El 33 % de los avisos de prueba casi repite uno de entrenamiento. "
        "El F1 sin ellos: modo 0,00 (con ellos, 0,17)."
    )
    assert verdict.describe_near({**measured, "share": 0.0}) == []
