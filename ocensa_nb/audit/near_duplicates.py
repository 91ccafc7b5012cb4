"""Near-duplicates: notices of validation and test that are almost equal to a training notice.

A split keeps notices together whose texts are equal after `normalise`. A word more or less separates them, and a test
notice that is almost a training notice is easier than a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.data.text import normalise
from ocensa_nb.runtime.logs import progress

SIMILARITY = 0.9  # cosine; about one word of ten differs
CHARACTERS = (4, 4)  # longer n-grams are in fewer texts, so the products are sparse; 3 to 5 finds the same pairs
BLOCK = 256  # rows of one product


@dataclass(frozen=True)
class NearDuplicates:
    """How similar the asked rows and the training rows are.

    Attributes
    ----------
    similarity
        Of each asked row to the most similar training text, 0 to 1, float64 (asked,).
    nearest
        The row of that text, int64 (asked,).
    repeated
        Training rows that are almost equal to an asked row, int64.
    """

    similarity: np.ndarray
    nearest: np.ndarray
    repeated: np.ndarray

    @property
    def close(self) -> np.ndarray:
        """Whether each asked row is almost equal to a training row, bool (asked,)."""
        return self.similarity >= SIMILARITY


def find_near_duplicates(texts: Sequence[str], train: np.ndarray, asked: np.ndarray) -> NearDuplicates:
    """Compare every asked row with every training row: cosine of the TF-IDF vectors of character n-grams.

    Parameters
    ----------
    texts
        Every text; equipment tags and numbers do not count.
    train, asked
        Row numbers, int64; at least one of each.
    """
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
