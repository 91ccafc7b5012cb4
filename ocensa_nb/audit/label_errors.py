"""Likely label errors, from the simple model's answers for notices that it was not fitted on.

Confident learning (Northcutt, Jiang and Chuang, *Confident learning: estimating uncertainty in dataset labels*, 2021).
The package `cleanlab` by the same authors is used if it is installed; without it, the first step of the method.
"""

import importlib.util
import warnings

import numpy as np
import pandas as pd

from ocensa_nb.audit.out_of_fold import OutOfFold
from ocensa_nb.audit.repeats import pairs_agreeing
from ocensa_nb.audit.rows import AuditRows
from ocensa_nb.data.corrections import ID, RIGHT, TEXT
from ocensa_nb.errors import clipped

MOST_LISTED = 500  # notices of each label in the list for review
MOST_IDS = 20  # in a cell, which in Excel holds 32,767 characters
MISSING = (
    "cleanlab no está instalado: los posibles errores de etiqueta se buscan con un método propio, más simple. Para "
    'usarlo: pip install "cleanlab>=2.9"'
)
# The columns of a list for review, and what they are.
REVIEW_COLUMNS = {
    "orden": "1 es el aviso más sospechoso: empiece por ahí.",
    ID: "Número del aviso, o su fila en el archivo si no tiene número.",
    "actual": "La clase que tiene en el archivo.",
    "propuesta": "La clase que le da el modelo simple, ajustado sin ese aviso. No siempre es la correcta.",
    "conf_actual": "Probabilidad, de 0 a 1, que ese modelo da a la clase actual. Cuanto menor, más sospechosa.",
    "conf_propuesta": "La que da a la clase propuesta.",
    "motivo": "El modelo no está de acuerdo, el mismo texto tiene otra clase en otro aviso, o las dos cosas.",
    "mismo_texto": "Avisos con el mismo texto, sin contar códigos ni números, que tienen otra clase.",
    RIGHT + "…": "Vacía: escriba la clase correcta si la actual no lo es.",
    TEXT: "El texto que lee el modelo.",
}
DISAGREES, CONTRADICTS = "el modelo no está de acuerdo", "mismo texto con otra clase"


def has_cleanlab() -> bool:
    """Return whether the optional package is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows whose label is likely wrong, the least probable label first, int64."""
    if has_cleanlab():
        from cleanlab.filter import find_label_issues

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes with few rows, which the table of classes names
            found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
        return np.asarray(found, np.int64)
    return confidently_other(labels, probabilities)


def confidently_other(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows that the confident joint counts as another class, the least probable label first, int64.

    A row counts as the most probable of the classes whose probability reaches their threshold: the mean probability of
    the class among the rows labelled so (Northcutt, Jiang and Chuang 2021, equation 2).
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    sizes = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.bincount(labels, own, minlength=len(sizes)) / np.maximum(sizes, 1)
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    counted = confident.argmax(axis=1)
    suspects = np.flatnonzero((confident.max(axis=1) >= 0) & (counted != labels))
    return suspects[np.argsort(own[suspects], kind="stable")]


def review_list(data: AuditRows, head: str, answers: OutOfFold) -> pd.DataFrame:
    """Return the notices whose label is worth reviewing, at most `MOST_LISTED`.

    First those that contradict another notice with the same text and the model too, then the others, by the
    probability of their label.
    """
    found, probabilities = data.labels[head], answers.probabilities[head]
    rows, labels, groups = found.rows, found.labels, data.groups[found.rows]
    classes = np.array(found.classes, dtype=object)
    own, guess = probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1)
    disagrees = np.zeros(len(labels), bool)
    disagrees[find_label_errors(labels, probabilities)] = True
    contradicts = (np.bincount(groups)[groups] > 1) & (pairs_agreeing(groups, labels) < 1)
    listed = np.flatnonzero(disagrees | contradicts)
    both = disagrees & contradicts
    listed = listed[np.lexsort((own[listed], ~both[listed]))][:MOST_LISTED]
    ids = data.frame[ID].to_numpy()
    reasons = [[DISAGREES] * bool(disagrees[row]) + [CONTRADICTS] * bool(contradicts[row]) for row in listed]
    table = pd.DataFrame(
        {
            "orden": np.arange(1, len(listed) + 1),
            ID: ids[rows[listed]],
            "actual": classes[labels[listed]],
            "propuesta": classes[guess[listed]],
            "conf_actual": own[listed],
            "conf_propuesta": probabilities.max(axis=1)[listed],
            "motivo": ["; ".join(reason) for reason in reasons],
            "mismo_texto": _others(listed, ids[rows], groups, labels),
            RIGHT + head: "",
            TEXT: data.frame[TEXT].to_numpy()[rows[listed]],
        }
    )
    table.attrs["suspects"] = int(disagrees.sum())
    return table


def _others(listed: np.ndarray, ids: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return the ids of the notices with the text of each listed row and another label, at most `MOST_IDS` of each."""
    order = np.argsort(groups, kind="stable")
    starts, ends = (np.searchsorted(groups[order], groups[listed], side) for side in ("left", "right"))
    same = [order[start:end] for start, end in zip(starts, ends, strict=True)]
    return [_some(ids[rows[labels[rows] != labels[row]]]) for row, rows in zip(listed, same, strict=True)]


def _some(ids: np.ndarray) -> str:
    more = len(ids) - MOST_IDS
    return ", ".join(clipped(name) for name in ids[:MOST_IDS]) + (f" y {more:,} más" if more > 0 else "")
