"""Draw how good predictions are: confusion, calibration, and accuracy against coverage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ocensa_nb.errors import num
from ocensa_nb.evaluation.calibration import coverage_curve, expected_calibration_error, reliability
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.figures.style import (
    COLOURS,
    ENOUGH_ROWS,
    GREY,
    INK,
    MAX_NAMED_CLASSES,
    NO_DATA,
    line_styles,
    new_figure,
    read_as,
    share_colours,
    short,
    styled,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOP_CLASSES = 12  # of a confusion matrix, so that it is legible 700 pixels wide
FEWEST_DRAWN = 20  # rows from which on a curve of accuracy is drawn: with fewer it jumps


@styled
def confusion(counts: "pd.DataFrame", title: str, all_classes: bool = False) -> "Figure":
    """Return the heat map of a confusion matrix, as percentages of each true class.

    Parameters
    ----------
    counts : DataFrame of shape (classes, classes), int64
        Notices by true class (rows) and predicted class (columns), the most frequent true class first.
    all_classes
        Whether to draw all classes, and not only the `TOP_CLASSES` most frequent and one column for the others.
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
    rows = [f"{short(name)} ({num(size)})" for name, size in sizes[:drawn].items()]
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
        f"de {num(sizes[worst])}; se confunde sobre todo con «{short(names[taken])}» ({num(mistakes[taken])})."
    )


@styled
def reliability_diagram(before: Mapping[str, Predictions], after: Mapping[str, Predictions]) -> "Figure":
    """Return the accuracy against the confidence of each label, before and after the calibration.

    The predictions are of rows that were not used for it. Bins of equal numbers of rows, with 95 % Wilson intervals.
    """
    figure, grid = new_figure(9, 3.7, columns=len(after))
    errors = {}
    for axes, head in zip(np.atleast_1d(grid), after, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
        errors[head] = []
        for answers, name, colour in ((before[head], "antes", COLOURS[1]), (after[head], "después", COLOURS[0])):
            table = reliability(answers.confidence, answers.correct)
            axes.errorbar(
                table["confidence"],
                table["accuracy"],
                yerr=[table["accuracy"] - table["low"], table["high"] - table["accuracy"]],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.5,
                elinewidth=0.8,
                label=name,
            )
            errors[head].append(expected_calibration_error(answers.confidence, answers.correct))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confianza", ylabel="parte de aciertos")
        axes.set_title("{}: error {} → {}".format(head, *(num(error, 3) for error in errors[head])))
        axes.legend(loc="lower right", title="calibración", title_fontsize=9)
    rows = len(next(iter(after.values())).labels)
    read_as(
        figure,
        "En la diagonal, la confianza es la parte de aciertos; por debajo, promete de más. El error es la distancia "
        f"media entre las dos, en {num(rows)} avisos.",
    )
    return figure


@styled
def accuracy_by_coverage(test: Mapping[str, Predictions], verdicts: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """Return the accuracy of the most confident notices against their share, one curve per label.

    The target is a horizontal line, and the threshold of each label (`verdict.judge`) a marker.
    """
    figure, axes = new_figure(7.5, 4.2)
    marked = []
    for head, line in line_styles(test).items():
        curve = coverage_curve(test[head].confidence, test[head].correct)
        shown = curve[curve["rows"] >= min(FEWEST_DRAWN, len(test[head].labels))]
        axes.plot(100 * shown["coverage"], 100 * shown["accuracy"], label=head, linewidth=2, **line)
        threshold = verdicts[head]["threshold"]
        above = test[head].confidence >= (2 if threshold is None else threshold)
        if above.any():
            point = 100 * above.mean(), 100 * test[head].correct[above].mean()
            axes.plot(*point, color=line["color"], marker="o", markersize=9, markeredgecolor=INK)
            confidence = f"confianza {num(threshold, 6, form='g')}"
            axes.annotate(confidence, point, (8, 6), textcoords="offset points", color=INK, fontsize=9)
            marked.append(f"{head}: {point[0]:.0f} % de los avisos con {point[1]:.0f} % de acierto")
    target = 100 * next(iter(verdicts.values()))["target"]
    axes.axhline(target, color=GREY, linestyle=":", label=f"objetivo: {target:.0f} %")
    axes.set(
        xlabel="cobertura: % de los avisos, los de más confianza primero",
        ylabel="% de aciertos entre ellos",
        title="Qué parte se puede usar sin revisión",
        xlim=(0, 100),
        ylim=(None, 101),
    )
    axes.legend()
    reading = "; ".join(marked) if marked else f"Con ninguna etiqueta se comprueba un {target:.0f} % de acierto"
    read_as(figure, f"{reading}. La confianza mínima, si la hay, se eligió en validación.")
    return figure
