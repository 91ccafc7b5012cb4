"""One visual language: figures look the same under any style of the user's; tables have whole words and no HTML."""

import io
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ocensa_nb.figures import quality, training
from ocensa_nb.figures import style as looks
from ocensa_nb.paths import ROOT


def shown(figure):
    """Return the pixels of a figure as a notebook shows it."""
    png = io.BytesIO()
    figure.canvas.print_figure(png, format="png", facecolor=figure.get_facecolor(), dpi=figure.dpi)
    return np.asarray(Image.open(png).convert("RGB"))


def confusion(names):
    return quality.confusion(pd.DataFrame(np.eye(len(names)), names, names), "Confusión")


@pytest.mark.parametrize(
    "style",
    ["dark_background", *(pytest.param(style, marks=pytest.mark.slow) for style in ("ggplot", "fivethirtyeight"))],
)
def test_figure_under_any_user_style_has_the_same_pixels(run, tmp_path, style):
    looks.save(training.learning_curves(run), tmp_path / "plain.png")
    plain = shown(training.learning_curves(run))
    with plt.style.context(style), plt.rc_context({"savefig.transparent": True}):
        looks.save(training.learning_curves(run), tmp_path / "styled.png")
        np.testing.assert_array_equal(shown(training.learning_curves(run)), plain)
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    assert (plain[[0, -1]][:, [0, -1]] == 255).all()


def test_drawing_leaves_rc_params_unchanged(run):
    with plt.style.context("dark_background"):
        before = dict(plt.rcParams)
        training.learning_curves(run)
        assert dict(plt.rcParams) == before


@pytest.mark.parametrize("names", [["a", "b"], ["una clase de nombre largo " * 5, "b"], [f"c{i}" for i in range(45)]])
def test_confusion_with_few_many_or_long_labels_fits_its_canvas_and_a_notebook(names):
    figure = confusion(names)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    assert width * figure.dpi <= 900


def test_import_of_style_does_not_import_matplotlib():
    check = "import sys; from ocensa_nb.figures import style; assert style.COLOURS and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


def test_readable_numbers_have_few_decimals():
    html = looks.readable(pd.DataFrame({"F1": [0.123456], "% de la clase": [33.3333], "filas": [1234]})).to_html()
    assert ">0,123<" in html
    assert ">33,3<" in html
    assert ">1\xa0234<" in html


def test_readable_text_is_whole_and_wraps_at_spaces_only():
    text = "fuga por sello mecánico " * 40
    html = looks.readable(pd.DataFrame({"texto": [text]})).to_html()
    assert text in html
    for rule in ("word-break: normal", "overflow-wrap: normal", "table-layout: auto", "text-align: left"):
        assert rule in html


def test_readable_shows_the_html_of_a_cell_a_title_or_an_index_as_text():
    hostile = "<img src=x onerror=alert(1)>"
    html = looks.readable(pd.DataFrame({hostile: [hostile]}, [hostile])).to_html()
    assert "<img" not in html
    assert html.count("&lt;img") == 3


def test_readable_hides_an_index_that_only_numbers_the_rows():
    assert "row_heading" not in looks.readable(pd.DataFrame({"a": ["x"]})).to_html().split("</style>")[1]
    assert "clase A" in looks.readable(pd.DataFrame({"a": ["x"]}, ["clase A"])).to_html()


def test_readable_draws_an_empty_table():
    assert "texto" in looks.readable(pd.DataFrame({"texto": [], "confianza": pd.Series([], dtype=float)})).to_html()
