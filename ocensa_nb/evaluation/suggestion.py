"""Suggestions: for a notice, the smallest set of classes that has the right one with a stated probability.

Split conformal prediction on the validation rows (Angelopoulos & Bates, *A gentle introduction to conformal
prediction*, 2021). The score of a class is one minus its probability (Sadinle et al., *Least ambiguous set-valued
classifiers*, JASA 2019). On 5 splits of real notices such a set has 2.1 modes and 5.6 causes in the mean; adaptive sets
(Romano et al., *Classification with valid and adaptive coverage*, NeurIPS 2020) have 3.1 and 6.4, and regularised ones
2.2 and 6.0.

Whatever is chosen, is chosen on validation rows, and measured on the test rows. A text that is repeated counts once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from sys import intern
from typing import Any

import numpy as np
import torch
from scipy.stats import beta

from ocensa_nb.config import AUTO, ENCODER, LINEAR
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.blend import Blend, apply
from ocensa_nb.evaluation.calibration import threshold_for
from ocensa_nb.files import tensors
from ocensa_nb.files.write import DECIMALS
from ocensa_nb.runs.manifest import LINEAR as FOLDER
from ocensa_nb.runs.run import Run

TARGET, LOWEST_TARGET, HIGHEST_TARGET = 0.9, 0.5, 0.99
CHOICES = 3  # classes that a person chooses from; a larger set needs a review
MOST_OPTIONS = 5  # of a label that is useful as a suggestion; and at most half of its classes
COLUMNS = ("pred", "conf", "top2", "top3", "conjunto", "decision")  # of a prediction, before the name of its label
SEPARATOR = " | "
ACCEPT, CHOOSE, REVIEW = "aceptar", "elegir", "revisar"
FEWEST_ROWS = 20  # test rows of a class, so that something is said of it
FAR = 0.05  # below the target: a class with less coverage is named, and answers that may be less accurate are reviewed
LEVEL = 0.05  # chance that a bound is wrong
FILE = f"{FOLDER}/rows.safetensors"
SIDES, MODELS = ("val", "test"), (ENCODER, LINEAR)
MOST_ROWS = 5_000  # of a side: more would not move the thresholds


@dataclass(frozen=True)
class Rows:
    """Rows that fitted no model, of one label."""

    shares: np.ndarray  # calibrated probabilities, float32 (rows, classes)
    labels: np.ndarray  # class indices, int64 (rows,)
    groups: np.ndarray  # int64 (rows,): the same of rows that repeat a text

    @property
    def rank(self) -> np.ndarray:
        """The place of the right class among the most probable ones, from 0 on, int64 (rows,)."""
        return (ranked(self.shares) == self.labels[:, None]).argmax(axis=1)

    def count(self, right: np.ndarray, part: np.ndarray | slice = slice(None)) -> "Count":
        """Return how many rows of a part are right; `right`: bool (rows,)."""
        repeats = np.unique(self.groups[part], return_counts=True)[1]
        distinct = repeats.sum() ** 2 / max((repeats**2).sum(), 1)
        return Count(int(right[part].sum()), int(repeats.sum()), float(distinct))


@dataclass(frozen=True)
class Count:
    """Some rows that are right, of several."""

    right: int
    rows: int
    distinct: float  # rows that say as much if no text is repeated (Kish, *Survey sampling*, 1965): n² / Σ repeats²

    @property
    def share(self) -> float:
        return self.right / max(self.rows, 1)

    def bound(self, level: float) -> float:
        """Return a bound of the share (Clopper & Pearson, 1934): it is below with a chance of `level` at most."""
        right, upper = self.share * self.distinct, level > 0.5
        if right >= self.distinct if upper else not right:
            return float(upper)
        return float(beta.ppf(level, right + upper, self.distinct - right + 1 - upper))

    def record(self) -> dict[str, Any]:
        return {"rows": self.rows, "right": self.share, "low": self.bound(LEVEL)}


@dataclass(frozen=True)
class Suggestion:
    """What is suggested for a notice, of one label."""

    target: float
    probability: float  # from which on a class is in a set
    accept: float | None  # confidence from which on a prediction needs no review, if there is one
    options: int | None  # the likeliest classes that have the right one at the target, if that many are of use
    learnt: bool  # whether the predictions are more often right than always the most frequent class

    @classmethod
    def fit(cls, val: Rows, test: Rows, class_rows: np.ndarray, target: float = TARGET) -> "Suggestion":
        """Choose on validation rows, and keep what test rows confirm; `class_rows`: training rows, int64 (classes,)."""
        shares, rank = np.sort(class_rows)[::-1].cumsum() / class_rows.sum(), test.rank
        right = np.sort(val.shares[np.arange(len(val.labels)), val.labels])
        left_out = len(right) - int(np.ceil((len(right) + 1) * target - 1e-9))
        correct, confidence = val.rank == 0, val.shares.max(axis=1)
        accept = threshold_for(confidence, correct, target)
        if accept is not None:
            accept = 0.0 if accept <= confidence.min() else _rounded_up(accept)
            accepted = test.count(rank == 0, test.shares.max(axis=1) >= accept)
            # The same share without a model is no reason to accept an answer.
            sure = accepted.bound(LEVEL) > max(target - FAR, shares[0])
            accept = accept if accepted.share >= target and sure else None
        most = min(MOST_OPTIONS, len(class_rows) // 2)
        options = next((k for k in range(2, most + 1) if val.count(val.rank < k).bound(LEVEL) >= target), None)
        if options:
            found = test.count(rank < options)
            options = options if found.share >= target and found.bound(LEVEL) > shares[options - 1] else None
        probability = float(right[left_out]) if left_out >= 0 else 0.0
        return cls(target, probability, accept, options, test.count(rank == 0).bound(LEVEL) > shares[0])

    def sets(self, shares: np.ndarray) -> np.ndarray:
        """Return which classes are in the set of each notice, bool (rows, classes); never none."""
        members = shares >= self.probability
        members[np.arange(len(shares)), shares.argmax(axis=1)] = True
        return members

    def columns(self, shares: np.ndarray, classes: Sequence[str], reliable: bool = True) -> dict[str, Any]:
        """Return the columns of a prediction, (rows,) each; nothing is accepted or chosen if it is not `reliable`.

        Equal texts are one object.
        """
        order, names = ranked(shares), np.array([*classes, ""], dtype=object)
        members = np.take_along_axis(self.sets(shares), order, axis=1)
        second, third = (order[:, k] if k < len(classes) else np.full(len(order), -1) for k in (1, 2))
        return {
            "pred": names[order[:, 0]],
            "conf": shares.max(axis=1).astype(float).round(DECIMALS),
            "top2": names[second],
            "top3": names[third],
            "conjunto": [intern(SEPARATOR.join(names[row[held]])) for row, held in zip(order, members, strict=True)],
            "decision": self.decisions(shares) if reliable else np.full(len(order), REVIEW, object),
        }

    def decisions(self, shares: np.ndarray) -> np.ndarray:
        """Return `ACCEPT`, `CHOOSE` or `REVIEW` for each notice, (rows,)."""
        accepted = shares.max(axis=1) >= (2 if self.accept is None else self.accept)
        few = (self.sets(shares).sum(axis=1) <= CHOICES) & self.learnt
        return np.array([REVIEW, CHOOSE, ACCEPT], dtype=object)[np.where(accepted, 2, few)]

    def measure(self, rows: Rows, classes: Sequence[str]) -> dict[str, Any]:
        """Return what a suggestion is worth on rows that did not choose it; metrics.json, shares from 0 to 1."""
        members, decisions, rank = self.sets(rows.shares), self.decisions(rows.shares), rows.rank
        covered, predicted = members[np.arange(len(rank)), rows.labels], rows.shares.argmax(axis=1)
        sets, accepted, classes_of = rows.count(covered), decisions == ACCEPT, list(enumerate(classes))
        by_class = {name: rows.count(covered, rows.labels == i) for i, name in classes_of}
        trusted = {name: rows.count(rank == 0, accepted & (predicted == i)) for i, name in classes_of}
        enough = {name: part for name, part in by_class.items() if part.rows >= FEWEST_ROWS}
        return {
            "target": self.target,
            "distinct": sets.distinct,
            "all": rows.count(rank == 0).record(),
            "accepted": rows.count(rank == 0, accepted).record(),
            "chosen": rows.count(covered, decisions == CHOOSE).record(),
            "options": rows.count(rank < (self.options or 1)).record(),
            "top": [float((rank < k).mean()) for k in range(1, MOST_OPTIONS + 1)],
            "sets": sets.record(),
            "interval": [sets.bound(LEVEL / 2), sets.bound(1 - LEVEL / 2)],
            "size": float(members.sum(axis=1).mean()),
            "by_class": {name: part.share for name, part in by_class.items() if part.rows},
            "uncovered": {
                name: part.share for name, part in enough.items() if part.bound(1 - LEVEL / 2) < self.target - FAR
            },
            "trusted": {n: c.share for n, c in trusted.items() if c.rows >= FEWEST_ROWS and c.share >= self.target},
        }


def ranked(shares: np.ndarray) -> np.ndarray:
    """Return the classes of each row, the most probable first, int64 (rows, classes)."""
    return np.argsort(-shares, axis=1, kind="stable")


def require_target(target: float) -> None:
    if not LOWEST_TARGET <= target <= HIGHEST_TARGET:
        raise UserError(f"target = {target:g}: debe ser de {LOWEST_TARGET:g} a {HIGHEST_TARGET:g}; 0.9 es lo habitual.")


def _rounded_up(threshold: float) -> float:
    """Return a threshold with two decimals; one that would be 1 is rounded down to the decimals of predictions."""
    short = np.ceil(threshold * 100 - 1e-9) / 100
    return float(short if short < 1 else np.floor(threshold * 10**DECIMALS + 1e-9) / 10**DECIMALS)


@dataclass(frozen=True)
class Evidence:
    """The validation and test rows of a run, with which any target can be asked for; `RUN/linear/rows.safetensors`."""

    logits: dict[str, dict[str, dict[str, np.ndarray]]]  # float32 (rows, classes), per side, model and label
    labels: dict[str, dict[str, np.ndarray]]  # class indices, int64 (rows,), per side and label
    groups: dict[str, np.ndarray]  # int64 (rows,), per side: the same of rows that repeat a text

    @classmethod
    def read(cls, run: Run) -> "Evidence":
        """Return the rows of a finished run; raises `UserError` if their file is damaged."""
        kinds = {f"groups.{side}": (torch.int64, side) for side in SIDES}
        for side, (head, names) in product(SIDES, run.classes.items()):
            kinds[f"labels.{side}.{head}"] = torch.int64, side
            kinds |= {f"{model}.{side}.{head}": (torch.float32, side, len(names)) for model in MODELS}
        stored, _ = tensors.read_arrays(run.path / FILE, kinds)

        def of(kind: str, side: str) -> dict[str, np.ndarray]:
            return {head: stored[f"{kind}.{side}.{head}"] for head in run.classes}

        logits = {side: {model: of(model, side) for model in MODELS} for side in SIDES}
        labels = {side: of("labels", side) for side in SIDES}
        groups = {side: stored[f"groups.{side}"] for side in SIDES}
        for side, (head, names) in product(SIDES, run.classes.items()):
            if not 0 <= labels[side][head].min(initial=len(names)) <= labels[side][head].max(initial=0) < len(names):
                raise UserError(tensors.OTHER_RUN.format(path=run.path / FILE))
        return cls(logits, labels, groups)

    def write(self, run: Run) -> None:
        arrays = {f"groups.{side}": values for side, values in self.groups.items()}
        for side, by_model in self.logits.items():
            for kind, by_head in {"labels": self.labels[side], **by_model}.items():
                arrays |= {f"{kind}.{side}.{head}": values for head, values in by_head.items()}
        step = {side: -(-len(values) // MOST_ROWS) for side, values in self.groups.items()}
        thinned = {name: values[:: step[name.split(".")[1]]] for name, values in arrays.items()}
        tensors.write(run.path / FILE, {name: torch.from_numpy(values.copy()) for name, values in thinned.items()})

    def suggestions(
        self, blends: Mapping[str, Blend], class_rows: Arrays, source: str = AUTO, target: float = TARGET
    ) -> dict[str, tuple[Suggestion, Rows]]:
        """Return the suggestion of each label, and the test rows that it is measured on."""
        require_target(target)
        shares = {side: apply(blends, self.logits[side], source) for side in SIDES}
        fitted = {}
        for head, rows in class_rows.items():
            val, test = (Rows(shares[side][head], self.labels[side][head], self.groups[side]) for side in SIDES)
            fitted[head] = Suggestion.fit(val, test, rows, target), test
        return fitted
