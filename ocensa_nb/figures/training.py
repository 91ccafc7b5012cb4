"""Draw the notices, the learning curves of a run, and its training as a GIF, with units and a reading in Spanish."""

import base64
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocensa_nb.errors import num
from ocensa_nb.figures.style import (
    CARD,
    COLOURS,
    ENOUGH_ROWS,
    GREY,
    INK,
    MAX_NAMED_CLASSES,
    SMOOTHING,
    label_ticks,
    line_styles,
    new_figure,
    read_as,
    share_colours,
    short,
    style,
    styled,
)
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.models.tokens import recommend_max_length
from ocensa_nb.runs.run import GIF, Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Lines = Sequence[Mapping[str, Any]]  # lines of a history
GIF_SIZE = (9.0, 3.3)  # inches
GIF_FRAMES = 80
GIF_SHARE = 0.04  # maximum fraction of the training time spent on drawing, except for the first and last frames
FRAME_MS, HELD_MS = 100, 3000


@styled
def token_lengths(lengths: np.ndarray, max_length: int) -> "Figure":
    """Return the histogram of the tokens of each text, untruncated, with p95, p99 and the recommended `max_length`."""
    figure, axes = new_figure(8, 4)
    p95, p99 = np.percentile(lengths, [95, 99])
    recommended = recommend_max_length(lengths)
    axes.hist(lengths, np.arange(0, lengths.max() + 3, 2), color=COLOURS[0], alpha=0.85, edgecolor=CARD)
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
        figure, f"Con max_length = {max_length} se corta el {num(cut, 1)} % de los avisos; bastan {recommended} tokens."
    )
    return figure


