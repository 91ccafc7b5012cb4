"""The figures of quality: what is drawn, and what their titles and readings say."""

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.errors import num
from ocensa_nb.evaluation.calibration import expected_calibration_error, reliability
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.figures import quality


def answers(rows=400, seed=0, promise=1.0):
    """Return answers that are right with the power `promise` of their confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, rows)
    correct = rng.random(rows) < confidence**promise
    return Predictions(confidence, np.where(correct, 0, 1), np.zeros(rows, np.int64))


def test_reliability_diagram_draws_both_tables_and_their_errors():
    before, after = {"modo": answers(promise=3)}, {"modo": answers()}
    figure = quality.reliability_diagram(before, after)
    (axes,) = figure.axes
    curves = {bars.get_label(): bars.lines[0] for bars in axes.containers}
    for name, side in (("antes", before), ("después", after)):
        table = reliability(side["modo"].confidence, side["modo"].correct)
        np.testing.assert_allclose(curves[name].get_xydata(), table[["confidence", "accuracy"]])
    errors = [expected_calibration_error(side["modo"].confidence, side["modo"].correct) for side in (before, after)]
    assert axes.get_title() == f"modo: error {num(errors[0], 3)} → {num(errors[1], 3)}"
    assert "en 400 avisos." in figure.get_supxlabel().replace("\n", " ")


def test_reliability_diagram_has_one_plot_per_label():
    sides = {head: answers() for head in ("modo", "causa", "prioridad")}
    assert len(quality.reliability_diagram(sides, sides).axes) == 3


def coverage(thresholds, **labels):
    verdicts = {head: {"threshold": threshold, "target": 0.9} for head, threshold in thresholds.items()}
    return quality.accuracy_by_coverage(labels, verdicts)


def test_accuracy_by_coverage_marks_the_threshold_and_tells_its_numbers():
    test = answers(2_000, 2)
    figure = coverage({"modo": 0.9, "causa": None}, modo=test, causa=answers(30, promise=9))
    (axes,) = figure.axes
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(points) == 1
    above = test.confidence >= 0.9
    assert points[0].get_xydata()[0] == pytest.approx([100 * above.mean(), 100 * test.correct[above].mean()])
    assert [text.get_text() for text in axes.texts] == ["confianza 0,9"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["modo", "causa", "objetivo: 90 %"]
    curve = axes.lines[0].get_xydata()
    assert curve[-1] == pytest.approx([100, 100 * test.correct.mean()])
    assert curve[0][0] == pytest.approx(100 * 20 / 2_000)  # the first 20 rows are not drawn one by one
    assert figure.get_supxlabel().startswith("modo: ")


def test_accuracy_by_coverage_without_threshold_or_with_few_rows_says_so():
    figure = coverage({"modo": None}, modo=answers(5))
    assert figure.get_supxlabel().startswith("Con ninguna etiqueta se comprueba un 90 % de acierto.")
    assert len(figure.axes[0].lines[0].get_xdata()) == 1


def counts(rows):
    names = [f"Clase {i}" for i in range(len(rows))]
    return pd.DataFrame(rows, names, names)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture
def many():
    """Return a confusion matrix of 20 classes with 200, 190, ... 10 notices, half of them taken for the last class."""
    matrix = np.diag(np.arange(200, 0, -10) // 2)
    matrix[:, -1] += np.arange(200, 0, -10) // 2
    return counts(matrix)


def test_confusion_draws_the_most_frequent_classes_with_their_sizes_and_the_rest_together(many):
    axes = quality.confusion(many, "Confusión").axes[0]
    assert labels(axes.yaxis) == [f"Clase {i} ({200 - 10 * i})" for i in range(12)]
    assert labels(axes.xaxis) == [*(f"Clase {i}" for i in range(12)), "otras 8 clases"]
    drawn = axes.collections[0].get_array().reshape(12, 13)
    np.testing.assert_allclose(drawn.sum(axis=1), 100)
    np.testing.assert_allclose(drawn[:, -1], 50)
    assert "12 clases más frecuentes de 20" in axes.get_title()


def test_confusion_of_all_classes_draws_them_all(many):
    axes = quality.confusion(many, "Confusión", all_classes=True).axes[0]
    assert len(labels(axes.yaxis)) == len(labels(axes.xaxis)) == 20


def test_confusion_reading_names_the_worst_class_of_those_with_enough_rows():
    figure = quality.confusion(counts([[30, 10, 0], [6, 4, 0], [1, 0, 0]]), "Confusión")
    assert "«Clase 1», 40 % de 10" in figure.get_supxlabel()
    assert "«Clase 0» (6)" in figure.get_supxlabel()


def test_confusion_reading_names_a_class_that_is_drawn(many):
    many.iloc[15] = 0
    many.iloc[15, 0] = 50  # never recognised, and not among the twelve
    figure = quality.confusion(many, "Confusión")
    assert "Clase 15" not in figure.get_supxlabel()
    assert "«Clase 15», 0 % de 50" in quality.confusion(many, "Confusión", all_classes=True).get_supxlabel()


@pytest.mark.parametrize(
    ("rows", "words"),
    [([[9, 0], [0, 3]], "Ninguna clase llega a 10 avisos"), ([[90, 0], [2, 1]], "se reconocen siempre")],
)
def test_confusion_reading_without_a_class_to_name_says_why(rows, words):
    assert words in quality.confusion(counts(rows), "Confusión").get_supxlabel()


def test_confusion_leaves_the_row_of_a_class_that_is_only_predicted_blank():
    axes = quality.confusion(counts([[9, 1], [0, 0]]), "Confusión").axes[0]
    assert np.ma.getmaskarray(axes.collections[0].get_array()).reshape(2, 2)[1].all()
