"""The figure of the measured optimisations: one bar per technique, with its spread."""

import pytest

from ocensa_nb.benchmark.techniques import EXACT, TRADE
from ocensa_nb.figures import comparison


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
