"""What can be left to the model: notices above each confidence, and the error to expect there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ocensa_nb.evaluation import calibration
from ocensa_nb.evaluation.calibration import TWO_SIDED

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the confidence
ALL = "todas a la vez"  # a row that is automated as a whole


@dataclass(frozen=True)
class Scored:
    """Predictions of rows with known labels."""

    confidence: dict[str, np.ndarray]
    right: dict[str, np.ndarray]


def automation(confidence: Mapping[str, np.ndarray], tested: Scored | None) -> pd.DataFrame:
    """Return how many notices have at least each confidence, and the error to expect among them.

    The error is that of the tested rows with at least that confidence. It holds for notices like those; the interval is
    Wilson's (*Probable inference, the law of succession, and statistical inference*, 1927), for the sampling alone.

    Parameters
    ----------
    confidence
        Probability of the predicted class of the notices, (rows,), per label.
    tested
        Rows with known labels that were not trained on; None if there are none.

    Returns
    -------
    DataFrame
        One row per label, and for all labels at once, and threshold; columns in Spanish. The error is from 0 to 1, and
        NaN without tested rows.
    """
    rows = []
    for head in [*confidence, *([ALL] if len(confidence) > 1 else [])]:
        own = _lowest(confidence) if head == ALL else confidence[head]
        for least in THRESHOLDS:
            count, wrong = _tested(head, least, tested) if tested else (0, 0)
            low, high = wilson(wrong, count)
            automatic = int((own >= least).sum())
            rows.append(
                {
                    "etiqueta": head,
                    "confianza mínima": least,
                    "avisos": automatic,
                    "parte de los avisos": automatic / max(len(own), 1),
                    "error esperado": wrong / count if count else np.nan,
                    "error, de": low,
                    "error, a": high,
                    "avisos de prueba": count,
                }
            )
    return pd.DataFrame(rows)


def wilson(wrong: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share; NaN if `count` is 0."""
    if not count:
        return np.nan, np.nan
    return float(calibration.wilson(wrong, count, -TWO_SIDED)), float(calibration.wilson(wrong, count, TWO_SIDED))


def _tested(head: str, least: float, tested: Scored) -> tuple[int, int]:
    """Return how many tested rows have at least a confidence, and how many of them are wrong."""
    confidence = _lowest(tested.confidence) if head == ALL else tested.confidence[head]
    right = np.all(list(tested.right.values()), axis=0) if head == ALL else tested.right[head]
    chosen = confidence >= least
    return int(chosen.sum()), int((chosen & ~right).sum())


def _lowest(confidence: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.min(list(confidence.values()), axis=0)
