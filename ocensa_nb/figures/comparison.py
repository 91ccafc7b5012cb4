"""Draw comparisons: the speedup of each optimisation, and the F1 and the seconds of the cases of a grid.

Groups of cases are named by their number in the report's table, which is short.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocensa_nb.benchmark import compare
from ocensa_nb.benchmark.techniques import EXACT, GIVEN_FREEZING, TRADE
from ocensa_nb.errors import num
from ocensa_nb.evaluation.metrics import MODEL_NAMES
from ocensa_nb.figures.page import PHONE, WIDE
from ocensa_nb.figures.style import (
    COLOURS,
    GREY,
    INK,
    MODEL_COLOURS,
    count_logarithmically,
    new_figure,
    read_as,
    short,
    styled,
)
from ocensa_nb.figures.style import save as save_figure
from ocensa_nb.files.atomic import create_new
from ocensa_nb.runs.run import free_folder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FAR = 5  # ratio of the seconds from which on their axis is logarithmic
CHANGE_LENGTH = 44  # characters of a change of a setting, which fit on a telephone
MARKERS = {"encoder": "o", "linear": "s", "blend": "D"}
KIND_COLOURS = {EXACT: COLOURS[2], GIVEN_FREEZING: COLOURS[0], TRADE: COLOURS[1]}


@styled
def speedups(results: Mapping[str, Any], which: str = "ladder") -> "Figure":
    """Return the speedup of each technique over the baseline, with error bars from the slowest to the fastest round.

    `which` is `ladder` (cumulative, in order) or `alone` (individual, sorted by speedup).
    """
    import pandas as pd

    measured = results[which] if which == "ladder" else sorted(results[which], key=lambda m: m["speedup"])
    rows = pd.DataFrame(measured)
    figure, axes = new_figure(9, 1.2 + 0.42 * len(rows))
    for kind, part in rows.groupby("kind", sort=False):
        reach = [part["speedup"] - part["speedup_min"], part["speedup_max"] - part["speedup"]]
        look = {"color": KIND_COLOURS[kind], "ecolor": GREY, "capsize": 4, "label": kind}
        axes.barh(part.index, part["speedup"], xerr=reach, **look)
    for row in rows.itertuples():
        times = " ×" + num(row.speedup, 0 if row.speedup >= 20 else 1)
        axes.annotate(times, (row.speedup_max, row.Index), va="center")
    axes.set_yticks(rows.index, rows["title"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.legend(loc="outside upper center", ncols=rows["kind"].nunique())
    axes.grid(False, axis="y")
    count_logarithmically(axes)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xlim(0.8 * min(rows["speedup_min"].min(), 1), 1.6 * rows["speedup_max"].max())
    axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", ylabel="")
    last = measured[-1]
    if which == "ladder":
        axes.set_title("Mejora acumulada: cada técnica sobre las anteriores")
        before, after = (f"{num(m['seconds_per_step'], 3, form='g')} s" for m in (measured[0], last))
        reading = f"Todas juntas: un paso tarda {after} en lugar de {before}."
    else:
        axes.set_title("Cada técnica por separado")
        reading = f"La que más gana por sí sola: {last['title']}, {num(last['speedup'], 1)} veces."
    read_as(figure, reading)
    return figure


def save(results: Mapping[str, Any], out: str | Path) -> Path:
    """Write the results of `compare.compare`, their tables and their figures to a new folder, atomically."""
    path = free_folder(out)
    with create_new(path) as folder:
        folder.mkdir()
        compare.write(results, folder)
        for which in ("ladder", "alone"):
            save_figure(speedups(results, which), folder / f"{which}.png")
    return path


@styled
def f1_against_seconds(points: "pd.DataFrame", linear: float | None, width: float = WIDE) -> "Figure":
    """Return test F1 against seconds, with the Pareto front and the standard deviations.

    Parameters
    ----------
    points
        A row per group, indexed by its number: `score`, `score_sd`, `seconds`, `seconds_sd` and `on_front`.
    linear
        F1 of the simple model, drawn as a line; None to draw none.
    width
        In inches.
    """
    figure, axes = new_figure(width, 4.2 if width > PHONE else 3.6)
    for on_front, part in points.groupby("on_front"):
        # On a logarithmic axis the bar of the seconds must not reach 0.
        reach = [part["seconds_sd"].clip(upper=0.9 * part["seconds"]), part["seconds_sd"]]
        look = {"color": COLOURS[0], "markersize": 8, "zorder": 3} if on_front else {"color": GREY, "markersize": 6}
        axes.errorbar(part["seconds"], part["score"], part["score_sd"], reach, fmt="o", elinewidth=1, **look)
    for point in points.itertuples():
        axes.annotate(f"{point.Index}", (point.seconds, point.score), (6, 5), textcoords="offset points", color=INK)
    front = points[points["on_front"]].sort_values("seconds")
    axes.plot(front["seconds"], front["score"], color=COLOURS[0], label="frente de Pareto")
    if linear is not None:
        axes.axhline(linear, color=COLOURS[1], linestyle="--", label=f"modelo simple: {num(linear, 3)}")
    least, most = points["seconds"].min(), points["seconds"].max()
    if most >= FAR * least > 0:
        count_logarithmically(axes)
        axes.set(xlim=(0.7 * least, 1.5 * most), xlabel="segundos (escala logarítmica)")
    else:
        axes.set(xlim=(0, 1.15 * max(most, 1e-3)), xlabel="segundos")
    axes.set_ylabel("F1 de prueba (0 a 1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2 if width > PHONE else 1)
    return figure


@styled
def f1_by_model(scores: "pd.DataFrame", width: float = WIDE) -> "Figure":
    """Return the mean test F1 of each model (columns) of each group (rows, by number), a line per group."""
    figure, axes = new_figure(width, 1.3 + 0.32 * len(scores))
    rows = np.arange(len(scores))
    for model, values in scores.dropna(axis="columns", how="all").items():
        look = {"color": MODEL_COLOURS[model], "label": MODEL_NAMES[model], "markersize": 8, "alpha": 0.85}
        axes.plot(values, rows, MARKERS[model], **look)
    axes.set_yticks(rows, [f"{number}" for number in scores.index])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5 if width <= PHONE else 8)
    axes.set(xlabel="F1 de prueba (0 a 1)", ylabel="número en la tabla")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def differences(bars: "pd.DataFrame", width: float = WIDE) -> "Figure":
    """Return the difference of F1 of each change of a setting, with its interval of 95 %; grey if it may be noise.

    `bars` has a row per change: `title`, `mean`, `low`, `high` and `is_clear`, whether the interval excludes 0.
    """
    is_narrow = width <= PHONE
    figure, axes = new_figure(width, 1.1 + (0.55 if is_narrow else 0.38) * len(bars))
    for row, bar in enumerate(bars.itertuples()):
        colour = (COLOURS[2] if bar.mean > 0 else COLOURS[1]) if bar.is_clear else GREY
        reach = [[bar.mean - bar.low], [bar.high - bar.mean]]
        axes.errorbar(bar.mean, row, xerr=reach, color=colour, marker="o", elinewidth=2, capsize=3)
        if is_narrow:
            position = {"xy": (0, row - 0.32), "xycoords": ("axes fraction", "data"), "va": "center"}
            axes.annotate(short(bar.title, CHANGE_LENGTH), **position, color=INK, fontsize=9)
    axes.axvline(0, color=INK, linewidth=1)
    titles = ["" if is_narrow else short(title, CHANGE_LENGTH) for title in bars["title"]]
    axes.set_yticks(range(len(bars)), titles)
    axes.set_ylim(len(bars) - 0.5, -0.7)
    axes.set(xlabel="diferencia de F1 de prueba")
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=5 if is_narrow else 8)
    return figure
