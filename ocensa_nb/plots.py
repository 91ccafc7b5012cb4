"""Every figure, and the training GIF. Each figure carries its units and a one-line reading, in Spanish."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocensa_nb.durable import replacing
from ocensa_nb.runs import GIF, Run
from ocensa_nb.techniques import EXACT, GIVEN_FREEZING, TRADE
from ocensa_nb.tokens import recommend_max_length

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6B6B6B"
GIF_FRAMES = 80
GIF_SHARE = 0.04  # of the training time, at most, is spent on drawing it
MAX_CONFUSION_LABELS = 60
SMOOTHING = 0.05  # weight of the newest step in the smoothed loss


def token_lengths(lengths: np.ndarray, max_length: int) -> "Figure":
    """Return the histogram of token counts with p95, p99, the current and the recommended `max_length`."""
    figure, axes = _figure(8, 4)
    p95, p99 = np.percentile(lengths, [95, 99])
    recommended = recommend_max_length(lengths)
    axes.hist(lengths, bins=np.arange(0, lengths.max() + 4, 2), color=COLOURS[0], alpha=0.85)
    for value, name, colour, line in (
        (p95, f"p95 = {p95:.0f}", COLOURS[2], "--"),
        (p99, f"p99 = {p99:.0f}", COLOURS[1], "--"),
        (recommended, f"recomendado = {recommended}", "black", "-"),
    ):
        axes.axvline(value, color=colour, linestyle=line, linewidth=1.6, label=name)
    axes.set(xlabel="tokens por aviso", ylabel="avisos", title="Largo de los textos")
    axes.legend(frameon=False)
    cut = 100 * float((lengths > max_length).mean())
    _reading(
        figure, f"Con max_length = {max_length} se corta el {cut:.1f} % de los avisos; bastan {recommended} tokens."
    )
    return figure


def learning_curves(run: Run) -> "Figure":
    """Return the loss of each step, raw and smoothed, beside the validation F1 of each head by epoch."""
    history = run.history()
    steps = _steps(history)
    epochs = [line for line in history if "step" not in line]
    figure, (left, right) = _figure(10, 4, columns=2)
    _draw_loss(left, [line["step"] for line in steps], [line["loss"] for line in steps])
    for colour, head in zip(COLOURS, run.classes, strict=False):
        scores = [line[f"{head}_f1"] for line in epochs]
        right.plot([line["epoch"] for line in epochs], scores, marker="o", color=colour, label=head)
    best = run.metrics["best_epoch"]
    right.axvline(best, color=GREY, linestyle=":", label=f"mejor época: {best}")
    right.set(xlabel="época", ylabel="F1 ponderado (0 a 1)", title="Validación", ylim=(0, 1))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(frameon=False)
    monitor = run.config.monitor
    value = run.metrics["val"][monitor]
    _reading(figure, f"Se guardó la época {best}, la de mejor {monitor} en validación: {value:.3f}.")
    return figure


def confusion(matrix: "pd.DataFrame", title: str) -> "Figure":
    """Return the heat map of a normalised confusion matrix: true classes in rows, predicted in columns."""
    names = [str(name).replace("$", r"\$") for name in matrix.index]  # two of them would be read as a formula
    side = min(14.0, 3.5 + 0.24 * len(names))
    figure, axes = _figure(side + 1, side)
    image = axes.imshow(matrix.to_numpy(), cmap="cividis", vmin=0, vmax=1)
    if len(names) <= MAX_CONFUSION_LABELS:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set(xlabel="predicha", ylabel="verdadera", title=title)
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="fracción de la clase verdadera", shrink=0.8)
    seen = matrix.to_numpy().sum(axis=1) > 0  # a class that was only predicted has no rows to recognise
    hits = np.where(seen, np.diag(matrix.to_numpy()), np.inf)
    worst = names[int(hits.argmin())]
    _reading(figure, f"La diagonal es el acierto; la clase que menos se reconoce es «{worst}» ({hits.min():.0%}).")
    return figure


def speedups(results: Mapping[str, Any], which: str = "ladder") -> "Figure":
    """Return the bars of a comparison: how many times faster than the baseline, stacked or each technique alone."""
    from matplotlib.patches import Patch

    found = results[which] if which == "ladder" else sorted(results[which], key=lambda m: m["speedup"])
    figure, axes = _figure(9, 1.2 + 0.42 * len(found))
    colours = {EXACT: COLOURS[2], GIVEN_FREEZING: COLOURS[0], TRADE: COLOURS[1]}
    kinds = list(dict.fromkeys(m["kind"] for m in found))
    for place, m in enumerate(found):
        spread = [[m["speedup"] - m["speedup_min"]], [m["speedup_max"] - m["speedup"]]]
        axes.barh(place, m["speedup"], xerr=spread, color=colours[m["kind"]], ecolor=GREY, capsize=3)
        axes.annotate(f" ×{m['speedup']:.{0 if m['speedup'] >= 20 else 1}f}", (m["speedup_max"], place), va="center")
    axes.legend(handles=[Patch(color=colours[kind], label=kind) for kind in kinds], frameon=False, loc="upper right")
    axes.set_yticks(range(len(found)), [m["title"] for m in found])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(right=2 * max(m["speedup_max"] for m in found))
    last = found[-1]
    if which == "ladder":
        axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", title="Una técnica sobre otra")
        before, after = (f"{m['seconds_per_step']:.3g} s" for m in (found[0], last))
        reading = f"Todas juntas: un paso tarda {after} en lugar de {before}."
    else:
        axes.set(xlabel="veces más rápido que el punto de partida (escala logarítmica)", title="Cada técnica sola")
        reading = f"La que más gana por sí sola: {last['title']}, {last['speedup']:.1f} veces."
    _reading(figure, reading)
    return figure


def f1_against_time(points: list[dict[str, Any]]) -> "Figure":
    """Return a point a rung of the ladder: seconds of a short training against its validation F1, with its spread."""
    from ocensa_nb.quality import reading

    figure, axes = _figure(9, 4.5)
    for place, point in enumerate(points):
        spread = [[point["f1"] - point["f1_min"]], [point["f1_max"] - point["f1"]]]
        colour = COLOURS[0] if point["trained"] else COLOURS[5]
        axes.errorbar(point["seconds"], point["f1"], yerr=spread, fmt="o", color=colour, ecolor=GREY, capsize=3)
        axes.annotate(str(place), (point["seconds"], point["f1"]), xytext=(5, 6), textcoords="offset points")
    names = "\n".join(f"{place}  {point['title']}" for place, point in enumerate(points))
    axes.annotate(names, (1.02, 0.5), xycoords="axes fraction", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(
        xlabel="segundos de los pasos (escala logarítmica)",
        ylabel="F1 medio de validación (0 a 1)",
        title="Calidad contra tiempo, peldaño a peldaño",
    )
    axes.plot([], [], "o", color=COLOURS[0], label="entrenado")
    axes.plot([], [], "o", color=COLOURS[5], label="misma función: su F1 es el del entrenado")
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    _reading(figure, reading(points))
    return figure


def training_gif(run: Run) -> Path | None:
    """Draw the training as a GIF from its history: loss by step and F1 by epoch, the last frame held.

    At most `GIF_FRAMES` frames and `GIF_SHARE` of the training time; None where the history is too short to show.
    """
    import imageio.v3 as imageio

    history = run.history()
    steps = _steps(history)
    if len(steps) < 2:
        return None
    budget = GIF_SHARE * run.facts["seconds"]["training"]
    started = time.perf_counter()
    last = _gif_frame(run, history, steps[-1]["step"], steps)
    each = time.perf_counter() - started
    count = int(np.clip(budget / each, 2, GIF_FRAMES))
    ends = np.unique(np.linspace(0, len(steps) - 1, count + 1).astype(int))[1:-1]
    frames = [_gif_frame(run, history, steps[end]["step"], steps) for end in ends] + [last]
    path = run.path / GIF
    with replacing(path) as fresh:
        imageio.imwrite(fresh, np.stack(frames), duration=[100] * (len(frames) - 1) + [3000], loop=0)
    return path


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG; raises `UserError` where the disk refuses."""
    with replacing(path) as fresh:
        figure.savefig(fresh, dpi=110)


