"""How well each column of the file predicts a label by itself: a code may already say what is to be learnt."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from ocensa_nb.audit.rows import AuditRows, LabelRows
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import clipped, num
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.runtime.logs import progress
from ocensa_nb.training.field_choice import predict_by_value

FOLDS = 5
COLUMNS = ("columna", "en el texto", "valores", "F1", "exactitud")
NEARLY_ALL = 0.9  # F1 of a column that has nearly all of the label
MUCH = 0.1  # F1 over the most frequent class, of a column that has much of the label
SOME = 0.03
CLOSE = 0.05  # F1 below the simple model's that still counts as as good


def column_scores(data: AuditRows, seed: int) -> dict[str, pd.DataFrame]:
    """Score every column that is neither a label nor the description, for each label.

    A value, which may be empty, predicts its most frequent class in the other folds: an id, which never repeats, gains
    nothing.
    """
    taken = {data.file.columns[role] for role in ("descripcion", *data.labels)}  # the description is text, not a code
    cells = data.file.cells.drop(columns=list(taken))
    codes = {name: pd.factorize(values.str.strip())[0] for name, values in cells.items()}
    fold_of_text = np.random.default_rng(seed).permutation(data.groups.max() + 1) % FOLDS
    folds = fold_of_text[data.groups]
    shown = progress(data.labels, "Columnas que ya dicen la etiqueta", "etiqueta")
    return {head: _scores(data.labels[head], codes, folds, data.file.text_columns) for head in shown}


def _scores(label: LabelRows, codes: Arrays, folds: np.ndarray, text: Collection[str]) -> pd.DataFrame:
    labels, size, rows = label.labels, len(label.classes), []
    for name, every in codes.items():
        values = np.unique(every[label.rows], return_inverse=True)[1]
        if len(labels) and values.max() > 0:  # a column with one value says nothing
            flat = flat_metrics({"": labels}, {"": predict_by_value(values, labels, folds[label.rows], size)})
            rows.append((name, "sí" if name in text else "no", values.max() + 1, flat["_f1"], flat["_accuracy"]))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("F1", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def majority_f1(labels: np.ndarray) -> float:
    share = np.bincount(labels).max() / len(labels) if len(labels) else 0.0
    return float(share * 2 * share / (1 + share))


def column_sentence(head: str, scores: pd.DataFrame, majority: float, linear_f1: float) -> str:
    if scores.empty:
        return f"Ninguna columna dice por sí sola {head}."
    best = scores.iloc[0]
    name, f1 = clipped(best["columna"]), best["F1"]
    alone = f"Con solo «{name}» se acierta {head} el {100 * best['exactitud']:.0f} %"
    measure = f"(F1 {num(f1, 2)}; el modelo simple, {num(linear_f1, 2)}"
    if f1 >= NEARLY_ALL or (f1 >= majority + MUCH and f1 >= linear_f1 - CLOSE):
        return f"{alone} {measure}): lo demás casi no añade."
    return f"{alone} {measure}; la clase más frecuente, {num(majority, 2)})."
