"""Draw every figure and the training GIF. Each figure shows its units and a one-line reading, in Spanish."""

import base64
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocensa_nb.benchmark.techniques import EXACT, GIVEN_FREEZING, TRADE
from ocensa_nb.encoders.token_table import recommend_max_length
from ocensa_nb.figures import style
from ocensa_nb.figures.animation import TrainingAnimation, draw_losses, draw_scores, epoch_lines, step_lines
from ocensa_nb.figures.style import COLOURS, GREY, INK, new_figure, read_as, share_colours, styled
from ocensa_nb.files.atomic import atomic_write, create_new
from ocensa_nb.storage.run_folder import GIF, Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIF_FRAMES = 80
GIF_SHARE = 0.04  # maximum fraction of the training time spent on drawing, except for the first and last frames
FRAME_MS, HELD_MS = 100, 3000
FEW_LABELS, MAX_CONFUSION_LABELS = 12, 60
LABEL_LENGTH = 32  # maximum characters of a class name beside the matrix


@styled
def token_lengths(lengths: np.ndarray, max_length: int) -> "Figure":
    """Return the histogram of token counts with p95, p99 and the recommended `max_length`.

    Parameters
    ----------
    lengths : ndarray of shape (texts,), int64
        Tokens of each text, untruncated.
    max_length
        Current limit in tokens; the reading gives the percentage of texts above it.

    Returns
    -------
    Figure
        Counts of texts in bins of two tokens.
    """
    figure, axes = new_figure(8, 4)
    p95, p99 = np.percentile(lengths, [95, 99])
    recommended = recommend_max_length(lengths)
    axes.hist(lengths, bins=np.arange(0, lengths.max() + 4, 2), color=COLOURS[0], alpha=0.85)
    for value, name, colour, line in (
        (p95, f"p95 = {p95:.0f}", COLOURS[2], "--"),
        (p99, f"p99 = {p99:.0f}", COLOURS[1], "--"),
        (recommended, f"recomendado = {recommended}", INK, "-"),
    ):
        axes.axvline(value, color=colour, linestyle=line, linewidth=1.6, label=name)
    axes.set(xlabel="tokens por aviso", ylabel="avisos", title="Largo de los textos", xlim=(0, None))
    axes.legend()
    cut = 100 * float((lengths > max_length).mean())
    read_as(
        figure, f"Con max_length = {max_length} se corta el {cut:.1f} % de los avisos; bastan {recommended} tokens."
    )
    return figure


@styled
def learning_curves(run: Run) -> "Figure":
    """Return the loss per step, raw and smoothed, beside the validation F1 of each head per epoch."""
    history = run.history()
    figure, (left, right) = new_figure(9, 4, columns=2)
    draw_losses(left, step_lines(history))
    draw_scores(right, run.classes, epoch_lines(history))
    best = run.metrics["best_epoch"]
    right.axvline(best, color=GREY, linestyle=":", label=f"mejor época: {best}")
    right.legend(loc="lower right")
    monitor = run.config.monitor
    value = run.metrics["val"][monitor]
    read_as(figure, f"Se guardó la época {best}, la de mejor {monitor} en validación: {value:.3f}.")
    return figure


@styled
def confusion(matrix: "pd.DataFrame", title: str) -> "Figure":
    """Return the heat map of a normalised confusion matrix.

    Parameters
    ----------
    matrix : DataFrame of shape (classes, classes)
        Fractions of each true class: true classes in rows, predicted classes in columns.
    title
        Title of the figure.

    Returns
    -------
    Figure
        With class names if there are at most `MAX_CONFUSION_LABELS`.
    """
    names = [str(name) for name in matrix.index]
    side = 5 + min(4.0, 0.09 * len(names))
    figure, axes = new_figure(max(side, 6), side)
    image = axes.imshow(matrix.to_numpy(), cmap=share_colours(), vmin=0, vmax=1)
    if len(names) <= MAX_CONFUSION_LABELS:
        size = 9 if len(names) <= FEW_LABELS else 7
        short = [_plain(name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}…") for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), short, fontsize=size)
    axes.set(xlabel="clase predicha", ylabel="clase verdadera", title=title)
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="fracción de la clase verdadera", shrink=0.8)
    seen = matrix.to_numpy().sum(axis=1) > 0  # a class that was only predicted has no true rows, so no recall
    hits = np.where(seen, np.diag(matrix.to_numpy()), np.inf)
    worst = _plain(names[int(hits.argmin())])
    read_as(figure, f"La diagonal es el acierto; la clase que menos se reconoce es «{worst}» ({hits.min():.0%}).")
    return figure


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
    from matplotlib.patches import Patch

    found = results[which] if which == "ladder" else sorted(results[which], key=lambda m: m["speedup"])
    figure, axes = new_figure(9, 1.2 + 0.42 * len(found))
    colours = {EXACT: COLOURS[2], GIVEN_FREEZING: COLOURS[0], TRADE: COLOURS[1]}
    kinds = list(dict.fromkeys(m["kind"] for m in found))
    for place, m in enumerate(found):
        spread = [[m["speedup"] - m["speedup_min"]], [m["speedup_max"] - m["speedup"]]]
        axes.barh(place, m["speedup"], xerr=spread, color=colours[m["kind"]], ecolor=GREY, capsize=3)
        axes.annotate(f" ×{m['speedup']:.{0 if m['speedup'] >= 20 else 1}f}", (m["speedup_max"], place), va="center")
    handles = [Patch(color=colours[kind], label=kind) for kind in kinds]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(kinds))
    axes.set_yticks(range(len(found)), [m["title"] for m in found])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    _count_logarithmically(axes)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xlim(right=2 * max(m["speedup_max"] for m in found))
    last = found[-1]
    if which == "ladder":
        axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", title="Una técnica sobre otra")
        before, after = (f"{m['seconds_per_step']:.3g} s" for m in (found[0], last))
        reading = f"Todas juntas: un paso tarda {after} en lugar de {before}."
    else:
        axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", title="Cada técnica sola")
        reading = f"La que más gana por sí sola: {last['title']}, {last['speedup']:.1f} veces."
    read_as(figure, reading)
    return figure


