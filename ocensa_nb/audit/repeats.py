"""Repeated texts: different labels bound the score."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ocensa_nb.evaluation.metrics import flat_metrics

ENOUGH_TEXTS = 20  # repeated texts, to say how often notices with the same text agree
RESAMPLES = 1_000


@dataclass(frozen=True)
class Repeats:
    """How the labels of the notices that repeat a text agree."""

    texts: int
    rows: int
    contradictory_texts: int
    contradictory_rows: int
    accuracy: float
    f1: float
    f1_macro: float
    agreement: float | None
    ceiling: tuple[float, float, float] | None


def find_repeats(labels: np.ndarray, groups: np.ndarray, seed: int) -> Repeats:
    groups = np.unique(groups, return_inverse=True)[1]
    of_text = pd.Series(labels).groupby(groups)
    sizes, kinds = of_text.size().to_numpy(), of_text.nunique().to_numpy()
    same, repeated = pairs_agreeing(groups, labels), sizes > 1
    # The most frequent label of each text; of several, the most frequent of the file.
    frequency = np.bincount(labels)[labels]
    order = np.lexsort((labels, frequency, same, groups))
    flat = flat_metrics({"": labels}, {"": labels[order[sizes.cumsum() - 1]][groups]})
    agreement = ceiling = None
    if repeated.sum() >= ENOUGH_TEXTS:
        agreeing = np.bincount(groups, same)[repeated]  # sum over the rows of each repeated text
        rows = sizes[repeated]
        agreement = float(agreeing.sum() / rows.sum())
        rng, bounds = np.random.default_rng(seed), []
        for _ in range(RESAMPLES):  # one at a time, to bound the memory
            drawn = rng.integers(0, len(rows), len(rows))
            bounds.append(np.sqrt(agreeing[drawn].sum() / rows[drawn].sum()))
        low, high = np.quantile(bounds, (0.025, 0.975))
        ceiling = (float(low), agreement**0.5, float(high))
    return Repeats(
        texts=int(repeated.sum()),
        rows=int(sizes[repeated].sum()),
        contradictory_texts=int((kinds > 1).sum()),
        contradictory_rows=int(sizes[kinds > 1].sum()),
        accuracy=flat["_accuracy"],
        f1=flat["_f1"],
        f1_macro=flat["_f1_macro"],
        agreement=agreement,
        ceiling=ceiling,
    )


def pairs_agreeing(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of the other rows of its text that have the label of each row, float64; 0 if there are none."""
    rows = pd.DataFrame({"text": groups, "label": labels})
    alike, every = (rows.groupby(by)["text"].transform("size") for by in (["text", "label"], ["text"]))
    return ((alike - 1) / (every - 1)).fillna(0.0).to_numpy()
