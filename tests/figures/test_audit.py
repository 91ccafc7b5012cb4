"""The figures of an audit: what they draw and read."""

import pytest

from ocensa_nb.audit.verdict import ExpectedF1
from ocensa_nb.figures import audit


def expected(low, high, ceiling):
    return ExpectedF1((low, high), (low / 2, high / 2), low + 0.02, 0.2, True, ceiling)


def test_expected_f1_has_a_bar_per_label_and_reads_best_and_worst():
    figure = audit.expected_f1({"modo": expected(0.6, 0.7, 0.8), "causa": expected(0.3, 0.4, 1.0)})
    (axes,) = figure.axes
    bars = axes.containers[0]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0.6, pytest.approx(0.1)), (0.3, pytest.approx(0.1))]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["modo", "causa"]
    assert {text.get_text() for text in axes.texts} == {"0,60 a 0,70", "0,30 a 0,40"}
    assert figure.get_supxlabel().startswith("La que mejor se aprende: modo. La peor: causa.")
