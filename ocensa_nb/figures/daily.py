"""Draw the predictions of a file: what fails, where, and when."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ocensa_nb.errors import num
from ocensa_nb.figures.page import PHONE, WIDE
from ocensa_nb.figures.style import COLOURS, GREY, new_figure, short, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS, MOST_GROUPS, MOST_MONTHS = 12, 8, 36
PHONE_LABEL = 18  # characters of a name


@styled
def pareto(values: pd.Series, width: float = WIDE) -> "Figure":
    """Return the most frequent values as bars, with the share of the rows that they and those above add up to."""
    counts = values.value_counts().head(MOST_BARS)
    shares = counts.cumsum() / len(values)
    figure, axes = new_figure(width, 1.0 + 0.32 * len(counts))
    axes.barh(range(len(counts)), counts, color=COLOURS[0])
    for place, (count, share) in enumerate(zip(counts, shares, strict=True)):
        axes.annotate(f" {num(count)} · {num(100 * share)} %", (count, place), va="center", color=GREY, fontsize=9)
    axes.set_yticks(range(len(counts)), [short(name, _length(width)) for name in counts.index])
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1.3 * counts.max())
    axes.set(xlabel="avisos · parte acumulada", ylabel="")
    axes.grid(False, axis="y")
    return figure


@styled
def heat_map(groups: pd.Series, values: pd.Series, width: float = WIDE) -> "Figure":
    """Return the rows of each group (down) with each value (across), of the most frequent ones."""
    import seaborn

    most = MOST_GROUPS if width > PHONE else 5
    table = pd.crosstab(groups, values)
    table = table.loc[groups.value_counts().index[:MOST_BARS]]
    table = table[table.max().sort_values(ascending=False, kind="stable").index[:most]]
    figure, axes = new_figure(width, 1.9 + 0.34 * len(table))
    names = [[short(name, _length(width)) for name in part] for part in (table.index, table.columns)]
    seaborn.heatmap(
        table, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axes, yticklabels=names[0], xticklabels=names[1]
    )
    axes.set(xlabel="", ylabel="")
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    return figure


@styled
def months(dates: pd.Series, values: pd.Series, width: float = WIDE) -> "Figure":
    """Return the rows of each month, or quarter, stacked by value; those beyond the first five are together."""
    top = values.value_counts().index[:5]
    named = values.where(values.isin(top), "otros")
    periods = dates.dt.to_period("M")
    freq = "M" if (periods.max() - periods.min()).n < MOST_MONTHS else "Q"
    table = pd.crosstab(dates.dt.to_period(freq), named)
    table = table.reindex(pd.period_range(table.index.min(), table.index.max(), freq=freq), fill_value=0)
    order = [name for name in [*top, "otros"] if name in table]
    figure, axes = new_figure(width, 3.4 if width > PHONE else 3.8)
    base, places = np.zeros(len(table)), np.arange(len(table))
    for name, colour in zip(order, [*COLOURS[:5], GREY], strict=False):
        axes.bar(places, table[name], bottom=base, color=GREY if name == "otros" else colour, label=short(name))
        base += table[name].to_numpy()
    step = -(-len(table) // (12 if width > PHONE else 6))
    axes.set_xticks(places[::step], [f"{month:%m/%y}" for month in table.index[::step]])
    axes.set(ylabel="avisos", xlabel="mes" if freq == "M" else "trimestre, por su último mes")
    figure.legend(loc="outside upper center", ncols=3 if width > PHONE else 1, fontsize=8)
    return figure


def _length(width: float) -> int:
    return 32 if width > PHONE else PHONE_LABEL
