"""Draw how good predictions are: confusion and calibration."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ocensa_nb.errors import num
from ocensa_nb.evaluation.calibration import expected_calibration_error, reliability
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.figures.style import (
    COLOURS,
    ENOUGH_ROWS,
    GREY,
    NO_DATA,
    new_figure,
    read_as,
    share_colours,
    short,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOP_CLASSES, FONT_SIZE = 12, 9  # of a confusion matrix, so that it is legible 700 pixels wide


@styled
def confusion(counts: "pd.DataFrame", title: str) -> "Figure":
    """Return the heat map of a confusion matrix, as percentages of each true class.

    Parameters
    ----------
    counts : DataFrame of shape (classes, classes), int64
        Notices by true class (rows) and predicted class (columns), the most frequent true class first. Of more than
        `TOP_CLASSES`, the others are one column.
    """
    import seaborn as sns

    sizes = counts.sum(axis=1)
    drawn = min(TOP_CLASSES, len(counts))
    shares = 100 * counts.div(sizes.where(sizes > 0), axis=0).to_numpy()  # NaN for a class that is only predicted
    columns = [short(name) for name in counts.columns[:drawn]]
    matrix = shares[:drawn, :drawn]
    if rest := len(counts) - drawn:
        matrix = np.column_stack([matrix, shares[:drawn, drawn:].sum(axis=1)])
        columns.append(f"otras {rest} clases")
        title = f"{title}, las {drawn} clases más frecuentes de {len(counts)}"
    rows = [f"{short(name)} ({num(size)})" for name, size in sizes[:drawn].items()]
    below = 1.5 + 0.0085 * FONT_SIZE * max(map(len, columns))  # inches, of the names under the matrix
    figure, axes = new_figure(7, below + max(2.2, 0.32 * drawn))
    shown = np.where(matrix >= 0.5, np.nan_to_num(matrix).round().astype(int).astype(str), "")
    bar = {"label": "% de la clase verdadera", "shrink": 0.8}
    scale = {"vmin": 0, "vmax": 100, "cmap": share_colours(), "cbar_kws": bar}
    look = {"linewidths": 0.5, "linecolor": NO_DATA, "xticklabels": columns, "yticklabels": rows}
    sns.heatmap(matrix, annot=shown, fmt="", annot_kws={"fontsize": FONT_SIZE}, ax=axes, **scale, **look)
    axes.set_facecolor(NO_DATA)
    axes.tick_params(length=0, labelsize=FONT_SIZE)
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
        f"de {num(sizes[worst])}; se confunde sobre todo con «{short(names[taken])}» ({num(mistakes[taken])})."
    )


@styled
def reliability_diagram(test: Mapping[str, Predictions]) -> "Figure":
    """Return the accuracy against the calibrated confidence of each label.

    The rows were not used for the calibration. Bins of equal numbers of rows, with 95 % Wilson intervals.
    """
    figure, grid = new_figure(9, 3.7, columns=len(test))
    for axes, (head, part) in zip(np.atleast_1d(grid), test.items(), strict=True):
        table = reliability(part.confidence, part.correct)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
        reach = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
        look = {"color": COLOURS[0], "marker": "o", "markersize": 4, "linewidth": 1.5, "elinewidth": 0.8}
        axes.errorbar(table["confidence"], table["accuracy"], yerr=reach, **look)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confianza", ylabel="parte de aciertos")
        axes.set_title(f"{head}: error {num(expected_calibration_error(part.confidence, part.correct), 3)}")
    rows = len(next(iter(test.values())).labels)
    read_as(
        figure,
        "En la diagonal, la confianza es la parte de aciertos; por debajo, promete de más. El error es la distancia "
        f"media entre las dos, en {num(rows)} avisos.",
    )
    return figure
