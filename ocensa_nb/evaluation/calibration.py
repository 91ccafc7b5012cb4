"""Calibration of confidences, the probabilities of the predicted classes; rows with equal confidence stay together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit
from scipy.stats import norm

COLDEST, HOTTEST = 0.05, 20.0  # temperatures
# Of the logarithm of the temperature, in the penalty that keeps it moderate if there are few rows or one class.
PRIOR_DEVIATION = 1.0
SMALLEST = 1e-6  # distance of a confidence from 0 and 1, so that its logit is finite
FLATTEST = 0.05  # slope of a confidence curve: it always rises, so that the rows of a predicted class keep their order
TWO_SIDED, ONE_SIDED = float(norm.ppf(0.975)), float(norm.ppf(0.95))  # z of a 95 % interval, of a 95 % bound


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T for which softmax(logits / T) has the lowest negative log-likelihood; 1 without rows.

    Temperature scaling (Guo et al., *On calibration of modern neural networks*, ICML 2017), on rows that the model was
    not fitted on, with a penalty (log T)² / 2 of the weight of one row: it keeps T moderate if there are few.
    """
    if not len(labels):
        return 1.0
    logits = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        likelihood = log_softmax(logits / np.exp(log_temperature), axis=1)[rows, labels].sum()
        return (log_temperature / PRIOR_DEVIATION) ** 2 / 2 - likelihood

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))


def fit_confidence(
    confidence: np.ndarray, correct: np.ndarray, predicted: np.ndarray, size: int
) -> tuple[float, list[float]]:
    """Return slope and intercepts, one per predicted class, of the curve from confidence to the chance of being right.

    The curve is logistic, of the logit: it calibrates scores that are not log-probabilities, or are a mixture, which a
    temperature cannot (Platt, *Probabilistic outputs for support vector machines*, 1999). Some classes are more often
    right than others at the same confidence. A penalty of one row's weight pulls the slope to 1, the intercept to 0,
    and that of each class to the common one: a class with few rows has almost the common curve.
    """
    logits = logit(np.clip(np.asarray(confidence, np.float64), SMALLEST, 1 - SMALLEST))

    def loss(curve: np.ndarray) -> tuple[float, np.ndarray]:
        score, away = curve[0] * logits + curve[1] + curve[2:][predicted], curve - start
        gap = expit(score) - correct
        slopes = np.concatenate([[gap @ logits, gap.sum()], np.bincount(predicted, gap, size)])
        return (np.logaddexp(0, score) - correct * score).sum() + (away @ away) / 2, slopes + away

    start = np.concatenate([[1.0], np.zeros(1 + size)])
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(FLATTEST, None), *[(None, None)] * (1 + size)])
    return float(best.x[0]), (best.x[1] + best.x[2:]).tolist()


def recalibrate(probabilities: np.ndarray, slope: float, intercepts: Sequence[float] | float) -> np.ndarray:
    """Move the largest probability of each row to a confidence curve; the order of the classes of a row stays."""
    rows, top = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    others = probabilities.astype(np.float64)
    confidence = np.clip(others[rows, top], SMALLEST, 1 - SMALLEST)
    others[rows, top] = 0
    others[others.sum(axis=1) == 0] = 1  # a confidence of exactly 1 leaves nothing to share: all share alike
    others[rows, top] = 0
    others /= others.sum(axis=1, keepdims=True)
    second = others.max(axis=1)
    score = slope * logit(confidence) + np.broadcast_to(intercepts, probabilities.shape[1])[top]
    wanted = np.maximum(expit(score), (1 + SMALLEST) * second / (1 + second))
    others *= 1 - wanted[:, None]
    others[rows, top] = wanted
    return others.astype(probabilities.dtype)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy (Naeini et al., AAAI 2015), 0 to 1; NaN without rows."""
    if not len(confidence):
        return float("nan")
    # Bins of equal width are nearly empty for a confident model, and more biased (Roelofs et al., *Mitigating bias in
    # calibration error estimation*, AISTATS 2022).
    table = reliability(confidence, correct, bins)
    return float(np.average(np.abs(table["accuracy"] - table["confidence"]), weights=table["rows"]))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Return the table of a reliability diagram, with the bins of `expected_calibration_error` that have rows.

    Columns: `from` and `to` (confidence), `confidence` (mean), `accuracy`, its interval `low` and `high`, `rows`.
    """
    table = pd.DataFrame({"confidence": np.asarray(confidence, np.float64), "correct": correct})
    groups = table.groupby((table["confidence"].rank() - 0.5) * bins // max(len(table), 1))
    diagram = groups["confidence"].agg(**{"from": "min", "to": "max", "confidence": "mean"})
    right, rows = groups["correct"].sum(), groups["correct"].size()
    low, high = wilson(right, rows, -TWO_SIDED), wilson(right, rows, TWO_SIDED)
    return diagram.assign(accuracy=right / rows, low=low, high=high, rows=rows).reset_index(drop=True)


def threshold_for(confidence: np.ndarray, correct: np.ndarray, target: float) -> float | None:
    """Return the lowest confidence from which on the lower bound of the accuracy reaches a target."""
    # The best of many thresholds: the rows that it is chosen on flatter it. Measure its accuracy on other rows.
    thresholds, group = np.unique(np.asarray(confidence, np.float64), return_inverse=True)
    rows, right = (np.bincount(group, part, len(thresholds))[::-1].cumsum() for part in (None, correct))
    reached = thresholds[::-1][wilson(right, rows, -ONE_SIDED) >= target]
    return float(reached[-1]) if len(reached) else None


def wilson(right: np.ndarray | float, rows: np.ndarray | float, z: float) -> np.ndarray:
    """Return a bound of Wilson's interval of the share of right rows, for the normal quantile `z`; NaN without rows.

    A negative `z`, such as `-ONE_SIDED`, gives the lower bound. Source: *Probable inference, the law of succession, and
    statistical inference*, JASA 22, 1927; it holds for few rows and for shares near 1.
    """
    rows = np.where(np.asarray(rows) > 0, rows, np.nan)
    share = np.asarray(right, np.float64) / rows
    spread = np.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    bound = np.clip((share + z**2 / (2 * rows) + z * spread) / (1 + z**2 / rows), 0.0, 1.0)
    return np.minimum(bound, share) if z < 0 else np.maximum(bound, share)  # rounding must not exclude the share
