"""The F1 that a training will reach on its test rows, before it is trained.

A run predicts with the better of encoder and simple model, or their blend: it starts where the simple model ends.
"""

from dataclasses import dataclass

import numpy as np

from ocensa_nb.audit.columns import majority_f1
from ocensa_nb.audit.repeats import Repeats
from ocensa_nb.evaluation.comparison import bootstrap
from ocensa_nb.evaluation.metrics import flat_metrics

RESAMPLES = 500
INTERVAL = (0.025, 0.975)
# The part of the distance between the simple model and the ceiling that the blend gains in weighted F1. On 7,100 real
# notices (MiniLM, 8 epochs, splits 1 to 3): modo -0.06 to 0.05, causa 0.15 to 0.21, prioridad -0.04 to 0.04. Splits 4
# to 6 and the synthetic notices, which did not choose it: at most 0.17.
GAIN = 0.2
MACRO_LOSS = 0.05  # macro F1 that the blend lost at most on splits 1 to 3, for more weighted F1; it gained 0.02 at most


@dataclass(frozen=True)
class ExpectedF1:
    """Expected scores of one label on the test rows of a training."""

    f1: tuple[float, float]  # from the simple model's on an unlucky test set to what an encoder has added
    f1_macro: tuple[float, float]  # the lowest includes what the blend has lost
    linear_f1: float  # of the simple model on every row, out of fold
    linear_f1_macro: float
    linear_accuracy: float
    majority: float  # weighted F1 of always predicting the most frequent class
    # Whether the simple model's kappa is positive in at least 97.5 % of the resamples of the whole file: it agrees with
    # the labels more often than its predictions, shuffled, would (Cohen, *A coefficient of agreement for nominal
    # scales*, 1960). A constant answer has kappa 0.
    beats_chance: bool
    ceiling: float  # highest accuracy that notices with the same text allow, upper end of its interval; 1 if unknown
    test_rows: int


def expect_f1(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, test_rows: int, repeats: Repeats, seed: int
) -> ExpectedF1:
    """Return the expected range of F1: a bootstrap over texts, of as many rows as the test set (m out of n)."""

    def resampled(share: float) -> dict[str, np.ndarray]:
        return bootstrap(labels, {"linear": predicted}, groups, RESAMPLES, seed, share)["linear"]

    flat = flat_metrics({"": labels}, {"": predicted})
    _, best, ceiling = (1.0, 1.0, 1.0) if repeats.ceiling is None else repeats.ceiling
    gain = GAIN * max(0.0, best - flat["_f1"])
    test = resampled(test_rows / len(labels))
    (low, high), (macro_low, macro_high) = (np.quantile(test[name][1:], INTERVAL) for name in ("f1", "f1_macro"))
    return ExpectedF1(
        f1=(float(low), float(min(high + gain, repeats.f1, 1.0))),
        f1_macro=(float(max(macro_low - MACRO_LOSS, 0.0)), float(min(macro_high, repeats.f1_macro))),
        linear_f1=flat["_f1"],
        linear_f1_macro=flat["_f1_macro"],
        linear_accuracy=flat["_accuracy"],
        majority=majority_f1(labels),
        beats_chance=bool(np.quantile(resampled(1.0)["kappa"][1:], INTERVAL[0]) > 0),
        ceiling=ceiling,
        test_rows=test_rows,
    )
