"""Texts that almost repeat another: the cosine of their TF-IDF of character n-grams is at least `SIMILARITY`.

Two texts are compared only if they share one of their rarest n-grams: as many as leave a rest of the vector shorter
than `SIMILARITY`, which bounds the cosine of two texts that share none (prefix filtering; Bayardo, Ma and Srikant,
*Scaling up all pairs similarity search*, WWW 2007; Anastasiu and Karypis, *L2AP*, ICDE 2014). No pair is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data.canonical import normalise
from ocensa_nb.runtime.logs import progress

SIMILARITY = 0.9  # cosine; about one word of ten differs
CHARACTERS = (4, 4)  # longer n-grams are in fewer texts; 3 to 5 finds the same pairs
BLOCK = 256  # texts whose candidates are found at a time, to bound the memory
PAIRS = 20_000  # compared at a time
ROUNDING = 1e-6


@dataclass(frozen=True)
class NearDuplicates:
    """Which of the asked rows almost repeat a training row, and which training rows they repeat."""

    close: np.ndarray  # bool (asked,)
    nearest: np.ndarray  # int64 (asked,): the most similar training row, of a close one; -1 of others
    repeated: np.ndarray  # int64: the training rows that any asked row almost repeats


def find_near_duplicates(texts: Sequence[str], train: np.ndarray, asked: np.ndarray) -> NearDuplicates:
    """Find the asked rows that almost repeat a training row, without codes and numbers."""
    nearest, repeated = np.full(len(asked), -1), np.zeros(len(texts), bool)
    plain = [normalise(text) for text in texts]
    weighted = TfidfVectorizer(analyzer="char_wb", ngram_range=CHARACTERS, sublinear_tf=True, dtype=np.float32)
    try:
        vectors = weighted.fit_transform(plain)
    except ValueError:  # no text has an n-gram
        return NearDuplicates(nearest >= 0, nearest, train[:0])
    text_of = pd.factorize(np.array(plain, dtype=object))[0]
    known, of_asked = (rows[np.unique(text_of[rows], return_index=True)[1]] for rows in (train, asked))
    first, second, cosine = _similar(vectors, of_asked, known)
    order = np.lexsort((second, -cosine, first))
    _, best = np.unique(first[order], return_index=True)
    row_of = np.full(len(texts), -1)
    row_of[text_of[first[order][best]]] = second[order][best]
    nearest = row_of[text_of[asked]]
    repeated[text_of[second]] = True
    return NearDuplicates(nearest >= 0, nearest, train[repeated[text_of[train]]])


def _similar(
    vectors: sparse.csr_matrix, asked: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the similar pairs of asked and known rows, and their cosines."""
    rows_of = np.bincount(vectors.indices, minlength=vectors.shape[1])
    vectors = vectors[:, np.argsort(rows_of, kind="stable")]
    vectors.sort_indices()
    rarest = _rarest(vectors)
    known_rarest, pairs = rarest[known].T.tocsr(), [(asked[:0], known[:0], np.zeros(0))]
    for start in progress(range(0, len(asked), BLOCK), "Avisos casi iguales", "bloque"):
        block = asked[start : start + BLOCK]
        candidates = (rarest[block] @ known_rarest).tocoo()
        first, second = block[candidates.row], known[candidates.col]
        for part in (slice(pair, pair + PAIRS) for pair in range(0, len(first), PAIRS)):
            products = vectors[first[part]].multiply(vectors[second[part]])
            cosine = np.asarray(products.sum(axis=1)).ravel()
            near = cosine >= SIMILARITY
            pairs.append((first[part][near], second[part][near], cosine[near]))
    return tuple(map(np.concatenate, zip(*pairs, strict=True)))


def _rarest(vectors: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the first entries of each row: as many as leave a rest shorter than `SIMILARITY`."""
    sums, rarest = np.concatenate([[0.0], np.cumsum(vectors.data.astype(np.float64) ** 2)]), vectors.copy()
    rest = np.repeat(sums[vectors.indptr[1:]], np.diff(vectors.indptr)) - sums[:-1]  # of an entry and those after it
    rarest.data[rest < SIMILARITY**2 - ROUNDING] = 0
    rarest.eliminate_zeros()
    return rarest
