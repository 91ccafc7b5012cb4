"""The figures of the measured optimisations: one curve or bar per technique, with its spread."""

import numpy as np
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from ocensa_nb.benchmark.techniques import EXACT, TRADE
from ocensa_nb.figures import comparison
from tests.helpers.curves import points

CURVES = {
    "Punto de partida": (100.0, [[0.4, 0.6, 0.80], [0.3, 0.7, 0.82], [0.5, 0.6, 0.81]]),
    "Rápida": (10.0, [[0.4, 0.6, 0.80], [0.3, 0.7, 0.82], [0.5, 0.6, 0.81]]),
    "Pobre": (1.0, [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]),
}


@pytest.fixture(scope="module")
def figure():
    return comparison.f1_against_time(points(CURVES))


def test_f1_against_time_has_a_curve_and_a_band_per_technique(figure):
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(drawn) == 3
    np.testing.assert_allclose(drawn[1].get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(drawn[1].get_ydata(), np.mean(CURVES["Rápida"][1], axis=0))
    assert len({line.get_color() for line in drawn}) == 3
    bands = [band for band in axes.collections if isinstance(band, FillBetweenPolyCollection)]
    assert len(bands) == 3
    heights = bands[1].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.3)
    assert heights.max() == pytest.approx(0.82)


def test_f1_against_time_marks_and_tells_when_each_reaches_95_percent(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Punto de partida: 300",
        "Rápida: 30",
        "Pobre: no llega",
    ]
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert marks[:2] == [300, 30]


def test_f1_against_time_tells_many_techniques_apart_and_its_legend_covers_no_curve():
    figure = comparison.f1_against_time(points({f"Técnica {i}": (2.0**i, [[0.2, 0.5]]) for i in range(9)}))
    (axes,) = figure.axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines if len(line.get_xdata()) == 2}
    assert len(looks) >= 9
    assert figure.legends[0].get_window_extent().y0 >= axes.get_window_extent().y1


def measured(title, speedup, kind):
    return {"title": title, "kind": kind, "speedup": speedup, "seconds_per_step": 1 / speedup} | {
        "speedup_min": 0.9 * speedup,
        "speedup_max": 1.2 * speedup,
    }


@pytest.mark.parametrize(("which", "order"), [("ladder", ["una", "otra"]), ("alone", ["otra", "una"])])
def test_speedups_are_bars_from_the_minimum_to_the_maximum_in_their_order(which, order):
    results = {which: [measured("una", 8.0, EXACT), measured("otra", 2.0, TRADE)]}
    (axes,) = comparison.speedups(results, which).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    widths = sorted(bar.get_width() for bar in axes.patches if bar.get_width() > 0)
    assert widths == [2.0, 8.0]
    ends = {round(float(x), 6) for line in axes.lines for x in line.get_xdata()}
    assert {1.8, 2.4, 7.2, 9.6} <= ends
