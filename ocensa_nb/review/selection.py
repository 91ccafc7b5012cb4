"""Choose the notices that are most worth a person's time: uncertain, typical and different from each other.

Diverse batches by clustering (Zhdanov, *Diverse mini-batch active learning*, 2019): the least certain notices, by the
margin between their two likeliest classes (Settles, *Active learning literature survey*, 2009, sec. 3.1), are clustered
with k-means weighted by that uncertainty, and the notice nearest to each centre is chosen. Uncertainty alone chooses
the same notice many times over; the density of a notice, the other usual way, chooses what the model already knows.
`python -m tests.benchmarks.review` compares them.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data.canonical import normalise
from ocensa_nb.runtime.logs import progress

CANDIDATES = 5  # uncertain notices per notice that is chosen: Zhdanov's beta
SIMILAR = 0.8  # cosine of TF-IDF from which a notice repeats another one
DIMENSIONS = 64  # of the space in which they are clustered
BLOCK = 500  # notices compared at a time, to bound the memory
SEED = 0


def uncertainty(probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how uncertain each notice is: one minus the margin, mean of the labels; float64 (rows,), 0 to 1."""
    margins = []
    for values in probabilities.values():
        second, first = np.partition(values, -2, axis=1)[:, -2:].T
        margins.append(first.astype(float) - second)
    return 1 - np.mean(margins, axis=0)


def select(texts: Sequence[str], uncertain: np.ndarray, count: int, known: Collection[str] = frozenset()) -> np.ndarray:
    """Choose the notices to review; the same arguments give the same ones.

    Parameters
    ----------
    texts
        One per notice.
    uncertain : ndarray of shape (rows,)
        From `uncertainty`.
    count
        How many to choose.
    known
        Texts, from `data.text.normalise`, that need no review, such as those the model was trained on.

    Returns
    -------
    ndarray of shape (count,) or fewer, int64
        Rows, the most uncertain first. No two texts are similar, and none is known.
    """
    plain = [normalise(text) for text in progress(texts, "Comparando los avisos", "aviso")]
    order = np.argsort(-uncertain, kind="stable")
    order = np.array([row for row in order if plain[row] and plain[row] not in known], dtype=np.int64)
    if not len(order):
        return order
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+").fit_transform(plain)
    candidates = _distinct(order, vectors, CANDIDATES * count)
    if len(candidates) <= count:
        return candidates
    chosen = _cluster(candidates, vectors, uncertain, count)
    return chosen[np.argsort(-uncertain[chosen], kind="stable")]


def _distinct(order: np.ndarray, vectors: sparse.csr_matrix, count: int) -> np.ndarray:
    """Return the first `count` rows of an order that are not similar to an earlier one."""
    kept: list[int] = []
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        repeats = np.zeros(len(block), dtype=bool)
        if kept:
            repeats = (vectors[block] @ vectors[kept].T).max(axis=1).toarray().ravel() >= SIMILAR
        near = (vectors[block] @ vectors[block].T).toarray() >= SIMILAR
        fresh: list[int] = []
        for place in np.flatnonzero(~repeats):
            if not near[place, fresh].any():
                fresh.append(int(place))
        kept += block[fresh].tolist()
        if len(kept) >= count:
            break
    return np.array(kept[:count], dtype=np.int64)


def _cluster(candidates: np.ndarray, vectors: sparse.csr_matrix, uncertain: np.ndarray, count: int) -> np.ndarray:
    """Return the candidate nearest to the centre of each cluster, and the most uncertain others up to `count`."""
    own = vectors[candidates]
    if min(own.shape) > DIMENSIONS:
        own = TruncatedSVD(DIMENSIONS, random_state=SEED).fit_transform(own)
    else:
        own = own.toarray()
    own = own / np.linalg.norm(own, axis=1, keepdims=True).clip(min=1e-12)
    weights = uncertain[candidates].clip(min=1e-6)
    means = KMeans(count, n_init=1, random_state=SEED).fit(own, sample_weight=weights)
    distance = np.linalg.norm(own - means.cluster_centers_[means.labels_], axis=1)
    nearest: dict[int, int] = {}
    for place in np.argsort(distance, kind="stable"):
        nearest.setdefault(int(means.labels_[place]), int(place))
    others = [place for place in range(len(candidates)) if place not in set(nearest.values())]
    return candidates[[*nearest.values(), *others[: count - len(nearest)]]]
