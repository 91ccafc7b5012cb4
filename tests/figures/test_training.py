"""The figures of the notices and of a run: what is drawn, in which order, and what the reading says."""

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.figures import training


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
    axes = training.confusion(many, "Confusión").axes[0]
    assert labels(axes.yaxis) == [f"Clase {i} ({200 - 10 * i})" for i in range(12)]
    assert labels(axes.xaxis) == [*(f"Clase {i}" for i in range(12)), "otras 8 clases"]
    drawn = axes.collections[0].get_array().reshape(12, 13)
    np.testing.assert_allclose(drawn.sum(axis=1), 100)
    np.testing.assert_allclose(drawn[:, -1], 50)
    assert "12 clases más frecuentes de 20" in axes.get_title()


def test_confusion_of_all_classes_draws_them_all(many):
    axes = training.confusion(many, "Confusión", all_classes=True).axes[0]
    assert len(labels(axes.yaxis)) == len(labels(axes.xaxis)) == 20


def test_confusion_reading_names_the_worst_class_of_those_with_enough_rows():
    figure = training.confusion(counts([[30, 10, 0], [6, 4, 0], [1, 0, 0]]), "Confusión")
    assert "«Clase 1», 40 % de 10" in figure.get_supxlabel()
    assert "«Clase 0» (6)" in figure.get_supxlabel()


def test_confusion_reading_names_a_class_that_is_drawn(many):
    many.iloc[15] = 0
    many.iloc[15, 0] = 50  # never recognised, and not among the twelve
    figure = training.confusion(many, "Confusión")
    assert "Clase 15" not in figure.get_supxlabel()
    assert "«Clase 15», 0 % de 50" in training.confusion(many, "Confusión", all_classes=True).get_supxlabel()


@pytest.mark.parametrize(
    ("rows", "words"),
    [([[9, 0], [0, 3]], "Ninguna clase llega a 10 avisos"), ([[90, 0], [2, 1]], "se reconocen siempre")],
)
def test_confusion_reading_without_a_class_to_name_says_why(rows, words):
    assert words in training.confusion(counts(rows), "Confusión").get_supxlabel()


def test_confusion_leaves_the_row_of_a_class_that_is_only_predicted_blank():
    axes = training.confusion(counts([[9, 1], [0, 0]]), "Confusión").axes[0]
    assert np.ma.getmaskarray(axes.collections[0].get_array()).reshape(2, 2)[1].all()


def test_class_sizes_are_sorted_and_counted():
    figure = training.class_sizes(pd.Series({"rara": 2, "común": 1500, "media": 40}), "modo")
    (axes,) = figure.axes
    assert labels(axes.yaxis) == ["común", "media", "rara"]
    assert [bar.get_width() for bar in axes.patches] == [1500, 40, 2]
    assert {"1,500", "40", "2"} <= {text.get_text() for text in axes.texts}
    assert "750 veces" in figure.get_supxlabel()
    assert "1 de las 3 tienen menos de 10" in figure.get_supxlabel()


def test_class_sizes_of_very_many_classes_are_one_bar_from_some_on():
    figure = training.class_sizes(pd.Series({f"c{i}": 100 - i for i in range(70)}), "modo")
    assert labels(figure.axes[0].yaxis)[-1] == "otras 10 clases"
    assert figure.axes[0].patches[-1].get_width() == sum(100 - i for i in range(60, 70))


def test_token_lengths_are_counted_in_bins_of_two():
    axes = training.token_lengths(np.array([4, 4, 5, 9]), 8).axes[0]
    assert {bar.get_x(): bar.get_height() for bar in axes.patches if bar.get_height()} == {4: 3, 8: 1}
