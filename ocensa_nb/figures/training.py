"""Draw the figures of the notices and of a run. Each shows its units and a one-line reading, in Spanish."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocensa_nb.figures import style
from ocensa_nb.figures.animation import draw_losses, draw_scores, epoch_lines, step_lines
from ocensa_nb.figures.style import CARD, COLOURS, GREY, INK, NO_DATA, new_figure, read_as, share_colours, styled
from ocensa_nb.files.atomic import create_new
from ocensa_nb.models.tokens import recommend_max_length
from ocensa_nb.runs.run import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOP_CLASSES = 12  # of a confusion matrix, so that it is legible 700 pixels wide
MAX_NAMED_CLASSES = 60  # beyond, a figure with all of them names none
ENOUGH_ROWS = 10  # of a class, for its share of hits to mean anything
LABEL_LENGTH = 32  # maximum characters of a class name


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
    import seaborn as sns

    figure, axes = new_figure(8, 4)
    p95, p99 = np.percentile(lengths, [95, 99])
    recommended = recommend_max_length(lengths)
    sns.histplot(
        x=lengths,
        binwidth=2,
        binrange=(0, 2 * (int(lengths.max()) // 2 + 1)),
        color=COLOURS[0],
        alpha=0.85,
        edgecolor=CARD,
        ax=axes,
    )
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
    best = run.metrics["best_epoch"]
    right.axvline(best, color=GREY, linestyle=":", label=f"mejor época: {best}")
    draw_scores(right, run.classes, epoch_lines(history))
    monitor = run.config.monitor
    value = run.metrics["val"][monitor]
    read_as(figure, f"Se guardó la época {best}, la de mejor {monitor} en validación: {value:.3f}.")
    return figure


@styled
def class_sizes(sizes: "pd.Series", label: str) -> "Figure":
    """Return a bar chart of the notices of each class, the most frequent first.

    Parameters
    ----------
    sizes : Series of int
        Notices per class, the class names in the index.
    label
        Name of the label.

    Returns
    -------
    Figure
        One bar per class; those beyond `MAX_NAMED_CLASSES` are one bar together.
    """
    import pandas as pd
    import seaborn as sns

    sizes = sizes.sort_values(ascending=False, kind="stable")
    shown, rest = sizes[:MAX_NAMED_CLASSES], sizes[MAX_NAMED_CLASSES:]
    if len(rest):
        shown = pd.concat([shown, pd.Series({f"otras {len(rest)} clases": rest.sum()})])
    figure, axes = new_figure(7, 1.5 + 0.2 * len(shown))
    places = np.arange(len(shown))  # not the names: seaborn would average two that are equal
    sns.barplot(x=shown.to_numpy(), y=places, orient="h", color=COLOURS[0], saturation=1, ax=axes)
    axes.bar_label(axes.containers[0], [f"{count:,}" for count in shown], padding=3, fontsize=8)
    axes.set_yticks(places, [short(name) for name in shown.index], fontsize=8)
    axes.set(xlabel="avisos", ylabel="", title=f"Clases de {label}: {len(sizes)}", xlim=(0, 1.1 * shown.max()))
    axes.grid(False, axis="y")
    ratio = sizes.iloc[0] / max(sizes.iloc[-1], 1)
    few = int((sizes < ENOUGH_ROWS).sum())
    read_as(
        figure,
        f"La clase más frecuente tiene {ratio:,.0f} veces los avisos de la menos frecuente; {few} de las {len(sizes)} "
        f"tienen menos de {ENOUGH_ROWS}.",
    )
    return figure


@styled
def confusion(counts: "pd.DataFrame", title: str, all_classes: bool = False) -> "Figure":
    """Return the heat map of a confusion matrix, as percentages of each true class.

    Parameters
    ----------
    counts : DataFrame of shape (classes, classes), int64
        Notices by true class (rows) and predicted class (columns), the most frequent true class first.
    title
        Title of the figure.
    all_classes
        Whether to draw all classes, and not only the `TOP_CLASSES` most frequent. Without it, the predictions of any
        other class are one more column.

    Returns
    -------
    Figure
        With class names if at most `MAX_NAMED_CLASSES` are drawn, and percentages in the cells unless `all_classes`.
    """
    import seaborn as sns

    sizes = counts.sum(axis=1)
    drawn = len(counts) if all_classes else min(TOP_CLASSES, len(counts))
    shares = 100 * counts.div(sizes.where(sizes > 0), axis=0).to_numpy()  # NaN for a class that is only predicted
    columns = [short(name) for name in counts.columns[:drawn]]
    matrix = shares[:drawn, :drawn]
    if rest := len(counts) - drawn:
        matrix = np.column_stack([matrix, shares[:drawn, drawn:].sum(axis=1)])
        columns.append(f"otras {rest} clases")
        title = f"{title}, las {drawn} clases más frecuentes de {len(counts)}"
    rows = [f"{short(name)} ({size:,})" for name, size in sizes[:drawn].items()]
    few = drawn <= TOP_CLASSES
    named = drawn <= MAX_NAMED_CLASSES
    size = 9 if few else 7
    below = 1.5 + named * 0.0085 * size * max(map(len, columns))  # inches, of the names under the matrix
    figure, axes = new_figure(7 if few else 9, below + (max(2.2, 0.32 * drawn) if few else min(7.5, 3 + 0.1 * drawn)))
    sns.heatmap(
        matrix,
        vmin=0,
        vmax=100,
        cmap=share_colours(),
        annot=np.where(matrix >= 0.5, np.nan_to_num(matrix).round().astype(int).astype(str), "") if few else None,
        fmt="",
        annot_kws={"fontsize": size},
        linewidths=0.5 if few else 0,
        linecolor=NO_DATA,
        xticklabels=columns if named else False,
        yticklabels=rows if named else False,
        cbar_kws={"label": "% de la clase verdadera", "shrink": 0.8},
        ax=axes,
    )
    axes.set_facecolor(NO_DATA)
    axes.tick_params(length=0, labelsize=size)
    axes.tick_params("x", rotation=90)
    axes.tick_params("y", rotation=0)
    axes.set(xlabel="clase predicha", ylabel="clase verdadera (avisos)", title=title)
    axes.grid(False)
    read_as(figure, _weakest_class(counts, drawn))
    return figure


def _weakest_class(counts: "pd.DataFrame", drawn: int) -> str:
    """Return a Spanish reading of a confusion matrix: the worst recall of the first classes that have enough rows."""
    matrix, names = counts.to_numpy()[:drawn], list(counts.index)
    sizes = matrix.sum(axis=1)
    if sizes.max() < ENOUGH_ROWS:
        return f"Ninguna clase llega a {ENOUGH_ROWS} avisos: con tan pocos, estos porcentajes dicen poco."
    recall = np.divide(matrix.diagonal(), sizes, out=np.full(len(sizes), np.inf), where=sizes >= ENOUGH_ROWS)
    worst = int(recall.argmin())
    if recall[worst] == 1:
        return f"Todas las clases con {ENOUGH_ROWS} avisos o más se reconocen siempre."
    mistakes = matrix[worst].copy()
    mistakes[worst] = 0
    taken = int(mistakes.argmax())
    return (
        f"Con {ENOUGH_ROWS} avisos o más, la menos reconocida: «{short(names[worst])}», {100 * recall[worst]:.0f} % "
        f"de {sizes[worst]:,}; se confunde sobre todo con «{short(names[taken])}» ({mistakes[taken]:,})."
    )


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a new PNG; raise `UserError` if the file exists or cannot be written."""
    with create_new(path) as fresh, style.style():
        figure.savefig(fresh, dpi=110)


def short(name: object) -> str:
    """Return a class name cut to `LABEL_LENGTH`, its dollars escaped: matplotlib reads a formula between two."""
    text = str(name)
    return (text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…").replace("$", r"\$")
