"""The verdict on a label: its rule, that the test rows never choose the threshold, what it says, and the warnings."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from ocensa_nb.evaluation import metrics, verdict
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.evaluation.verdict import NOT_YET, USEFUL, USEFUL_ABOVE

CLASSES = ["Wear", "Corrosion", "Other", "Vibration"]
ROWS = np.array([500, 20, 300, 80])
PRIORITIES = ["1-Critica", "2-Alta", "3-Media", "4-Baja"]
TRAINED = np.array([440, 300, 220, 40])


def answers(*blocks, true=0, wrong=3):
    """Return predictions of blocks (rows, confidence, right rows); wrong ones take the class `true` for `wrong`."""
    confidence = np.concatenate([np.full(rows, value, float) for rows, value, _ in blocks])
    correct = np.concatenate([np.arange(rows) < right for rows, _, right in blocks])
    return Predictions(confidence, np.where(correct, true, wrong), np.full(len(correct), true))


def judge(val, test=None, **settings):
    return verdict.judge("modo", CLASSES, ROWS, val, test, **settings)


MIXED = answers((200, 0.85, 190), (300, 0.5, 150))


def test_label_whose_lower_bound_reaches_the_target_is_useful():
    found = judge(MIXED, answers((400, 0.95, 380)))
    assert found["status"] == USEFUL
    assert found["accuracy_all_low"] == pytest.approx(0.9288, abs=1e-3)
    assert found["sentence"] == "modo: sirve (95 % de acierto en 400 avisos de prueba)."
    assert found["advice"] == ""


def test_label_whose_rare_classes_are_never_recognised_is_not_useful_whatever_its_accuracy():
    rare = Predictions(np.full(400, 0.99), np.zeros(400, np.int64), class_indices(397, 2, 0, 1))
    found = judge(rare, rare)
    assert found["status"] == NOT_YET
    assert found["accuracy_all"] > 0.99
    assert found["sentence"].endswith(
        "99 % de 400 avisos de prueba, pero nunca reconoce «Corrosion» (2), «Vibration» (1) (entre paréntesis, sus "
        "avisos)."
    )
    predicted = class_indices(392, 2, 6, 0)
    assert judge(rare, Predictions(rare.confidence, predicted, class_indices(392, 2, 0, 6)))["status"] == NOT_YET
    # A class with few rows says little, and so does one whose notices a person reviews.
    assert judge(rare, Predictions(rare.confidence, class_indices(394, 2, 4, 0), class_indices(394, 2, 0, 4)))[
        "status"
    ] == (USEFUL)
    unsure = np.where(class_indices(92, 2, 0, 6) == 3, 0.5, 0.9)
    mixed = Predictions(unsure, class_indices(92, 2, 6, 0), class_indices(92, 2, 0, 6))
    assert judge(MIXED, mixed)["status"] == USEFUL_ABOVE


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
    assert "cuaderno 02" in found["advice"]
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


def class_indices(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def drawn(rows, seed):
    return np.random.default_rng(seed).choice(4, size=rows, p=TRAINED / TRAINED.sum())


def test_never_predicted_names_absent_classes_with_their_training_rows():
    (warning,) = verdict.never_predicted("prioridad", PRIORITIES, TRAINED, class_indices(2_432, 568, 0, 0))
    assert warning.startswith("prioridad: 2 clases no se predicen en ninguno de 3,000 avisos")
    assert "«3-Media» (220), «4-Baja» (40) (" in warning


def test_never_predicted_of_one_class_is_singular():
    (warning,) = verdict.never_predicted("prioridad", PRIORITIES, TRAINED, class_indices(500, 300, 200, 0))
    assert "una clase no se predice en ninguno de 1,000 avisos" in warning


def test_never_predicted_names_five_classes_most_frequent_first_and_counts_the_rest():
    rows = np.array([400, *range(20, 28)])
    (warning,) = verdict.never_predicted("causa", [f"Causa {i}" for i in range(9)], rows, np.zeros(1_000, np.int64))
    assert "8 clases" in warning
    assert "«Causa 8» (27), «Causa 7» (26), «Causa 6» (25), «Causa 5» (24), «Causa 4» (23) y 3 más" in warning


@pytest.mark.parametrize("predicted", [class_indices(60, 30, 20, 0), class_indices(500, 300, 180, 20), class_indices()])
def test_never_predicted_is_silent_if_too_few_rows_expect_the_class(predicted):
    assert verdict.never_predicted("prioridad", PRIORITIES, TRAINED, predicted.astype(np.int64)) == []


def test_far_shares_states_the_class_the_test_and_its_size():
    (warning,) = verdict.far_shares("prioridad", PRIORITIES, TRAINED, class_indices(2_430, 500, 70, 0))
    assert warning.startswith(
        "prioridad: 81 % de las predicciones son «1-Critica», que en el entrenamiento es el 44 % "
        "(chi-cuadrado, p < 0.001; diferencia total 0.37 en 3,000 avisos)"
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


def test_at_majority_warns_of_a_constant_prediction_and_names_the_class():
    labels = class_indices(440, 300, 220, 40)
    constant = Predictions(np.ones(1_000), np.zeros_like(labels), labels)
    (warning,) = verdict.at_majority("prioridad", PRIORITIES, TRAINED, constant)
    assert "F1 0.27, que no supera el de predecir siempre la clase más frecuente, «1-Critica» (0.27 en" in warning


def test_at_majority_says_that_few_rows_decide_nothing():
    labels = class_indices(20, 8, 0, 0)
    predicted = np.where(np.arange(28) >= 26, 1, 0)
    (warning,) = verdict.at_majority("prioridad", PRIORITIES, TRAINED, Predictions(np.ones(28), predicted, labels))
    assert "con 28 avisos no se puede saber si es mejor que predecir siempre la clase más frecuente" in warning
    assert "no supera" not in warning
    one_class = Predictions(np.ones(9), np.zeros(9, np.int64), np.zeros(9, np.int64))
    assert verdict.at_majority("prioridad", PRIORITIES, TRAINED, one_class) == []


def test_at_majority_is_silent_for_a_label_that_was_learnt():
    labels = class_indices(440, 300, 220, 40)
    predicted = np.where(np.arange(1_000) % 3 == 0, 0, labels)
    for rows in (1_000, 0):
        learnt = Predictions(np.ones(rows), predicted[:rows], labels[:rows])
        assert verdict.at_majority("prioridad", PRIORITIES, TRAINED, learnt) == []


def compared(encoder, linear):
    rng = np.random.default_rng(0)
    labels = drawn(800, 1)
    models = {}
    for model, accuracy in (("encoder", encoder), ("linear", linear)):
        predicted = np.where(rng.random(800) < accuracy, labels, rng.integers(4, size=800))
        models[model] = {"prioridad": Predictions(np.ones(800), predicted, labels)}
    return metrics.compare(models)["prioridad"]


def test_below_linear_warns_only_if_the_interval_is_below():
    (warning,) = verdict.below_linear("prioridad", compared(0.3, 0.6))
    assert warning.startswith("prioridad: el codificador queda por debajo del modelo simple: F1 −0.")
    assert "freeze_layers" in warning
    assert verdict.below_linear("prioridad", compared(0.55, 0.5)) == []
    assert verdict.below_linear("prioridad", compared(0.6, 0.3)) == []
    assert verdict.below_linear("prioridad", {}) == []


def test_below_linear_judges_the_model_in_use_or_the_encoder_and_names_both():
    worse, better = {"f1": {"difference": -0.1, "low": -0.2, "high": -0.05}}, {"f1": {"high": 0.1}}
    (warning,) = verdict.below_linear("modo", {"encoder-linear": worse, "blend-linear": worse}, "linear")
    assert "el codificador queda por debajo" in warning
    assert "(−0.20 a −0.05); la corrida predice esta etiqueta con el modelo simple." in warning
    (warning,) = verdict.below_linear("modo", {"encoder-linear": worse, "blend-linear": worse}, "blend")
    assert "la mezcla queda por debajo" in warning
    assert "la corrida" not in warning
    assert verdict.below_linear("modo", {"encoder-linear": worse, "blend-linear": better}, "blend") == []


def test_check_predictions_joins_the_warnings_that_apply():
    labels, constant = drawn(800, 1), np.zeros(800, np.int64)

    def warnings(predicted, *arguments):
        return verdict.check_predictions(
            {"prioridad": PRIORITIES}, {"prioridad": TRAINED}, {"prioridad": predicted}, *arguments
        )

    assert len(warnings(Predictions(np.ones(800), constant))) == 2
    assert len(warnings(Predictions(np.ones(800), constant, labels))) == 3
    assert len(warnings(Predictions(np.ones(800), constant, labels), {"prioridad": compared(0.3, 0.6)})) == 4
    assert warnings(Predictions(np.ones(800), labels, labels)) == []
