"""The simple model's answers for notices that it was not fitted on, and what changes its score.

Each label is split on the rows that have it, together with the labels that have the same rows. The first of the folds
is the validation and test rows of a training on those rows and labels with the same seed, so the model that answers for
them has seen what that training would see. The other folds share its training rows. A training of several labels uses
the rows that have them all: its test rows are those of the audit only if no row lacks a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.splits import split_rows
from ocensa_nb.evaluation.calibration import fit_temperature
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.models.linear import LinearModel, count_ngrams
from ocensa_nb.runtime.logs import progress

FOLDS = 4  # each further one costs a fit: 4 audit 10,000 notices in 54 s


@dataclass(frozen=True)
class OutOfFold:
    """Answers of the simple model for every row, each from a fit without the row and without its repeated texts."""

    rows: np.ndarray
    split: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    without: dict[str, dict[str, float]]

    def predicted(self, head: str) -> np.ndarray:
        """Return the most probable class of each row, int64 (rows,)."""
        return self.probabilities[head].argmax(axis=1)

    def held_out(self) -> np.ndarray:
        """Return the positions of the validation and test rows of a training, in order."""
        return np.sort(np.concatenate([self.split["val"], self.split["test"]]))


def fold_rows(
    groups: np.ndarray, labels: Mapping[str, np.ndarray], config: TrainConfig
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the split of a training, and the fold of each row, int64 (rows,); raises `UserError` for too few texts."""
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


def predict_out(
    texts: Sequence[str],
    rows: np.ndarray,
    labels: Mapping[str, np.ndarray],
    split: Mapping[str, np.ndarray],
    folds: np.ndarray,
    smaller: Mapping[str, np.ndarray],
) -> OutOfFold:
    """Fit the simple model once per fold, and once per smaller training set."""
    sizes = {head: int(y.max()) + 1 for head, y in labels.items()}
    used = [fold for fold in range(FOLDS) if (folds == fold).any()]
    jobs = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in used]
    jobs += [(train, np.flatnonzero(folds == 0)) for train in smaller.values()]

    counts = count_ngrams(texts)

    def answer(job: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        train, asked = job
        model = LinearModel.fit_counts(counts[train], {head: y[train] for head, y in labels.items()}, sizes)
        return model.logits_of(counts[asked])

    # One after another: liblinear has one random generator per process, so threads would not be reproducible.
    answers = [answer(job) for job in progress(jobs, "Modelo simple, por partes", "parte")]
    held_out = {head: y[folds == 0] for head, y in labels.items()}
    probabilities = {}
    for head, y in labels.items():
        logits = np.empty((len(y), sizes[head]))
        for (_, asked), found in zip(jobs[: len(used)], answers, strict=False):
            logits[asked] = found[head]
        probabilities[head] = softmax(logits / fit_temperature(logits, y), axis=1)
    without = {
        name: flat_metrics(held_out, {head: values.argmax(axis=1) for head, values in found.items()})
        for name, found in zip(smaller, answers[len(used) :], strict=True)
    }
    return OutOfFold(rows, dict(split), probabilities, without)
