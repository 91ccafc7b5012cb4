"""Predictions of a label, and their metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from ocensa_nb.config import MEANS


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of one label on some rows, their confidence, and the true classes if they are known."""

    confidence: np.ndarray  # float (rows,): the probability of the predicted class
    predicted: np.ndarray  # class indices, int64 (rows,)
    labels: np.ndarray | None = None  # class indices, int64 (rows,)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels


def predictions_of(
    probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray] | None = None
) -> dict[str, Predictions]:
    """Return the predictions of each label, from probabilities (rows, classes) and true class indices (rows,)."""
    return {
        head: Predictions(shares.max(axis=1), shares.argmax(axis=1), labels[head] if labels else None)
        for head, shares in probabilities.items()
    }


def predicted_classes(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the class with the highest logit or probability of each row, int64 (rows,), per label."""
    return {head: values.argmax(axis=1) for head, values in scores.items()}


def metrics_of(predictions: Mapping[str, Predictions]) -> dict[str, float]:
    return flat_metrics(
        {head: part.labels for head, part in predictions.items()},
        {head: part.predicted for head, part in predictions.items()},
    )


def flat_metrics(labels: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the flat metrics of every head: `causa_f1` (weighted), `causa_f1_macro`, `causa_accuracy` and so on.

    A class that is never predicted has precision 0. `f1` and `f1_macro` are the means over the heads.
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
    """Return the confusion counts of one head as triples [true, predicted, rows], without pairs that do not occur."""
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts]).tolist()
