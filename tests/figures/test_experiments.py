"""Figures of an experiment: narrow and wide, with one point, with equal times, and with awkward names."""

import pytest

from ocensa_nb.figures.experiments import PHONE, WIDE, Bar, Point, differences, f1_against_seconds, f1_by_model


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("seconds", [(10.0,), (10.0, 12.0), (1.0, 500.0), (0.0, 0.0)])
def test_f1_against_seconds_has_a_number_per_group_and_ticks(width, seconds):
    points = [Point(n, s, 0.1, 0.5, 0.01, n == 1) for n, s in enumerate(seconds, 1)]
    figure = f1_against_seconds(points, 0.4, width)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [str(n) for n, _ in enumerate(seconds, 1)]
    low, high = axes.get_xlim()
    assert any(low <= tick <= high for tick in axes.get_xticks())
    assert figure.get_figwidth() == width


def test_front_is_drawn_by_time_and_the_simple_model_as_a_line():
    points = [Point(1, 50.0, 0, 0.6, 0, True), Point(2, 5.0, 0, 0.5, 0, True), Point(3, 60.0, 0, 0.1, 0, False)]
    (axes,) = f1_against_seconds(points, 0.4).axes
    front = next(line for line in axes.lines if line.get_label() == "frente de Pareto")
    assert list(front.get_xdata()) == [5.0, 50.0]
    assert any("0.400" in str(line.get_label()) for line in axes.lines)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_differences_show_any_name_and_grey_noise(width):
    bars = [Bar("data: $a → $b_{", 0.1, 0.05, 0.15, True), Bar("x", 0.0, -0.1, 0.1, False)]
    (axes,) = differences(bars, width).axes
    shown = [label.get_text() for label in axes.get_yticklabels()] + [text.get_text() for text in axes.texts]
    assert "data: $a → $b_{" in shown


def test_f1_by_model_without_a_model_draws_the_others():
    (axes,) = f1_by_model([(1, {"encoder": 0.5, "linear": 0.4}), (2, {"encoder": 0.3})]).axes
    assert {line.get_label() for line in axes.lines} == {"codificador", "modelo simple"}