def _gif_frame(run: Run, history: list[Mapping[str, Any]], until: int, steps: list[Mapping[str, Any]]) -> np.ndarray:
    """Return one frame, uint8 (height, width, 3): what was known after step `until`; axes are the whole training's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.2), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    shown = [line for line in steps if line["step"] <= until]
    _draw_loss(left, [line["step"] for line in shown], [line["loss"] for line in shown])
    left.set(xlim=(0, steps[-1]["step"]), ylim=(0, 1.05 * max(line["loss"] for line in steps)))
    steps_an_epoch = max(line["step"] for line in steps if line["epoch"] == 1)
    epochs = [line for line in history if "step" not in line]
    known = [line for line in epochs if line["epoch"] * steps_an_epoch <= until]
    for colour, head in zip(COLOURS, run.classes, strict=False):
        scores = [line[f"{head}_f1"] for line in known]
        label = f"{head} {scores[-1]:.2f}" if scores else head
        right.plot([line["epoch"] for line in known], scores, marker="o", color=colour, label=label)
    right.set(xlim=(0.5, len(epochs) + 0.5), ylim=(0, 1), xlabel="época", ylabel="F1 ponderado", title="Validación")
    right.legend(frameon=False, loc="lower right", fontsize=8)
    _plain(left), _plain(right)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _steps(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of the steps that have a loss; one that was not finite has none."""
    return [line for line in history if "step" in line and line["loss"] is not None]


def _draw_loss(axes: "Axes", steps: list[int], losses: list[float]) -> None:
    smooth, smoothed = losses[0], []
    for loss in losses:
        smooth += SMOOTHING * (loss - smooth)
        smoothed.append(smooth)
    axes.plot(steps, losses, color=COLOURS[5], linewidth=0.7, alpha=0.6, label="cada paso")
    axes.plot(steps, smoothed, color=COLOURS[0], linewidth=1.8, label="suavizada")
    axes.set(xlabel="paso del optimizador", ylabel="pérdida (nats)", title="Entrenamiento")
    axes.legend(frameon=False, fontsize=8)


def _figure(width: float, height: float, columns: int = 1) -> tuple["Figure", Any]:
    """Return a figure that is not pyplot's to show, and its axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    for one in np.atleast_1d(axes):
        _plain(one)
    plt.close(figure)  # the caller shows or saves it; pyplot would show it a second time
    return figure, axes


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _reading(figure: "Figure", text: str) -> None:
    figure.supxlabel(text, fontsize=9, color=GREY)
