"""Out-of-fold answers of the simple model, and the label errors that confident learning finds with them.

Source: Northcutt, Jiang and Chuang, *Confident learning: estimating uncertainty in dataset labels*, 2021. The authors'
package `cleanlab` is used if it is installed; without it, the first step of the method.
"""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import softmax

from ocensa_nb.audit.repeats import pairs_agreeing
from ocensa_nb.audit.rows import AuditRows
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.corrections import ID, RIGHT, TEXT
from ocensa_nb.data.splits import Arrays, split_rows
from ocensa_nb.errors import listed
from ocensa_nb.evaluation.calibration import fit_temperature
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.models.linear import LinearModel, Term
from ocensa_nb.runtime.logs import progress

FOLDS = 4  # each further one costs a fit per label
MOST_FITTED, OF_RARE = 20_000, 50  # rows that models are fitted to, and of each class at least: bounds time and memory
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


@dataclass(frozen=True)
class OutOfFold:
    """Answers of the simple model for every row, each from a fit without the row and without its repeated texts."""

    split: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    without: dict[str, dict[str, float]]

    def predicted(self, head: str) -> np.ndarray:
        return self.probabilities[head].argmax(axis=1)


def fold_rows(groups: np.ndarray, labels: Arrays, config: TrainConfig) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the split of a training, and the fold of each row, int64 (rows,); raises `UserError` for too few texts.

    Fold 0 is the validation and test rows of a training with the same seed, if no row lacks a label.
    """
    split = split_rows(groups, labels, config.val_size, config.test_size, config.seed)
    folds = np.zeros(len(groups), np.int64)
    train = split["train"]
    rng = np.random.default_rng(config.seed)
    _, first, member = np.unique(groups[train], return_index=True, return_inverse=True)
    shuffled = rng.permutation(len(first))
    hardest = max(labels.values(), key=lambda y: int(y.max()))
    order = shuffled[np.argsort(hardest[train][first[shuffled]], kind="stable")]  # every class in every fold
    fold_of_text = np.empty(len(first), np.int64)
    fold_of_text[order] = 1 + np.arange(len(first)) % (FOLDS - 1)
    folds[train] = fold_of_text[member]
    return split, folds


def sample_rows(labels: Arrays, seed: int) -> np.ndarray:
    """Return the rows that the audit fits models to, in order: all, or `MOST_FITTED` and some of each rare class."""
    rows = len(next(iter(labels.values())))
    order = np.random.default_rng(seed).permutation(rows)
    chosen = np.arange(rows) < MOST_FITTED
    for y in labels.values() if rows > MOST_FITTED else ():
        chosen |= pd.Series(y[order]).groupby(y[order]).cumcount().to_numpy() < OF_RARE
    return np.sort(order[chosen])


def predict_out(
    texts: Sequence[str],
    counts: sparse.csr_matrix,
    sample: np.ndarray,
    fields: pd.DataFrame,
    terms: Mapping[str, Sequence[Term]],
    labels: Arrays,
    split: Arrays,
    folds: np.ndarray,
    smaller: Arrays,
) -> OutOfFold:
    """Fit the simple model once per fold, and once per smaller training set, to those of its rows in the sample.

    `counts` has the n-grams of the sampled rows; `texts`, `fields`, `labels` and `folds`, an entry per row.
    """
    sizes = {head: int(y.max()) + 1 for head, y in labels.items()}
    used = np.unique(folds)
    jobs = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in used]
    jobs += [(train, np.flatnonzero(folds == 0)) for train in smaller.values()]

    place = np.full(len(folds), -1)
    place[sample] = np.arange(len(sample))

    def answer(job: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        train, asked = job[0][place[job[0]] >= 0], job[1]
        known = {head: y[train] for head, y in labels.items()}
        model = LinearModel.fit(counts[place[train]], known, sizes, fields.iloc[train], terms)
        if len(sample) == len(folds):
            return model.logits_of(counts[asked], fields.iloc[asked])
        return model.logits([texts[row] for row in asked], fields.iloc[asked])

    # One after another: liblinear has one random generator per process, so threads would not be reproducible.
    answers = [answer(job) for job in progress(jobs, "Modelo simple, por partes", "parte")]
    held_out = {head: y[folds == 0] for head, y in labels.items()}
    probabilities = {}
    for head, y in labels.items():
        logits = np.empty((len(y), sizes[head]), np.float32)
        for (_, asked), part in zip(jobs[: len(used)], answers, strict=False):
            logits[asked] = part[head]
        probabilities[head] = softmax(logits / fit_temperature(logits[sample], y[sample]), axis=1)
    without = {
        name: flat_metrics(held_out, {head: values.argmax(axis=1) for head, values in part.items()})
        for name, part in zip(smaller, answers[len(used) :], strict=True)
    }
    return OutOfFold(dict(split), probabilities, without)


def has_cleanlab() -> bool:
    return importlib.util.find_spec("cleanlab") is not None


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows with a likely wrong label, the least probable label first, int64."""
    if has_cleanlab():
        from cleanlab.filter import find_label_issues

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes with few rows, which the table of classes names
            rows = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
        return np.asarray(rows, np.int64)
    return confidently_other(labels, probabilities)