@styled
def f1_against_time(points: list[dict[str, Any]], caption: str) -> "Figure":
    """Return a scatter plot of validation F1 against seconds of training, one point per cumulative technique.

    Parameters
    ----------
    points
        From `quality_cost.quality`.
    caption
        The one-line reading.

    Returns
    -------
    Figure
        Error bars span the minimum and maximum over the seeds.
    """
    figure, axes = new_figure(9, 4.5)
    for place, point in enumerate(points):
        spread = [[point["f1"] - point["f1_min"]], [point["f1_max"] - point["f1"]]]
        colour = COLOURS[0] if point["trained"] else COLOURS[5]
        axes.errorbar(point["seconds"], point["f1"], yerr=spread, fmt="o", color=colour, ecolor=GREY, capsize=3)
        axes.annotate(str(place), (point["seconds"], point["f1"]), xytext=(5, 6), textcoords="offset points")
    names = "\n".join(f"{place}  {point['title']}" for place, point in enumerate(points))
    axes.annotate(names, (1.02, 0.5), xycoords="axes fraction", va="center", fontsize=8)
    _count_logarithmically(axes)
    axes.set(
        xlabel="segundos de los pasos (escala logarítmica)",
        ylabel="F1 medio de validación (0 a 1)",
        title="Calidad contra tiempo, peldaño a peldaño",
    )
    axes.plot([], [], "o", color=COLOURS[0], label="entrenado")
    axes.plot([], [], "o", color=COLOURS[5], label="misma función: su F1 es el del entrenado")
    figure.legend(loc="outside upper center", ncols=2)
    read_as(figure, caption)
    return figure


def training_gif(run: Run) -> Path | None:
    """Write the training GIF of a run: loss, F1 and confusion matrix over time; the last frame lasts longer.

    The number of frames, from 2 to `GIF_FRAMES`, is limited by `GIF_SHARE` of the training time.

    Parameters
    ----------
    run
        A finished run.

    Returns
    -------
    Path or None
        The GIF in the run folder; None if the history has fewer than two steps with a loss or no epoch.
    """
    from PIL import Image

    history = run.history()
    if len(step_lines(history)) < 2 or not epoch_lines(history):
        return None
    deadline = time.perf_counter() + GIF_SHARE * run.metadata["seconds"]["training"]
    with style.style():
        film = TrainingAnimation(run, history)
        # One palette for all frames, so that only changed pixels are written. With more colours white is not preserved.
        palette = Image.fromarray(film.frame(len(history))).quantize(128, Image.Quantize.MAXCOVERAGE)

        def frame(known: int) -> Image.Image:
            return Image.fromarray(film.frame(known)).quantize(palette=palette, dither=Image.Dither.NONE)

        started = time.perf_counter()
        last = frame(len(history))
        now = time.perf_counter()
        count = int(np.clip((deadline - now) / (now - started), 2, GIF_FRAMES))
        first, *more = (frame(known) for known in np.linspace(0, len(history), count).astype(int)[:-1])
    path = run.path / GIF
    with atomic_write(path) as fresh:
        times = [*[FRAME_MS] * (count - 1), HELD_MS]
        first.save(fresh, save_all=True, append_images=[*more, last], duration=times, loop=0)
    return path


def embedded(gif: Path) -> str:
    """Return an HTML image with the GIF as base64; HTML copies of a notebook show no other kind of GIF."""
    return f'<img src="data:image/gif;base64,{base64.b64encode(gif.read_bytes()).decode()}" alt="El entrenamiento">'


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a new PNG; raise `UserError` if the file exists or cannot be written."""
    with create_new(path) as fresh, style.style():
        figure.savefig(fresh, dpi=110)


def _plain(text: str) -> str:
    """Return text with its dollar signs escaped; matplotlib reads text between two dollars as a formula."""
    return text.replace("$", r"\$")


def _count_logarithmically(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2, 5, 10, 20, etc."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
