"""Draw the measured speedups of the optimisations, and save them with their tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.benchmark import compare
from ocensa_nb.benchmark.techniques import EXACT, GIVEN_FREEZING, TRADE
from ocensa_nb.figures.style import COLOURS, GREY, INK, count_logarithmically, new_figure, read_as, styled
from ocensa_nb.figures.style import save as save_figure
from ocensa_nb.files.atomic import create_new
from ocensa_nb.runs.run import free_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def speedups(results: Mapping[str, Any], which: str = "ladder") -> "Figure":
    """Return the speedup of each technique over the baseline, with error bars from the slowest to the fastest round.

    `which` is `ladder` (cumulative, in order) or `alone` (individual, sorted by speedup).
    """
    import pandas as pd
    import seaborn as sns

    measured = results[which] if which == "ladder" else sorted(results[which], key=lambda m: m["speedup"])
    figure, axes = new_figure(9, 1.2 + 0.42 * len(measured))
    rounds = pd.DataFrame(
        [
            {"title": m["title"], "kind": m["kind"], "speedup": m[value]}
            for m in measured
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
    for row, m in enumerate(measured):
        axes.annotate(f" ×{m['speedup']:.{0 if m['speedup'] >= 20 else 1}f}", (m["speedup_max"], row), va="center")
    handles, labels = axes.get_legend_handles_labels()
    axes.get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(kinds))
    axes.grid(False, axis="y")
    count_logarithmically(axes)
    axes.axvline(1, color=INK, linewidth=1)
    low, high = min(m["speedup_min"] for m in measured), max(m["speedup_max"] for m in measured)
    axes.set_xlim(0.8 * min(low, 1), 1.6 * high)
    axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", ylabel="")
    last = measured[-1]
    if which == "ladder":
        axes.set_title("Mejora acumulada: cada técnica sobre las anteriores")
        before, after = (f"{m['seconds_per_step']:.3g} s" for m in (measured[0], last))
        reading = f"Todas juntas: un paso tarda {after} en lugar de {before}."
    else:
        axes.set_title("Cada técnica por separado")
        reading = f"La que más gana por sí sola: {last['title']}, {last['speedup']:.1f} veces."
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
