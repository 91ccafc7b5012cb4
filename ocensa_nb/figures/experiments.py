"""Draw the results of an experiment; groups are named by their number in the report's table, which is short."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocensa_nb.evaluation.comparison import MODEL_NAMES
from ocensa_nb.figures.style import COLOURS, GREY, INK, MODEL_COLOURS, count_logarithmically, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, PHONE = 8.6, 3.7  # inches: figures for a page, and for a telephone
FAR = 5  # ratio of the seconds from which on their axis is logarithmic
MARKERS = {"encoder": "o", "linear": "s", "blend": "D"}


@dataclass(frozen=True)
class Point:
    """A group of cases: its number, seconds and F1 with their standard deviations, and whether it is on the front."""

    number: int
    seconds: float
    seconds_sd: float
    score: float
    score_sd: float
    on_front: bool


@dataclass(frozen=True)
class Bar:
    """A difference with its interval, and whether the interval excludes 0."""

    title: str
    mean: float
    low: float
    high: float
    is_clear: bool


@styled
def f1_against_seconds(points: Sequence[Point], linear: float | None, width: float = WIDE) -> "Figure":
    """Return test F1 against seconds, with the Pareto front and the standard deviations; `width` is in inches."""
    figure, axes = new_figure(width, 4.2 if width > PHONE else 3.6)
    front = sorted((point for point in points if point.on_front), key=lambda point: point.seconds)
    for point in points:
        colour = COLOURS[0] if point.on_front else GREY
        # On a logarithmic axis the bar of the seconds must not reach 0.
        left = min(point.seconds_sd, 0.9 * point.seconds)
        axes.errorbar(
            point.seconds,
            point.score,
            xerr=[[left], [point.seconds_sd]],
            yerr=point.score_sd,
            color=colour,
            marker="o",
            markersize=8 if point.on_front else 6,
            elinewidth=1,
            zorder=3 if point.on_front else 2,
        )
        axes.annotate(f"{point.number}", (point.seconds, point.score), (6, 5), textcoords="offset points", color=INK)
    axes.plot(
        [point.seconds for point in front], [point.score for point in front], color=COLOURS[0], label="frente de Pareto"
    )
    if linear is not None:
        axes.axhline(linear, color=COLOURS[1], linestyle="--", label=f"modelo simple: {linear:.3f}")
    least, most = (pick(point.seconds for point in points) for pick in (min, max))
    if most >= FAR * least > 0:
        count_logarithmically(axes)
        axes.set(xlim=(0.7 * least, 1.5 * most), xlabel="segundos (escala logarítmica)")
    else:
        axes.set(xlim=(0, 1.15 * max(most, 1e-3)), xlabel="segundos")
    axes.set_ylabel("F1 de prueba (0 a 1)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2 if width > PHONE else 1)
    return figure


@styled
def f1_by_model(scores: Sequence[tuple[int, dict[str, float]]], width: float = WIDE) -> "Figure":
    """Return the mean test F1 of the encoder, the simple model and the blend of each group, a line per group."""
    figure, axes = new_figure(width, 1.3 + 0.32 * len(scores))
    for model, marker in MARKERS.items():
        known = [(place, found[model]) for place, (_, found) in enumerate(scores) if model in found]
        if known:
            places, values = zip(*known, strict=True)
            axes.plot(
                values, places, marker, color=MODEL_COLOURS[model], label=MODEL_NAMES[model], markersize=8, alpha=0.85
            )
    axes.set_yticks(range(len(scores)), [f"{number}" for number, _ in scores])
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5 if width <= PHONE else 8)
    axes.set(xlabel="F1 de prueba (0 a 1)", ylabel="número en la tabla")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def differences(bars: Sequence[Bar], width: float = WIDE) -> "Figure":
    """Return the difference of F1 of each change of a setting, with its interval of 95 %; grey if it may be noise."""
    is_narrow = width <= PHONE
    figure, axes = new_figure(width, 1.1 + (0.55 if is_narrow else 0.38) * len(bars))
    for place, bar in enumerate(bars):
        colour = (COLOURS[2] if bar.mean > 0 else COLOURS[1]) if bar.is_clear else GREY
        reach = [[bar.mean - bar.low], [bar.high - bar.mean]]
        axes.errorbar(bar.mean, place, xerr=reach, color=colour, marker="o", elinewidth=2, capsize=3)
        if is_narrow:
            place_of_title = {"xy": (0, place - 0.32), "xycoords": ("axes fraction", "data"), "va": "center"}
            axes.annotate(bar.title, **place_of_title, color=INK, fontsize=9, parse_math=False)
    axes.axvline(0, color=INK, linewidth=1)
    titles = [""] * len(bars) if is_narrow else [bar.title for bar in bars]
    axes.set_yticks(range(len(bars)), titles, parse_math=False)  # a path or a name may have two $
    axes.set_ylim(len(bars) - 0.5, -0.7)
    axes.set(xlabel="diferencia de F1 de prueba")
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=5 if is_narrow else 8)
    return figure