def confidently_other(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows that the confident joint counts as another class, the least probable label first, int64."""
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels]
    sizes = np.bincount(labels, minlength=probabilities.shape[1])
    # The mean probability of a class among the rows labelled so (equation 2 of the paper).
    thresholds = np.bincount(labels, of_label, minlength=len(sizes)) / np.maximum(sizes, 1)
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    counted = confident.argmax(axis=1)
    suspects = np.flatnonzero((confident.max(axis=1) >= 0) & (counted != labels))
    return suspects[np.argsort(of_label[suspects], kind="stable")]


def review_list(data: AuditRows, head: str, answers: OutOfFold) -> tuple[pd.DataFrame, int]:
    """Return at most `MOST_LISTED` notices to review, contradictions first, and the number of likely errors."""
    label, probabilities = data.labels[head], answers.probabilities[head]
    rows, labels, groups = label.rows, label.labels, data.groups[label.rows]
    classes = np.array(label.classes, dtype=object)
    of_label, guess = probabilities[np.arange(len(labels)), labels], probabilities.argmax(axis=1)
    disagrees = np.zeros(len(labels), bool)
    disagrees[find_label_errors(labels, probabilities)] = True
    contradicts = (np.bincount(groups)[groups] > 1) & (pairs_agreeing(groups, labels) < 1)
    suspects = np.flatnonzero(disagrees | contradicts)
    both = disagrees & contradicts
    suspects = suspects[np.lexsort((of_label[suspects], ~both[suspects]))][:MOST_LISTED]
    ids = data.file.ids.to_numpy()
    reasons = [[DISAGREES] * bool(disagrees[row]) + [CONTRADICTS] * bool(contradicts[row]) for row in suspects]
    table = pd.DataFrame(
        {
            "orden": np.arange(1, len(suspects) + 1),
            ID: ids[rows[suspects]],
            "actual": classes[labels[suspects]],
            "propuesta": classes[guess[suspects]],
            "conf_actual": of_label[suspects].astype(float),
            "conf_propuesta": probabilities.max(axis=1)[suspects].astype(float),
            "motivo": ["; ".join(reason) for reason in reasons],
            "mismo_texto": _others(suspects, ids[rows], groups, labels),
            RIGHT + head: "",
            TEXT: data.file.texts.to_numpy()[rows[suspects]],
        }
    )
    return table, int(disagrees.sum())


def _others(suspects: np.ndarray, ids: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return the ids of the notices with the text of each suspect and another label, at most `MOST_IDS` of each."""
    same = pd.Series(labels).groupby(groups).indices
    others = (rows[labels[rows] != labels[row]] for row in suspects for rows in [same[groups[row]]])
    return [listed(ids[rows], MOST_IDS) for rows in others]
