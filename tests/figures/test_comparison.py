"""Figures of comparisons: one bar per technique; of a grid, narrow and wide, with one point and with awkward names."""

import pandas as pd
import pytest

from ocensa_nb.benchmark.techniques import EXACT, TRADE
from ocensa_nb.figures import comparison
from ocensa_nb.figures.comparison import PHONE, WIDE, differences, f1_against_seconds, f1_by_model


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


def points_of(*rows):
    """Return points, numbered from 1, with their seconds, F1 and whether they are on the front."""
    points = pd.DataFrame(rows, columns=["seconds", "score", "on_front"], index=range(1, len(rows) + 1))
    return points.assign(seconds_sd=0.1, score_sd=[0.01, *[float("nan")] * (len(rows) - 1)])


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("seconds", [(10.0,), (10.0, 12.0), (1.0, 500.0), (0.0, 0.0)])
def test_f1_against_seconds_has_a_number_per_group_and_ticks(width, seconds):
    figure = f1_against_seconds(points_of(*((s, 0.5, n == 1) for n, s in enumerate(seconds, 1))), 0.4, width)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [str(n) for n, _ in enumerate(seconds, 1)]
    low, high = axes.get_xlim()
    assert any(low <= tick <= high for tick in axes.get_xticks())
    assert figure.get_figwidth() == width


def test_front_is_drawn_by_time_and_the_simple_model_as_a_line():
    (axes,) = f1_against_seconds(points_of((50.0, 0.6, True), (5.0, 0.5, True), (60.0, 0.1, False)), 0.4).axes
    front = next(line for line in axes.lines if line.get_label() == "frente de Pareto")
    assert list(front.get_xdata()) == [5.0, 50.0]
    assert any("0,400" in str(line.get_label()) for line in axes.lines)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_differences_show_any_name_and_grey_noise(width):
    bars = [("data: $a → $b_{", 0.1, 0.05, 0.15, True), ("x" * 90, 0.0, -0.1, 0.1, False)]
    (axes,) = differences(pd.DataFrame(bars, columns=["title", "mean", "low", "high", "is_clear"]), width).axes
    shown = [label.get_text() for label in axes.get_yticklabels()] + [text.get_text() for text in axes.texts]
    assert r"data: \$a → \$b_{" in shown  # not a formula
    assert "x" * 43 + "…" in shown
    assert axes.get_position().width > 0.3


def test_f1_by_model_without_a_model_draws_the_others():
    (axes,) = f1_by_model(
        pd.DataFrame({"encoder": [0.5, 0.3], "linear": [0.4, None], "blend": [None, None]}, [1, 2])
    ).axes
    assert {line.get_label() for line in axes.lines} == {"codificador", "modelo simple"}
