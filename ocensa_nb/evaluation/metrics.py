"""Metrics of a set of predictions: flat, per head, and the confusion counts."""

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from ocensa_nb.config import MEANS


def flat_metrics(labels: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the flat metrics of every head: `causa_f1` (weighted), `causa_f1_macro`, `causa_accuracy` and so on.

    Averages are scikit-learn's; a class that is never predicted has precision 0. `f1` and `f1_macro` are the means over
    the heads.
    """
    flat = {}
    for head, truth in labels.items():
        guess = predicted[head]
        precision, recall, f1, _ = precision_recall_fscore_support(truth, guess, average="weighted", zero_division=0)
        flat[f"{head}_f1"] = float(f1)
        flat[f"{head}_f1_macro"] = float(f1_score(truth, guess, average="macro", zero_division=0))
        flat[f"{head}_accuracy"] = float(accuracy_score(truth, guess))
        flat[f"{head}_precision"] = float(precision)
        flat[f"{head}_recall"] = float(recall)
    return flat | {mean: float(np.mean([flat[f"{head}_{mean}"] for head in labels])) for mean in MEANS}


def confusion_counts(labels: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    """Return the confusion counts of one head as sparse triples [true, predicted, rows], in order of class.

    Pairs that do not occur are omitted; with about 40 classes most do not.

    Parameters
    ----------
    labels, predicted
        True and predicted class indices, int64 (rows,).
    """
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts]).tolist()
