"""Define how figures, tables and panels look; the white background of figures is legible on light and dark pages."""

import contextlib
import functools
import itertools
import string
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from ocensa_nb.errors import num
from ocensa_nb.files.atomic import create_new

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

# Palette of Okabe & Ito, distinguishable by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MODEL_COLOURS = {"encoder": COLOURS[0], "linear": COLOURS[4], "blend": COLOURS[2]}
GREY, INK, CARD = "#6B6B6B", "#1A1A1A", "#FFFFFF"
NO_DATA = "#EBEBEB"
# Background and text of a warning in the panel: both are given, so that it reads the same on light and dark pages.
CAUTION, HARM = ("#FFE3A3", INK), ("#B3261E", CARD)
SMOOTHING = 0.05  # weight of the newest step in a smoothed loss
DASHES = ("-", "--", ":")
MAX_NAMED_CLASSES = 60  # beyond, a figure with all of them names none
ENOUGH_ROWS = 10  # of a class, for its share of hits to mean anything
LABEL_LENGTH = 32  # maximum characters of a class name
STYLE = Path(__file__).with_name("plots.mplstyle")
# JupyterLab and nbconvert fix the widths of the columns of a table, and break words to fit them.
CELLS = (
    "white-space: normal; word-break: normal; overflow-wrap: normal; hyphens: none; vertical-align: top; "
    "padding: 4px 6px"
)
Given = ParamSpec("Given")
_PANEL = string.Template((Path(__file__).parent / "panel.css").read_text(encoding="utf-8"))
_WARNINGS = {"caution": CAUTION[0], "caution_text": CAUTION[1], "harm": HARM[0], "harm_text": HARM[1]}
PANEL_CSS = _PANEL.substitute(blue=COLOURS[0], green=COLOURS[2], card=CARD, **_WARNINGS)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply our style inside the block, ignoring the user's matplotlib style."""
    from matplotlib.style import context

    with context(STYLE, after_reset=True):
        yield


def styled(draw: "Callable[Given, Figure]") -> "Callable[Given, Figure]":
    """Decorate a function so that the figure that it returns is drawn in our style."""

    @functools.wraps(draw)
    def drawn(*args: Given.args, **kwargs: Given.kwargs) -> "Figure":
        with style():
            figure = draw(*args, **kwargs)
            label_ticks(figure)
            figure.draw_without_rendering()  # ticks are created, and styled, when first needed
        return figure

    return drawn


def label_ticks(figure: "Figure") -> None:
    """Write the numbers at the ticks of all axes as Spanish does."""
    from matplotlib.ticker import ScalarFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), ScalarFormatter):
            axis.set_major_formatter(_tick)


def _tick(value: float, _position: int) -> str:
    return num(round(value, 12) + 0, 12, form="g").replace("-", "−")


def new_figure(width: float, height: float, columns: int = 1) -> tuple["Figure", Any]:
    """Return a figure that pyplot does not show by itself, and its axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    for one in np.atleast_1d(axes):
        # Otherwise the number of ticks depends on the user's style.
        one.tick_params(labelsize=plt.rcParams["font.size"])
    plt.close(figure)  # the caller shows or saves it; an open figure would be shown twice
    return figure, axes


def read_as(figure: "Figure", text: str) -> None:
    figure.supxlabel(text, fontsize=9, color=GREY, wrap=True)


def line_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the colour and line style of each name; the dashes change each time the palette repeats."""
    looks = itertools.cycle(itertools.product(DASHES, COLOURS))
    return {name: {"color": colour, "linestyle": dash} for name, (dash, colour) in zip(names, looks, strict=False)}


def share_colours() -> "Colormap":
    """Return the colour map of fractions, from 0 (white) to 1 (dark blue); NaN is grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", [CARD, COLOURS[0], "#001F33"]).with_extremes(bad=NO_DATA)


def count_logarithmically(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2, 5, 10, 20, etc."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(_tick)
    axes.xaxis.set_minor_formatter(NullFormatter())


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a new PNG; raise `UserError` if the file exists or cannot be written."""
    with create_new(path) as temporary, style():
        figure.savefig(temporary, dpi=110)


def short(name: object, length: int = LABEL_LENGTH) -> str:
    """Return a name cut to some characters, its dollars escaped: matplotlib reads a formula between two."""
    text = str(name)
    return (text if len(text) <= length else f"{text[: length - 1]}…").replace("$", r"\$")


def readable(table: "pd.DataFrame") -> "Styler":
    """Return a table that a notebook shows in full, without an index that only numbers the rows.

    Text wraps at spaces only, numbers have few decimals, and no cell is HTML.
    """
    import pandas as pd

    numbers = table.select_dtypes("number")
    small = [name for name in numbers.select_dtypes("floating") if 0 < numbers[name].abs().max() <= 1]
    texts = [name for name in table if name not in numbers]
    shown = table.style.format(precision=1, decimal=",", thousands="\xa0", na_rep="–", escape="html")
    shown = shown.format(precision=3, decimal=",", subset=small, na_rep="–")
    shown = shown.format_index(escape="html", axis=0).format_index(escape="html", axis=1)
    selectors = {"": "table-layout: auto", "td, th": CELLS, "th.row_heading": "text-align: left"}
    shown = shown.set_table_styles([{"selector": name, "props": props} for name, props in selectors.items()])
    left = [{"selector": "", "props": "text-align: left"}]
    shown = shown.set_table_styles(dict.fromkeys(texts, left), overwrite=False)
    return shown.hide(axis="index") if isinstance(table.index, pd.RangeIndex) else shown
