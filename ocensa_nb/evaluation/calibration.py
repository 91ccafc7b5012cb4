"""Calibration of confidences: temperature, calibration error, accuracy against coverage, and thresholds.

The confidence of a row is the probability of its predicted class. Rows with equal confidence are never separated, so
that no result depends on the order of the rows. Intervals of shares are Wilson's (*Probable inference, the law of
succession, and statistical inference*, JASA 22, 1927): they hold for few rows and for shares near 1.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logit
from scipy.stats import norm

COLDEST, HOTTEST = 0.05, 20.0  # temperatures
# Of the logarithm of the temperature, in the penalty that keeps it moderate if there are few rows or one class.
PRIOR_DEVIATION = 1.0
SMALLEST = 1e-6  # distance of a confidence from 0 and 1, so that its logit is finite
FLATTEST = 0.05  # slope of a confidence curve: it always rises, so that the order of the rows stays
TWO_SIDED, ONE_SIDED = float(norm.ppf(0.975)), float(norm.ppf(0.95))  # z of a 95 % interval, of a 95 % bound


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T for which softmax(logits / T) has the lowest negative log-likelihood; 1 without rows.

    The method is temperature scaling (Guo et al., *On calibration of modern neural networks*, ICML 2017), with the
    penalty (log T)² / 2 on the sum over the rows. It weighs as much as one row: with some hundred rows it has no
    effect, and with few rows, or rows that are all right, it keeps T near 1 instead of at a bound. Use rows that the
    model was not fitted on.
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


def fit_confidence(confidence: np.ndarray, correct: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve from the logit of a confidence to the chance of being right.

    A temperature cannot calibrate a model whose scores are not log-probabilities, such as one-against-rest SVMs with
    class weights, or a mixture: they promise too little at low confidence and too much at high confidence. This curve
    corrects both (Platt, *Probabilistic outputs for support vector machines*, 1999, on the predicted class only).
    A penalty of the weight of one row pulls it to the identity, (1, 0).
    """
    logits = logit(np.clip(np.asarray(confidence, np.float64), SMALLEST, 1 - SMALLEST))

    def loss(curve: np.ndarray) -> tuple[float, np.ndarray]:
        score = curve[0] * logits + curve[1]
        gap, away = expit(score) - correct, curve - (1, 0)
        likelihood_loss = (np.logaddexp(0, score) - correct * score).sum()
        return likelihood_loss + (away @ away) / 2, np.array([gap @ logits, gap.sum()]) + away

    best = minimize(loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=((FLATTEST, None), (None, None)))
    return float(best.x[0]), float(best.x[1])


def recalibrate(probabilities: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Return probabilities whose largest is on a confidence curve; the others of its row share the rest as before.

    The order of the classes of a row never changes: its confidence stays at least the share of the second class.
    """
    rows, top = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    others = probabilities.astype(np.float64)
    confidence = np.clip(others[rows, top], SMALLEST, 1 - SMALLEST)
    others[rows, top] = 0
    rest = others.sum(axis=1)
    others[rest == 0] = 1  # a confidence of exactly 1 leaves nothing to share: all share alike
    others[rows, top] = 0
    others /= others.sum(axis=1, keepdims=True)
    second = others.max(axis=1)
    wanted = np.maximum(expit(slope * logit(confidence) + intercept), (1 + SMALLEST) * second / (1 + second))
    others *= 1 - wanted[:, None]
    others[rows, top] = wanted
    return others.astype(probabilities.dtype)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy (Naeini et al., AAAI 2015), 0 to 1; NaN without rows.

    The bins have as equal numbers of rows as ties allow. Bins of equal width leave most of them nearly empty if a
    model is confident, and their error is more biased (Roelofs et al., *Mitigating bias in calibration error
    estimation*, AISTATS 2022).
    """
    if not len(confidence):
        return float("nan")
    bin_of_row = _equal_mass_bins(confidence, bins)
    gap = np.bincount(bin_of_row, correct, bins) - np.bincount(bin_of_row, confidence, bins)
    return float(np.abs(gap).sum() / len(confidence))


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Return the table of a reliability diagram, with the bins of `expected_calibration_error`.

    Columns: `from` and `to` (lowest and highest confidence of a bin), `confidence` (mean), `accuracy`, `low` and `high`
    (its Wilson interval of 95 %), `rows`. Bins without rows are left out.
    """
    confidence = np.asarray(confidence, np.float64)
    table = pd.DataFrame({"bin": _equal_mass_bins(confidence, bins), "confidence": confidence, "correct": correct})
    bins_with_rows = table.groupby("bin")
    lowest, highest = bins_with_rows["confidence"].min(), bins_with_rows["confidence"].max()
    right, rows = bins_with_rows["correct"].sum(), bins_with_rows["correct"].size()
    diagram = {
        "from": lowest,
        "to": highest,
        "confidence": bins_with_rows["confidence"].mean(),
        "accuracy": right / rows,
        "low": wilson(right, rows, -TWO_SIDED),
        "high": wilson(right, rows, TWO_SIDED),
        "rows": rows,
    }
    return pd.DataFrame(diagram).reset_index(drop=True)


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return the accuracy of the rows at or above each confidence that occurs, the highest first.

    Columns: `threshold`, `rows` (at or above it), `coverage` (their share), `accuracy`, and `low`, its lower bound
    (one-sided Wilson, 95 %).
    """
    thresholds, group = np.unique(np.asarray(confidence, np.float64), return_inverse=True)
    rows = np.bincount(group, minlength=len(thresholds))[::-1].cumsum()
    right = np.bincount(group, correct, len(thresholds))[::-1].cumsum()
    return pd.DataFrame(
        {
            "threshold": thresholds[::-1],
            "rows": rows,
            "coverage": rows / max(len(group), 1),
            "accuracy": right / rows,
            "low": wilson(right, rows, -ONE_SIDED),
        }
    )


def threshold_for(confidence: np.ndarray, correct: np.ndarray, target: float) -> float | None:
    """Return the lowest confidence from which on the lower bound of the accuracy reaches a target.

    The bound is Wilson's, one-sided, 95 %: with the target 0.9, at least 25 rows must be confident and right. The
    threshold is the best of many, so the rows it was chosen on flatter it: measure its accuracy on other rows.
    """
    curve = coverage_curve(confidence, correct)
    reached = curve.loc[curve["low"] >= target, "threshold"]
    return float(reached.iloc[-1]) if len(reached) else None


def wilson(right: np.ndarray | float, rows: np.ndarray | float, z: float) -> np.ndarray:
    """Return a bound of Wilson's interval of the share of right rows; NaN without rows.

    A negative standard normal quantile `z`, such as `-ONE_SIDED`, gives the lower bound, and a positive one the upper.
    """
    rows = np.where(np.asarray(rows) > 0, rows, np.nan)
    share = np.asarray(right, np.float64) / rows
    spread = np.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2)
    bound = np.clip((share + z**2 / (2 * rows) + z * spread) / (1 + z**2 / rows), 0.0, 1.0)
    return np.minimum(bound, share) if z < 0 else np.maximum(bound, share)  # rounding must not exclude the share


def _equal_mass_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each row, int64 (rows,): that of the middle rank of the rows with its confidence."""
    _, group, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    twice_the_middle = 2 * counts.cumsum() - counts
    return (twice_the_middle * bins // (2 * max(len(confidence), 1)))[group]
