"""Draw the F1 to expect, and write an audit with its figure and tables."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocensa_nb.errors import num
from ocensa_nb.figures.style import COLOURS, GREY, INK, new_figure, read_as, save, short, styled
from ocensa_nb.files.atomic import create_new
from ocensa_nb.runs.run import free_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ocensa_nb.audit.audit import Audit
    from ocensa_nb.audit.verdict import ExpectedF1


@styled
def expected_f1(expected: "dict[str, ExpectedF1]") -> "Figure":
    """Return the expected range of weighted F1 of each label, with the simple model and the most frequent class."""
    figure, axes = new_figure(8, 1.9 + 0.55 * len(expected))
    rows = np.arange(len(expected))
    ranges = list(expected.values())
    low, high = (np.array([one.f1[end] for one in ranges]) for end in (0, 1))
    ceilings = np.array([one.ceiling for one in ranges])
    repeated = ceilings < 1
    axes.barh(rows, high - low, left=low, height=0.45, color=COLOURS[0], alpha=0.45, label="F1 esperado en prueba")
    marks = {"s": 34, "zorder": 3}
    axes.scatter([one.linear_f1 for one in ranges], rows, color=INK, label="modelo simple", **marks)
    axes.scatter(
        [f1.majority for f1 in ranges], rows, color=GREY, marker="x", label="siempre la clase más frecuente", **marks
    )
    if repeated.any():
        look = {"color": COLOURS[1], "marker": "|", "s": 260, "linewidths": 2, "zorder": 3}
        label = "techo de los avisos que repiten un texto"
        axes.scatter(ceilings[repeated], rows[repeated], label=label, **look)
    for row, start, end in zip(rows, low, high, strict=True):
        label = f"{num(start, 2)} a {num(end, 2)}"
        axes.annotate(label, ((start + end) / 2, row - 0.25), ha="center", va="bottom", fontsize=8)
    axes.set_yticks(rows, [short(head) for head in expected])
    axes.set(xlim=(0, 1), ylim=(len(expected) - 0.4, -0.8), xlabel="F1 ponderado", title="Qué F1 esperar, por etiqueta")
    axes.grid(False, axis="y")
    figure.legend(loc="outside upper center", ncols=2)
    best = max(expected, key=lambda head: expected[head].f1[0])
    worst = min(expected, key=lambda head: expected[head].f1[1])
    reading = f"La que mejor se aprende: {best}." + (f" La peor: {worst}." if worst != best else "")
    read_as(figure, reading + " La franja incluye el azar de las filas de prueba y lo que puede añadir un codificador.")
    return figure


def save_audit(audit: "Audit", out: str | Path) -> Path:
    """Write the tables, lists for review and the figure of an audit to a new folder, which appears complete."""
    path = free_folder(out)
    with create_new(path) as folder:
        folder.mkdir()
        audit.write(folder)
        if audit.expected:
            save(expected_f1(audit.expected), folder / "expected_f1.png")
    return path
