"""Draw the measured optimisations: speedups, and validation F1 against time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ocensa_nb.benchmark import time_to_target
from ocensa_nb.benchmark.techniques import EXACT, GIVEN_FREEZING, TRADE
from ocensa_nb.figures.style import COLOURS, GREY, INK, line_styles, new_figure, read_as, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASH_LENGTHS = {"-": "", "--": (4, 2), ":": (1, 1.5)}  # of `style.DASHES`, in line widths, as seaborn wants them


@styled
def speedups(results: Mapping[str, Any], which: str = "ladder") -> "Figure":
    """Return a bar chart of the speedup of each technique over the baseline, on a logarithmic axis.

    Parameters
    ----------
    results
        From `compare.compare`.
    which
        `ladder` (cumulative, in order) or `alone` (individual, sorted by speedup).

    Returns
    -------
    Figure
        Error bars span the minimum and maximum over the rounds.
    """
    import pandas as pd
    import seaborn as sns

    found = results[which] if which == "ladder" else sorted(results[which], key=lambda m: m["speedup"])
    figure, axes = new_figure(9, 1.2 + 0.42 * len(found))
    rounds = pd.DataFrame(
        [
            {"title": m["title"], "kind": m["kind"], "speedup": m[value]}
            for m in found
            for value in ("speedup_min", "speedup", "speedup_max")
        ]
    )
    kinds = list(rounds["kind"].unique())
    sns.barplot(
        rounds,
        x="speedup",
        y="title",
        hue="kind",
        hue_order=kinds,
        palette={EXACT: COLOURS[2], GIVEN_FREEZING: COLOURS[0], TRADE: COLOURS[1]},
        saturation=1,
        dodge=False,
        estimator="median",
        errorbar=("pi", 100),  # from the minimum to the maximum
        capsize=0.3,
        ax=axes,
    )
    for line in axes.lines:  # the error bars
        line.set(color=GREY, linewidth=1.5)
    for place, m in enumerate(found):
        axes.annotate(f" ×{m['speedup']:.{0 if m['speedup'] >= 20 else 1}f}", (m["speedup_max"], place), va="center")
    _legend_above(figure, axes, len(kinds))
    axes.grid(False, axis="y")
    count_logarithmically(axes)
    axes.axvline(1, color=INK, linewidth=1)
    low, high = min(m["speedup_min"] for m in found), max(m["speedup_max"] for m in found)
    axes.set_xlim(0.8 * min(low, 1), 1.6 * high)
    axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", ylabel="")
    last = found[-1]
    if which == "ladder":
        axes.set_title("Mejora acumulada: cada técnica sobre las anteriores")
        before, after = (f"{m['seconds_per_step']:.3g} s" for m in (found[0], last))
        reading = f"Todas juntas: un paso tarda {after} en lugar de {before}."
    else:
        axes.set_title("Cada técnica por separado")
        reading = f"La que más gana por sí sola: {last['title']}, {last['speedup']:.1f} veces."
    read_as(figure, reading)
    return figure


@styled
def f1_against_time(points: time_to_target.Points) -> "Figure":
    """Return the validation F1 against seconds of training, one curve per cumulative technique.

    Parameters
    ----------
    points
        From `quality_cost.quality`.

    Returns
    -------
    Figure
        Means over the seeds, one point per epoch; bands from the minimum to the maximum. A larger point marks the first
        epoch with 95 % of the best F1, and the legend has its seconds.
    """
    import pandas as pd
    import seaborn as sns

    reached = time_to_target.time_to_target(points)
    names = {title: f"{title}: {time_to_target.in_seconds(seconds)}" for title, seconds in reached["seconds"].items()}
    looks = line_styles(names.values())
    figure, axes = new_figure(8, 6)
    sns.lineplot(
        pd.DataFrame(points).assign(technique=lambda table: table["title"].map(names)),
        x="seconds",
        y="f1",
        hue="technique",
        style="technique",
        palette={name: look["color"] for name, look in looks.items()},
        dashes={name: DASH_LENGTHS[look["linestyle"]] for name, look in looks.items()},
        errorbar=("pi", 100),
        err_kws={"alpha": 0.12, "linewidth": 0},
        linewidth=2,
        ax=axes,
    )
    for row in reached.itertuples():
        look = looks[names[row.Index]]
        axes.plot(row.seconds, row.f1, "o", color=look["color"], markersize=8, markeredgecolor=INK, zorder=5)
    goal = time_to_target.target(points)
    axes.axhline(goal, color=INK, linestyle=":", linewidth=1.2)
    axes.annotate(
        f"95 % del mejor F1: {goal:.3f}", (0.01, goal), xycoords=("axes fraction", "data"), va="bottom", fontsize=9
    )
    _legend_above(figure, axes, 2, "Segundos hasta el 95 % del mejor F1")
    count_logarithmically(axes)
    axes.set(
        xlabel="segundos de los pasos de entrenamiento (escala logarítmica)",
        ylabel="F1 medio de validación (0 a 1)",
        title="Calidad contra tiempo: mejora acumulada",
    )
    read_as(figure, time_to_target.reading(points))
    return figure


def _legend_above(figure: "Figure", axes: "Axes", columns: int, title: str = "") -> None:
    """Move the legend of the axes above them, so that it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    axes.get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title or None)


def count_logarithmically(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2, 5, 10, 20, etc."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
