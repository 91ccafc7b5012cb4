"""Paired bootstrap of the models of a run: which is better on the test rows, and how certain that is.

The differences of F1 are computed on the same resampled test rows for every model (Efron & Tibshirani, *An
introduction to the bootstrap*, 1993, chapter 16), through the counts that F1 is made of; nothing is predicted again.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import sparse

RESAMPLES = 2_000
INTERVAL = (2.5, 97.5)  # percentiles
CHUNK = 4_000_000  # counts in memory at once
PAIRS = (("encoder", "linear"), ("blend", "encoder"), ("blend", "linear"))
MODEL_TITLES = {"encoder": "el codificador", "linear": "el modelo simple", "blend": "la mezcla"}
MODEL_NAMES = {"encoder": "codificador", "linear": "modelo simple", "blend": "mezcla"}  # in tables and figures
METRICS = ("f1", "f1_macro")


def compare(
    labels: Mapping[str, np.ndarray],
    predicted: Mapping[str, Mapping[str, np.ndarray]],
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return the differences of F1 between the models, per label, with their 95 % intervals.

    Parameters
    ----------
    labels
        True class indices, int64 (rows,), per label. Use rows that neither fitted nor selected a model.
    predicted
        Predicted class indices, per model (`encoder`, `linear`, `blend`; absent models are left out) and label.
    groups
        Group of each row, (rows,): rows with almost the same text, which are resampled together, because they tell
        less than as many different rows. None if every row is on its own.
    resamples
        Number of bootstrap samples.
    seed
        Of the resampling.

    Returns
    -------
    dict
        Label → pair, such as `encoder-linear` → `f1` and `f1_macro`, each with `difference` (first minus second),
        `low` and `high`; `same` (all predictions are equal); `sentence`, in Spanish. It can be written as JSON.
    """
    found: dict[str, dict[str, Any]] = {}
    pairs = [(a, b) for a, b in PAIRS if a in predicted and b in predicted]
    for head, truth in labels.items():
        if not len(truth):
            continue
        guesses = {model: predicted[model][head] for model in predicted}
        scores = bootstrap(truth, guesses, groups, resamples, seed)
        found[head] = {}
        for first, second in pairs:
            entry: dict[str, Any] = {
                metric: _interval(scores[first][metric] - scores[second][metric]) for metric in METRICS
            }
            entry["same"] = bool(np.array_equal(guesses[first], guesses[second]))
            entry["sentence"] = _sentence(head, first, second, entry)
            found[head][f"{first}-{second}"] = entry
    return found


def sentences(comparison: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the Spanish sentences of a comparison, by label and pair."""
    return [entry["sentence"] for pairs in comparison.values() for entry in pairs.values()]


def bootstrap(
    labels: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    groups: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Return weighted and macro F1 of every model on all rows and on the same bootstrap samples of them."""
    size = 1 + max(int(values.max()) for values in (labels, *predicted.values()))
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    units = int(unit.max()) + 1
    hits = {model: np.where(guess == labels, labels, -1) for model, guess in predicted.items()}
    columns = [labels, *(part for model, guess in predicted.items() for part in (guess, hits[model]))]
    per_unit = sparse.hstack([_class_counts(unit, column, units, size) for column in columns], format="csr").T
    counts = np.concatenate([(per_unit @ chosen).T for chosen in _draws(units, resamples, seed)])
    true, *rest = np.split(counts, len(columns), axis=1)
    return {
        model: dict(zip(METRICS, _f1(true, rest[2 * i], rest[2 * i + 1]), strict=True))
        for i, model in enumerate(predicted)
    }


def _class_counts(unit: np.ndarray, column: np.ndarray, units: int, size: int) -> sparse.csr_matrix:
    """Return how often each class is in a column of class indices, per unit, (units, size); -1 is no class."""
    rows = column >= 0
    return sparse.csr_matrix((np.ones(rows.sum()), (unit[rows], column[rows])), shape=(units, size))


def _draws(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each sample has each unit, float64 (units, samples); the first sample has each unit once."""
    yield np.ones((units, 1))
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // units)
    for start in range(0, resamples, step):
        samples = min(step, resamples - start)
        drawn = rng.integers(units, size=(samples, units)) + units * np.arange(samples)[:, None]
        yield np.bincount(drawn.ravel(), minlength=samples * units).reshape(samples, units).T.astype(np.float64)


def _f1(true: np.ndarray, guessed: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted and macro F1, (samples,), of counts per class, (samples, classes)."""
    either = true + guessed
    per_class = 2 * hits / np.maximum(either, 1)
    weighted = (per_class * true).sum(axis=1) / true.sum(axis=1)
    return weighted, per_class.sum(axis=1) / (either > 0).sum(axis=1)


def _interval(differences: np.ndarray) -> dict[str, float]:
    """Return the difference on all rows, which is the first, and the percentile interval of the others."""
    low, high = np.percentile(differences[1:], INTERVAL)
    return {"difference": float(differences[0]), "low": float(low), "high": float(high)}


def _sentence(head: str, first: str, second: str, entry: Mapping[str, Any]) -> str:
    """Return which of two models has the better weighted F1, by how much, and the interval."""
    f1, pair = entry["f1"], f"{MODEL_TITLES[first]} y {MODEL_TITLES[second]}"
    if entry["same"]:
        return f"En {head}, {pair} responden lo mismo en todos los avisos."
    if f1["high"] < 0:
        better, worse, values = second, first, (-f1["difference"], -f1["high"], -f1["low"])
    else:
        better, worse, values = first, second, (f1["difference"], f1["low"], f1["high"])
    difference, low, high = values
    shown = f"{signed(difference, plus=True)} ({signed(low)} a {signed(high)})"
    if low <= 0:
        return f"En {head}, {pair} no se distinguen: {shown}."
    return f"En {head}, {MODEL_TITLES[better]} va mejor que {MODEL_TITLES[worse]}: {shown}."


def signed(value: float, plus: bool = False) -> str:
    """Return a number with two decimals, or up to four if fewer show 0; with a minus sign, and never −0.00."""
    for decimals in (2, 3, 4):
        text = f"{abs(value):.{decimals}f}"
        if float(text):
            return f"{'−' if value < 0 else '+' if plus else ''}{text}"
    return "0.00"
