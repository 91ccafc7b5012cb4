"""The labels of notices: classes and their indices, with rare classes merged into «Other»."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ocensa_nb.data.report import DataReport
from ocensa_nb.errors import UserError, num

OTHER = "Other"
MIN_ROWS = 10
FEWEST_CLASSES = 6  # a label with fewer has no class to spare: a rare priority is not «other»


def encode_labels(
    names: pd.DataFrame, least: int, source: str
) -> tuple[dict[str, np.ndarray], dict[str, list[str]], dict[str, tuple[str, dict[str, int]]]]:
    """Return the class index of each row, the class names, and the rare classes that were merged, per label.

    Raises `UserError`, which names `source`, if there are too few rows, or a label has a single class.
    """
    if len(names) < MIN_ROWS:
        raise UserError(
            f"{source}: quedan {len(names)} filas con texto y etiquetas, y hacen falta al menos {MIN_ROWS} "
            "para entrenar, validar y probar (unos cientos para que sirva de algo)."
        )
    labels, classes, joined = {}, {}, {}
    for head in names:
        column, other, rare = join_rare(names[head], least)
        if rare:
            joined[head] = other, rare
        classes[head] = sorted(column.unique())
        if len(classes[head]) < 2:
            raise UserError(
                f"{source}: la etiqueta «{head}» tiene una sola clase, «{classes[head][0]}», en las {num(len(names))} "
                f"filas útiles: no hay nada que aprender. Use otra columna (columns) o quite «{head}» de heads."
            )
        labels[head] = pd.Categorical(column, categories=classes[head]).codes.astype(np.int64)
    return labels, classes, joined


def join_rare(labels: pd.Series, least: int) -> tuple[pd.Series, str, dict[str, int]]:
    """Merge classes with fewer than `least` rows into «Other», or keep them if the label has few classes.

    Returns the labels, the name of «Other», and the rows of each merged class.
    """
    counts = labels.value_counts()
    if len(counts) < FEWEST_CLASSES:
        return labels, OTHER, {}
    other = next((name for name in counts.index if name == OTHER or name.startswith(f"{OTHER} (")), OTHER)
    rare = {str(name): int(count) for name, count in counts.items() if count < least and name != other}
    return labels.where(~labels.isin(rare), other), other, rare


def require_labels(report: DataReport, heads: Sequence[str]) -> None:
    """Raise `UserError` if most texts have no label, which usually means that the wrong column was used."""
    texts = report.rows - report.left_out - report.without_text
    worst = max(heads, key=lambda head: report.without_label[head])
    if report.without_label[worst] > texts / 2:
        raise UserError(
            f"{report.source}: la etiqueta «{worst}» (columna «{report.columns[worst]}») está vacía en "
            f"{num(report.without_label[worst])} de {num(texts)} filas con texto. Si la etiqueta está en otra columna, "
            f"diga cuál con columns (p. ej. --columns {worst} «nombre»); si es esa, deje solo las filas que la tienen. "
            f"{report.reading[0]}"
        )