@styled
def class_sizes(sizes: "pd.Series", label: str) -> "Figure":
    """Return a bar chart of the notices of each class; those beyond `MAX_NAMED_CLASSES` are one bar together."""
    import pandas as pd

    sizes = sizes.sort_values(ascending=False, kind="stable")
    shown, rest = sizes[:MAX_NAMED_CLASSES], sizes[MAX_NAMED_CLASSES:]
    if len(rest):
        shown = pd.concat([shown, pd.Series({f"otras {len(rest)} clases": rest.sum()})])
    figure, axes = new_figure(7, 1.5 + 0.2 * len(shown))
    rows = np.arange(len(shown))  # not the names: two may be equal
    axes.bar_label(axes.barh(rows, shown, color=COLOURS[0]), fmt=num, padding=3, fontsize=8)
    axes.set_yticks(rows, [short(name) for name in shown.index], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set(xlabel="avisos", ylabel="", title=f"Clases de {label}: {len(sizes)}", xlim=(0, 1.1 * shown.max()))
    axes.grid(False, axis="y")
    ratio = sizes.iloc[0] / max(sizes.iloc[-1], 1)
    few = int((sizes < ENOUGH_ROWS).sum())
    read_as(
        figure,
        f"La clase más frecuente tiene {num(ratio)} veces los avisos de la menos frecuente; {few} de las {len(sizes)} "
        f"tienen menos de {ENOUGH_ROWS}.",
    )
    return figure


@styled
def learning_curves(run: Run) -> "Figure":
    """Return the loss per step, raw and smoothed, beside the validation F1 of each head per epoch."""
    history = run.history()
    figure, (left, right) = new_figure(9, 4, columns=2)
    draw_losses(left, step_lines(history))
    best, monitor = run.metrics["best_epoch"], run.config.monitor
    right.axvline(best, color=GREY, linestyle=":", label=f"mejor época: {best}")
    draw_scores(right, run.classes, epoch_lines(history))
    value = run.metrics["val"][monitor]
    read_as(figure, f"Se guardó la época {best}, la de mejor {monitor} en validación: {num(value, 3)}.")
    return figure


class TrainingAnimation:
    """Frames of a finished training, used inside `style()`; each redraws only the artists that change."""

    def __init__(self, run: Run, history: Lines) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.run, self.history, self.epochs = run, history, epoch_lines(history)
        self.head, self.kept = run.config.monitored_head, run.metrics["best_epoch"]
        self.figure = Figure(figsize=GIF_SIZE, layout="constrained")
        self.canvas = FigureCanvasAgg(self.figure)
        left, middle, right = self.figure.subplots(1, 3)
        self.losses = draw_losses(left, step_lines(history))
        self.scores = draw_scores(middle, run.classes, self.epochs)
        self.mark = middle.axvline(self.kept, color=GREY, linestyle=":")
        self.image = right.imshow(self._shares({}), cmap=share_colours(), vmin=0, vmax=1)
        right.set(xlabel="clase predicha", ylabel="clase verdadera", xticks=[], yticks=[])
        right.set_title(f"Confusión: {self.head} (validación)")
        right.spines[:].set_visible(True)
        self.figure.colorbar(self.image, label="fracción de la clase verdadera", ticks=[0, 0.5, 1], shrink=0.75)
        self.caption = self.figure.supxlabel(" ", fontsize=10)
        label_ticks(self.figure)
        edges = right.spines.values()  # an image is drawn over its edges
        self.moving = [*self.losses, *self.scores, self.mark, middle.get_legend(), self.image, *edges, self.caption]
        self.whole = {line: line.get_xydata().T for line in (*self.losses, *self.scores)}
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas.draw()
        self.still = self.canvas.copy_from_bbox(self.figure.bbox)

    def frame(self, known: int) -> np.ndarray:
        steps, epochs = step_lines(self.history[:known]), epoch_lines(self.history[:known])
        ended = known == len(self.history)
        shown = next((line for line in reversed(epochs) if not ended or line["epoch"] == self.kept), {})
        caption = f"Época {min(len(epochs) + 1, len(self.epochs))} de {len(self.epochs)}"
        if ended:
            caption = (
                f"Se guardó la época {self.kept}, la de mejor {self.run.config.monitor} en validación: es la que se ve."
            )
        self.caption.set_text(caption)
        self.mark.set_visible(ended)
        for lines, count in ((self.losses, len(steps)), (self.scores, len(epochs))):
            for line in lines:
                line.set_data(self.whole[line][:, :count])
        for text, head in zip(self.scores[0].axes.get_legend().get_texts(), self.run.classes, strict=True):
            text.set_text(f"{head} {num(shown[f'{head}_f1'], 2)}" if shown else head)
        self.image.set_data(self._shares(shown))
        self.canvas.restore_region(self.still)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()

    def _shares(self, epoch: Mapping[str, Any]) -> np.ndarray:
        """Return an epoch's confusion matrix (classes, classes), normalised by row; NaN for classes without rows."""
        size = len(self.run.classes[self.head])
        counts = np.zeros((size, size))
        for true, predicted, rows in epoch.get("confusion", []):
            counts[true, predicted] = rows
        total = counts.sum(axis=1, keepdims=True)
        return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def training_gif(run: Run) -> Path | None:
    """Write the GIF of a finished run into its folder; None if it has fewer than two steps with a loss or no epoch.

    The number of frames, from 2 to `GIF_FRAMES`, is limited by `GIF_SHARE` of the training time.
    """
    import imageio.v3 as iio

    history = run.history()
    if len(step_lines(history)) < 2 or not epoch_lines(history):
        return None
    deadline = time.perf_counter() + GIF_SHARE * run.metadata["seconds"]["training"]
    with style():
        film = TrainingAnimation(run, history)
        started = time.perf_counter()
        last = film.frame(len(history))
        iio.imwrite("<bytes>", last, extension=".gif")  # to time it: a frame is drawn, and then encoded
        now = time.perf_counter()
        count = int(np.clip((deadline - now) / (now - started), 2, GIF_FRAMES))
        frames = [film.frame(known) for known in np.linspace(0, len(history), count).astype(int)[:-1]]
    with atomic_write(run.path / GIF) as temporary:
        times = [*[FRAME_MS] * (count - 1), HELD_MS]
        iio.imwrite(temporary, [*frames, last], extension=".gif", duration=times, loop=0)
    return run.path / GIF


def embedded(gif: Path) -> str:
    """Return an HTML image with the GIF as base64; HTML copies of a notebook show no other kind of GIF."""
    return f'<img src="data:image/gif;base64,{base64.b64encode(gif.read_bytes()).decode()}" alt="El entrenamiento">'


def step_lines(history: Lines) -> Lines:
    """Return the lines of the steps that have a loss; a non-finite loss is stored as None."""
    return [line for line in history if "step" in line and line["loss"] is not None]


def epoch_lines(history: Lines) -> Lines:
    return [line for line in history if "step" not in line]


def draw_losses(axes: "Axes", steps: Lines) -> list["Line2D"]:
    import pandas as pd

    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    smoothed = pd.Series(losses).ewm(alpha=SMOOTHING, adjust=False).mean()
    drawn = [
        *axes.plot(numbers, losses, color=COLOURS[5], linewidth=0.7, alpha=0.6, label="cada paso"),
        *axes.plot(numbers, smoothed, color=COLOURS[0], linewidth=1.8, label="suavizada"),
    ]
    axes.set(xlabel="paso del optimizador", ylabel="pérdida (menos es mejor)", title="Entrenamiento")
    axes.set(xlim=(0, numbers[-1]), ylim=(0, 1.05 * max(losses)))
    axes.legend(loc="upper right")
    return drawn


def draw_scores(axes: "Axes", heads: Collection[str], epochs: Lines) -> list["Line2D"]:
    numbers = [line["epoch"] for line in epochs]
    drawn = [
        axes.plot(numbers, [line[f"{head}_f1"] for line in epochs], marker="o", markersize=4, label=head, **look)[0]
        for head, look in line_styles(heads).items()
    ]
    axes.set(xlabel="época", ylabel="F1 ponderado (0 a 1)", title="Validación")
    axes.set(xlim=(0.5, numbers[-1] + 0.5), ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    low = min(epochs[-1][f"{head}_f1"] for head in heads) < 0.45  # a curve would end behind the legend
    axes.legend(loc="upper left" if low else "lower right")
    return drawn
