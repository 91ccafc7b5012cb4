"""Metrics of the predictions of a run, and their bootstrap: which model is better on the test rows.

Every model has the same resampled rows (Efron & Tibshirani, *An introduction to the bootstrap*, 1993, chapter 16).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from ocensa_nb.config import MEANS
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import num

RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)  # percentiles
CHUNK = 4_000_000  # counts in memory at once
PAIRS = (("encoder", "linear"), ("blend", "encoder"), ("blend", "linear"))
MODEL_TITLES = {"encoder": "el codificador", "linear": "el modelo simple", "blend": "la mezcla"}
MODEL_NAMES = {"encoder": "codificador", "linear": "modelo simple", "blend": "mezcla"}  # in tables and figures


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of one label on some rows, their confidence, and the true classes if they are known."""

    confidence: np.ndarray  # float (rows,): the probability of the predicted class
    predicted: np.ndarray  # class indices, int64 (rows,)
    labels: np.ndarray | None = None  # class indices, int64 (rows,)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels


Models = Mapping[str, Mapping[str, Predictions]]  # per model and label


def predictions_of(probabilities: Arrays, labels: Arrays | None = None) -> dict[str, Predictions]:
    """Return the predictions of each label, from probabilities (rows, classes) and true class indices (rows,)."""
    return {
        head: Predictions(shares.max(axis=1), shares.argmax(axis=1), labels[head] if labels else None)
        for head, shares in probabilities.items()
    }


def predicted_classes(scores: Arrays) -> dict[str, np.ndarray]:
    """Return the class with the highest logit or probability of each row, int64 (rows,), per label."""
    return {head: values.argmax(axis=1) for head, values in scores.items()}


def metrics_of(predictions: Mapping[str, Predictions]) -> dict[str, float]:
    return flat_metrics(
        {head: part.labels for head, part in predictions.items()},
        {head: part.predicted for head, part in predictions.items()},
    )


def flat_metrics(labels: Arrays, predicted: Arrays) -> dict[str, float]:
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


def weighted_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(f1_score(labels, predicted, average="weighted", zero_division=0))


def confusion_counts(labels: np.ndarray, predicted: np.ndarray) -> list[list[int]]:
    """Return the confusion counts of one head as triples [true, predicted, rows], without pairs that do not occur."""
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    return np.column_stack([pairs, counts]).tolist()


def compare(
    models: Models, groups: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the differences of F1 between the models, per label, with their 95 % intervals, in Spanish and as JSON.

    The rows must neither have fitted nor selected a model. Rows of a group, (rows,), have almost the same text and are
    resampled together. Label → pair, such as `encoder-linear` → `f1` and `f1_macro` (`difference`, first minus second,
    `low`, `high`), `same` (all predictions are equal) and `sentence`.
    """
    comparison: dict[str, dict[str, Any]] = {}
    pairs = [(first, second) for first, second in PAIRS if first in models and second in models]
    for head, any_model in next(iter(models.values())).items():
        if not len(any_model.labels):
            continue
        predicted = {model: predictions[head].predicted for model, predictions in models.items()}
        scores = bootstrap(any_model.labels, predicted, groups, resamples, seed)
        comparison[head] = {}
        for first, second in pairs:
            entry: dict[str, Any] = {
                metric: _interval(scores[first][metric] - scores[second][metric]) for metric in ("f1", "f1_macro")
            }
            entry["same"] = bool(np.array_equal(predicted[first], predicted[second]))
            entry["sentence"] = _sentence(head, first, second, entry)
            comparison[head][f"{first}-{second}"] = entry
    return comparison


def sentences(comparison: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [entry["sentence"] for pairs in comparison.values() for entry in pairs.values()]


def bootstrap(
    labels: np.ndarray,
    predicted: Arrays,
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    share: float = 1.0,  # below 1, the samples are smaller (m out of n bootstrap)
) -> dict[str, dict[str, np.ndarray]]:
    """Return `f1`, `f1_macro` and Cohen's `kappa` per model, (1 + resamples,): of all rows, then of each sample."""
    size = 1 + max(int(values.max()) for values in (labels, *predicted.values()))
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    units = int(unit.max()) + 1
    hits = {model: np.where(guess == labels, labels, -1) for model, guess in predicted.items()}
    columns = [labels, *(part for model, guess in predicted.items() for part in (guess, hits[model]))]
    per_unit = sparse.hstack([_class_counts(unit, column, units, size) for column in columns], format="csr").T
    drawn = max(1, round(share * units))
    counts = np.concatenate([(per_unit @ chosen).T for chosen in _draws(units, drawn, resamples, seed)])
    true, *rest = np.split(counts, len(columns), axis=1)
    return {model: _scores(true, rest[2 * i], rest[2 * i + 1]) for i, model in enumerate(predicted)}


def _class_counts(unit: np.ndarray, column: np.ndarray, units: int, size: int) -> sparse.csr_matrix:
    """Return how often each class is in a column of class indices, per unit, (units, size); -1 is no class."""
    rows = column >= 0
    return sparse.csr_matrix((np.ones(rows.sum()), (unit[rows], column[rows])), shape=(units, size))


def _draws(units: int, drawn: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each sample has each unit, float64 (units, samples); the first sample has each unit once."""
    yield np.ones((units, 1))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // units)
    for start in range(0, resamples, step):
        samples = min(step, resamples - start)
        chosen = rng.integers(units, size=(samples, drawn)) + units * np.arange(samples)[:, None]
        yield np.bincount(chosen.ravel(), minlength=samples * units).reshape(samples, units).T.astype(np.float64)


def _scores(true: np.ndarray, guessed: np.ndarray, hits: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores (samples,) of counts per class, (samples, classes)."""
    either, rows = true + guessed, true.sum(axis=1)
    per_class = 2 * hits / np.maximum(either, 1)
    chance = (true * guessed).sum(axis=1) / rows**2
    kappa = (hits.sum(axis=1) / rows - chance) / np.where(chance < 1, 1 - chance, 1)  # 0 if a single class remains
    return {
        "f1": (per_class * true).sum(axis=1) / rows,
        "f1_macro": per_class.sum(axis=1) / (either > 0).sum(axis=1),
        "kappa": kappa,
    }


def _interval(differences: np.ndarray) -> dict[str, float]:
    """Return the difference on all rows, which is the first, and the percentile interval of the others."""
    low, high = np.percentile(differences[1:], INTERVAL)
    return {"difference": float(differences[0]), "low": float(low), "high": float(high)}


def _sentence(head: str, first: str, second: str, entry: Mapping[str, Any]) -> str:
    if entry["same"]:
        return f"En {head}, {MODEL_TITLES[first]} y {MODEL_TITLES[second]} responden lo mismo en todos los avisos."
    difference, low, high = (entry["f1"][name] for name in ("difference", "low", "high"))
    if high < 0:  # the better model first
        first, second, difference, low, high = second, first, -difference, -high, -low
    shown = f"{signed(difference, plus=True)} ({signed(low)} a {signed(high)})"
    if low > 0:
        return f"En {head}, {MODEL_TITLES[first]} va mejor que {MODEL_TITLES[second]}: {shown}."
    return f"En {head}, {MODEL_TITLES[first]} y {MODEL_TITLES[second]} no se distinguen: {shown}."


def signed(value: float, plus: bool = False) -> str:
    """Return a number with two decimals, or up to four if fewer show 0; with a minus sign, and never −0,00."""
    for decimals in (2, 3, 4):
        if round(abs(value), decimals):
            return f"{'−' if value < 0 else '+' if plus else ''}{num(abs(value), decimals)}"
    return "0,00"
