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


def test_reliability_diagram_draws_the_table_and_its_error():
    part = answers(promise=3)
    figure = quality.reliability_diagram({"modo": part})
    (axes,) = figure.axes
    table = reliability(part.confidence, part.correct)
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xydata(), table[["confidence", "accuracy"]])
    assert axes.get_title() == f"modo: error {num(expected_calibration_error(part.confidence, part.correct), 3)}"
    assert "en 400 avisos." in figure.get_supxlabel().replace("\n", " ")


def test_reliability_diagram_has_one_plot_per_label():
    assert len(quality.reliability_diagram({head: answers() for head in ("modo", "causa", "prioridad")}).axes) == 3


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


def test_confusion_reading_names_the_worst_class_of_those_with_enough_rows():
    figure = quality.confusion(counts([[30, 10, 0], [6, 4, 0], [1, 0, 0]]), "Confusión")
    assert "«Clase 1», 40 % de 10" in figure.get_supxlabel()
    assert "«Clase 0» (6)" in figure.get_supxlabel()


def test_confusion_reading_names_a_class_that_is_drawn(many):
    many.iloc[15] = 0
    many.iloc[15, 0] = 50  # never recognised, and not among the twelve
    figure = quality.confusion(many, "Confusión")
    assert "Clase 15" not in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("rows", "words"),
    [([[9, 0], [0, 3]], "Ninguna clase llega a 10 avisos"), ([[90, 0], [2, 1]], "se reconocen siempre")],
)
def test_confusion_reading_without_a_class_to_name_says_why(rows, words):
    assert words in quality.confusion(counts(rows), "Confusión").get_supxlabel()


def test_confusion_leaves_the_row_of_a_class_that_is_only_predicted_blank():
    axes = quality.confusion(counts([[9, 1], [0, 0]]), "Confusión").axes[0]
    assert np.ma.getmaskarray(axes.collections[0].get_array()).reshape(2, 2)[1].all()
