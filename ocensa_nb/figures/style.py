"""One visual language: the palette and the style that every figure, the GIF and the panel are drawn in.

Figures are white cards: legible on a light page and on a dark one, whatever style the user has set.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, INK, CARD = "#6B6B6B", "#1A1A1A", "#FFFFFF"
SMOOTHING = 0.05  # weight of the newest step in a smoothed loss
DASHES = ("-", "--", ":")
STYLE: dict[str, Any] = {
    "figure.dpi": 100,  # with 9 inches at most: a Colab cell is some 900 pixels wide
    "figure.facecolor": CARD,
    "savefig.facecolor": CARD,
    "axes.facecolor": CARD,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.fontsize": 9,
    "legend.edgecolor": CARD,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
}
Given = ParamSpec("Given")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in our style alone, whatever the user's is."""
    from matplotlib.style import context

    with context(STYLE, after_reset=True):
        yield


def styled(draw: "Callable[Given, Figure]") -> "Callable[Given, Figure]":
    """Make a function that returns a figure draw it in our style, so that it looks the same wherever it is shown."""

    @functools.wraps(draw)
    def drawn(*args: Given.args, **kwargs: Given.kwargs) -> "Figure":
        with style():
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made, and styled, when they are first needed
        return figure

    return drawn


def new_figure(width: float, height: float, columns: int = 1) -> tuple["Figure", Any]:
    """Return a figure, in inches, that is not pyplot's to show, and its axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    for one in np.atleast_1d(axes):
        one.tick_params(labelsize=STYLE["font.size"])  # or how many ticks fit would be asked of the user's style
    plt.close(figure)  # the caller shows or saves it; pyplot would show it a second time
    return figure, axes


def read_as(figure: "Figure", text: str) -> None:
    """Say in one line, below a figure, what is to be read in it."""
    figure.supxlabel(text, fontsize=9, color=GREY, wrap=True)


def line_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return a colour for the line of each name, and other dashes each time the palette begins again."""
    styles = {}
    for place, name in enumerate(names):
        again, colour = divmod(place, len(COLOURS))
        styles[name] = {"color": COLOURS[colour], "linestyle": DASHES[again % len(DASHES)]}
    return styles


def share_colours() -> "Colormap":
    """Return the colours of shares from 0, the card's white, to 1; what has no share is grey."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", [CARD, COLOURS[0], "#001F33"]).with_extremes(bad="#EBEBEB")


# The panel takes the page's own text colour, light or dark, and marks parts with a grey that shows on both.
PANEL_CSS = f"""
.ocensa-panel {{ max-width: 960px; padding: 8px 12px; border: 1px solid rgba(128,128,128,.4); border-radius: 8px; }}
.ocensa-panel .widget-html-content, .ocensa {{ color: var(--jp-ui-font-color1, currentColor); line-height: 1.4; }}
.ocensa-title {{ font-weight: 600; border-bottom: 2px solid {COLOURS[0]}; margin-top: 6px; }}
.ocensa-label {{ width: 140px; text-align: right; padding-right: 4px; }}
.ocensa-panel .mod-active {{ background: {COLOURS[0]}; color: {CARD}; }}
.ocensa-panel .widget-checkbox label {{ white-space: normal; height: auto; }}
.ocensa-note {{ opacity: .85; padding-left: 6px; }}
.ocensa-memory {{ border-left: 4px solid {COLOURS[0]}; padding: 4px 10px; margin: 6px 0 0; }}
.ocensa-expected {{ border-left: 4px solid {COLOURS[2]}; padding: 4px 10px; margin: 6px 0; }}
.ocensa-state {{ min-height: 1.4em; overflow-wrap: anywhere; }}
.ocensa-bar div {{ height: 10px; border-radius: 5px; background: rgba(128,128,128,.25); overflow: hidden; }}
.ocensa-bar i {{ display: block; height: 100%; background: {COLOURS[0]}; }}
.ocensa-numbers {{ display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 8px 0; }}
.ocensa-numbers small {{ display: block; opacity: .75; }}
.ocensa-charts {{ display: flex; flex-wrap: wrap; gap: 12px; }}
.ocensa-charts figure {{ flex: 1 1 320px; max-width: 460px; margin: 0; }}
.ocensa-charts figcaption {{ display: flex; flex-wrap: wrap; gap: 0 14px; justify-content: center; font-size: small; }}
.ocensa pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
"""
