"""Repeated and almost repeated texts: different labels bound the score, near-duplicates of training rows inflate it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data.canonical import normalise
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.runtime.logs import progress

ENOUGH_TEXTS = 20  # repeated texts, to say how often notices with the same text agree
RESAMPLES = 1_000
SIMILARITY = 0.9  # cosine; about one word of ten differs
CHARACTERS = (4, 4)  # longer n-grams are in fewer texts, so the products are sparse; 3 to 5 finds the same pairs
BLOCK = 256  # rows of one product


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
    sizes = np.bincount(groups)
    pairs, counts = np.unique(np.stack([groups, labels]), axis=1, return_counts=True)
    same = pairs_agreeing(groups, labels)
    kinds = np.bincount(pairs[0], minlength=len(sizes))
    repeated = sizes > 1
    flat = flat_metrics({"": labels}, {"": _majority(pairs, counts, labels)[groups]})
    agreement = ceiling = None
    if repeated.sum() >= ENOUGH_TEXTS:
        agreeing = np.bincount(groups, same)[repeated]  # sum over the rows of each repeated text
        rows = sizes[repeated]
        agreement = float(agreeing.sum() / rows.sum())
        drawn = np.random.default_rng(seed).integers(0, len(rows), (RESAMPLES, len(rows)))
        bounds = np.sqrt(agreeing[drawn].sum(axis=1) / rows[drawn].sum(axis=1))
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
    _, entry, counts = np.unique(np.stack([groups, labels]), axis=1, return_inverse=True, return_counts=True)
    _, text, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    others = sizes[text] - 1
    return np.divide(counts[entry.ravel()] - 1, others, out=np.zeros(len(groups)), where=others > 0)


def _majority(pairs: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the most frequent label of each text; of several, the most frequent of the file."""
    frequency = np.bincount(labels)[pairs[1]]
    order = np.lexsort((frequency, counts, pairs[0]))
    last = np.append(np.flatnonzero(np.diff(pairs[0][order])), len(order) - 1)
    return pairs[1][order[last]]


@dataclass(frozen=True)
class NearDuplicates:
    """How similar the asked rows and the training rows are."""

    similarity: np.ndarray
    nearest: np.ndarray
    repeated: np.ndarray

    @property
    def close(self) -> np.ndarray:
        """Whether each asked row is almost equal to a training row, bool (asked,)."""
        return self.similarity >= SIMILARITY


def find_near_duplicates(texts: Sequence[str], train: np.ndarray, asked: np.ndarray) -> NearDuplicates:
    """Compare every asked row with every training row: cosine of the TF-IDF vectors of character n-grams."""
    plain = [normalise(text) for text in texts]
    weighted = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTERS, sublinear_tf=True, dtype=np.float32)
    try:
        vectors = weighted.fit_transform(plain)
    except ValueError:  # no text has an n-gram
        return NearDuplicates(np.zeros(len(asked)), np.full(len(asked), train[0]), train[:0])
    known = vectors[train].T.tocsr()
    similarity, nearest, of_train = [], [], np.zeros(len(train), np.float32)
    for start in progress(range(0, len(asked), BLOCK), "Avisos casi iguales", "bloque"):
        products = vectors[asked[start : start + BLOCK]] @ known
        similarity.append(products.max(axis=1).toarray().ravel())
        nearest.append(train[np.asarray(products.argmax(axis=1)).ravel()])
        of_train = np.maximum(of_train, products.max(axis=0).toarray().ravel())
    return NearDuplicates(
        np.concatenate(similarity).astype(np.float64), np.concatenate(nearest), train[of_train >= SIMILARITY]
    )
