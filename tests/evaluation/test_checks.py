"""The warnings about predictions: when they appear, when they do not, and what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from ocensa_nb.evaluation import checks, comparison

PRIORITIES = ["1-Critica", "2-Alta", "3-Media", "4-Baja"]
TRAINED = np.array([440, 300, 220, 40])


def predictions(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def drawn(rows, seed):
    return np.random.default_rng(seed).choice(4, size=rows, p=TRAINED / TRAINED.sum())


def test_never_predicted_names_absent_classes_with_their_training_rows():
    (warning,) = checks.never_predicted("prioridad", PRIORITIES, TRAINED, predictions(2_432, 568, 0, 0))
    assert warning.startswith("prioridad: 2 clases no se predicen en ninguno de 3,000 avisos")
    assert "«3-Media» (220), «4-Baja» (40) (" in warning


def test_never_predicted_of_one_class_is_singular():
    (warning,) = checks.never_predicted("prioridad", PRIORITIES, TRAINED, predictions(500, 300, 200, 0))
    assert "una clase no se predice en ninguno de 1,000 avisos" in warning


def test_never_predicted_names_five_classes_most_frequent_first_and_counts_the_rest():
    rows = np.array([400, *range(20, 28)])
    (warning,) = checks.never_predicted("causa", [f"Causa {i}" for i in range(9)], rows, np.zeros(1_000, np.int64))
    assert "8 clases" in warning
    assert "«Causa 8» (27), «Causa 7» (26), «Causa 6» (25), «Causa 5» (24), «Causa 4» (23) y 3 más" in warning


@pytest.mark.parametrize("predicted", [predictions(60, 30, 20, 0), predictions(500, 300, 180, 20), predictions()])
def test_never_predicted_is_silent_if_too_few_rows_expect_the_class(predicted):
    assert checks.never_predicted("prioridad", PRIORITIES, TRAINED, predicted.astype(np.int64)) == []


def test_far_shares_states_the_class_the_test_and_its_size():
    (warning,) = checks.far_shares("prioridad", PRIORITIES, TRAINED, predictions(2_430, 500, 70, 0))
    assert warning.startswith(
        "prioridad: 81 % de las predicciones son «1-Critica», que en el entrenamiento es el 44 % "
        "(chi-cuadrado, p < 0.001; diferencia total 0.37 en 3,000 avisos)"
    )


def test_far_shares_names_the_class_that_is_missing_if_it_differs_most():
    (warning,) = checks.far_shares("prioridad", PRIORITIES, TRAINED, predictions(100, 420, 350, 130))
    assert "42 % de las predicciones son «3-Media»" not in warning
    assert ", y 10 % «1-Critica», que es el 44 % (chi-cuadrado" in warning


@given(st.integers(0, 2_000), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_far_shares_is_silent_for_predictions_drawn_from_the_training_shares(rows, seed):
    assert checks.far_shares("prioridad", PRIORITIES, TRAINED, drawn(rows, seed)) == []


def test_far_shares_is_silent_for_a_small_difference_on_many_rows():
    predicted = predictions(50_000, 26_000, 20_000, 4_000)
    assert checks._homogeneity(np.stack([100 * TRAINED, np.bincount(predicted)])) < 1e-6
    assert checks.far_shares("prioridad", PRIORITIES, 100 * TRAINED, predicted) == []


def test_far_shares_is_silent_for_a_large_difference_on_few_rows():
    assert checks.far_shares("prioridad", PRIORITIES, TRAINED, predictions(6, 0, 0, 0)) == []


@pytest.mark.parametrize("counts", [[[440, 300, 220], [100, 90, 20]], [[10, 20, 0], [30, 10, 0]]])
def test_homogeneity_with_enough_rows_per_class_is_scipys_test(counts):
    counts = np.array(counts)
    used = counts[:, counts.sum(axis=0) > 0]
    assert checks._homogeneity(counts) == pytest.approx(chi2_contingency(used, correction=False).pvalue)


def test_homogeneity_merges_classes_with_few_expected_rows():
    merged = chi2_contingency([[400, 300, 6], [40, 20, 6]], correction=False).pvalue
    assert checks._homogeneity(np.array([[400, 300, 2, 4], [40, 20, 6, 0]])) == pytest.approx(merged)
    assert checks._homogeneity(np.array([[2, 1], [1, 2]])) == 1


def test_homogeneity_rejects_one_of_20_draws_at_5_percent():
    p = np.array(
        [checks._homogeneity(np.stack([TRAINED, np.bincount(drawn(700, s), minlength=4)])) for s in range(400)]
    )
    assert (p < 0.05).mean() < 0.08


def test_at_majority_warns_of_a_constant_prediction_and_names_the_class():
    labels = predictions(440, 300, 220, 40)
    (warning,) = checks.at_majority("prioridad", PRIORITIES, TRAINED, labels, np.zeros_like(labels))
    assert "F1 0.27, que no supera el de predecir siempre la clase más frecuente, «1-Critica» (0.27 en" in warning


def test_at_majority_is_silent_for_a_label_that_was_learnt():
    labels = predictions(440, 300, 220, 40)
    predicted = np.where(np.arange(1_000) % 3 == 0, 0, labels)
    assert checks.at_majority("prioridad", PRIORITIES, TRAINED, labels, predicted) == []
    assert checks.at_majority("prioridad", PRIORITIES, TRAINED, labels[:0], predicted[:0]) == []


def compared(encoder, linear):
    rng = np.random.default_rng(0)
    labels = drawn(800, 1)
    guesses = {
        model: {"prioridad": np.where(rng.random(800) < accuracy, labels, rng.integers(4, size=800))}
        for model, accuracy in (("encoder", encoder), ("linear", linear))
    }
    return comparison.compare({"prioridad": labels}, guesses)["prioridad"]


def test_below_linear_warns_only_if_the_interval_is_below():
    (warning,) = checks.below_linear("prioridad", compared(0.3, 0.6))
    assert warning.startswith("prioridad: el codificador queda por debajo del modelo simple: F1 −0.")
    assert "freeze_layers" in warning
    assert checks.below_linear("prioridad", compared(0.55, 0.5)) == []
    assert checks.below_linear("prioridad", compared(0.6, 0.3)) == []
    assert checks.below_linear("prioridad", {}) == []


def test_below_linear_judges_the_model_in_use_or_the_encoder_and_names_both():
    worse, better = {"f1": {"difference": -0.1, "low": -0.2, "high": -0.05}}, {"f1": {"high": 0.1}}
    (warning,) = checks.below_linear("modo", {"encoder-linear": worse, "blend-linear": worse}, "linear")
    assert "el codificador queda por debajo" in warning
    assert "(−0.20 a −0.05); la corrida predice esta etiqueta con el modelo simple." in warning
    (warning,) = checks.below_linear("modo", {"encoder-linear": worse, "blend-linear": worse}, "blend")
    assert "la mezcla queda por debajo" in warning
    assert "la corrida" not in warning
    assert checks.below_linear("modo", {"encoder-linear": worse, "blend-linear": better}, "blend") == []


def test_check_predictions_joins_the_warnings_that_apply():
    classes, rows = {"prioridad": PRIORITIES}, {"prioridad": TRAINED}
    predicted, labels = {"prioridad": np.zeros(800, np.int64)}, {"prioridad": drawn(800, 1)}
    assert len(checks.check_predictions(classes, rows, predicted)) == 2
    assert len(checks.check_predictions(classes, rows, predicted, labels)) == 3
    comparison_found = {"prioridad": compared(0.3, 0.6)}
    assert len(checks.check_predictions(classes, rows, predicted, labels, comparison_found)) == 4
    assert checks.check_predictions(classes, rows, labels, labels) == []
