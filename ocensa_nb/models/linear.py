"""The linear model: TF-IDF of words and characters, and columns, with one linear SVM per label. In `RUN/linear`.

It is hard to beat on short technical texts (Joachims, *Text categorization with support vector machines*, 1998).
N-grams and the values of columns are hashed, so no vocabulary is stored.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError
from ocensa_nb.files import tensors
from ocensa_nb.runs.run import fits
from ocensa_nb.runtime.logs import progress

CHUNK = 2_048  # texts counted at a time: bounds the memory
HASHES = 2**20  # columns of each analyser before the selection, and of the terms
LEAST_ROWS = 2  # an n-gram of a single training row says nothing about another row
LARGEST_BYTES = 38_000_000  # of the file
ANALYSERS = {"word": (1, 2), "char_wb": (2, 5)}
TOLERANCE = 0.01  # with 0.0001 the F1 on real notices is the same and the fit takes a quarter longer
VALUES = 2 * HASHES  # where the hashed values of columns start
# Length of a value beside n-grams of length 1 for words and 1 for characters. On 7,100 real notices (2 splits) 0.3 to 2
# give the priority the same F1; with 1 for ten columns at once, the mode loses 0.04.
TERM_WEIGHT = 0.5
FIT_SEED = 0  # order of the coordinate descent; the solution hardly depends on it


Term = tuple[str, ...]  # the titles of a column, or of two whose values count together


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier over hashed n-grams and the values of columns, for all labels."""

    columns: np.ndarray  # int32 (features,): the hashed columns in use, of the two analysers and of the terms
    idf: np.ndarray  # float32 (features,): inverse document frequency of each n-gram, `TERM_WEIGHT` of a value
    weights: dict[str, np.ndarray]  # float32 (features, classes), per label
    biases: dict[str, np.ndarray]  # float32 (classes,), per label
    terms: dict[str, tuple[Term, ...]] = field(default_factory=dict)  # per label; the weights of others are 0

    @classmethod
    def fit(
        cls,
        counts: sparse.csr_matrix,
        labels: Arrays,
        sizes: Mapping[str, int],
        fields: pd.DataFrame | None = None,
        terms: Mapping[str, Sequence[Term]] = MappingProxyType({}),
    ) -> "LinearModel":
        """Fit the model to `count_ngrams` of texts, their class indices, int64 (rows,), and the number of classes.

        `fields` has the values of columns, canonical, and `terms` those that each label uses. Classes are weighted by
        the inverse of their rows; a class without rows is never predicted.
        """
        columns, idf = _select(counts, sum(sizes.values()))
        values = {head: count_values(fields, terms.get(head, ()), counts.shape[0]) for head in labels}
        used = {head: np.unique(part.indices) for head, part in values.items()}
        every = np.unique(np.concatenate(list(used.values())))
        ngrams = _weigh(counts[:, columns], columns, idf)

        # One after another: liblinear has one random generator per process, so threads would not be reproducible.
        weights, biases = {}, {}
        for head in progress(labels, "Modelo simple", "etiqueta"):
            features = sparse.hstack([ngrams, values[head][:, used[head]] * TERM_WEIGHT], format="csr")
            fitted, biases[head] = fit_classifier(features, labels[head], sizes[head])
            weights[head] = np.zeros((len(columns) + len(every), sizes[head]), np.float32)
            weights[head][np.r_[: len(columns), len(columns) + np.searchsorted(every, used[head])]] = fitted
        return cls(
            np.r_[columns, VALUES + every].astype(np.int32),
            np.r_[idf, np.full(len(every), TERM_WEIGHT)].astype(np.float32),
            weights,
            biases,
            {head: tuple(map(tuple, terms[head])) for head in labels if terms.get(head)},
        )

    @property
    def used_fields(self) -> list[str]:
        """The titles of the columns that any label uses."""
        return list(dict.fromkeys(title for terms in self.terms.values() for term in terms for title in term))

    def logits(self, texts: Sequence[str], fields: pd.DataFrame | None = None) -> dict[str, np.ndarray]:
        """Return the decision values, float32 (texts, classes), per label; a repeated text is computed once.

        `fields` has the canonical values of `used_fields`, a row per text; None if they are not known.
        """
        entry, distinct = pd.factorize(np.asarray(texts, dtype=object))
        of_distinct = self._of_ngrams(_count_in_chunks(distinct))
        return self._add_values({head: values[entry] for head, values in of_distinct.items()}, fields)

    def logits_of(self, counts: sparse.csr_matrix, fields: pd.DataFrame | None = None) -> dict[str, np.ndarray]:
        chunks = (counts[start : start + CHUNK] for start in range(0, counts.shape[0], CHUNK))
        return self._add_values(self._of_ngrams(chunks), fields)

    @property
    def _border(self) -> int:
        """Where the features of the columns' values start."""
        return int(np.searchsorted(self.columns, VALUES))

    def _of_ngrams(self, chunks: Iterable[sparse.csr_matrix]) -> dict[str, np.ndarray]:
        columns, parts = self.columns[: self._border], {head: [] for head in self.weights}
        for counts in chunks:
            features = _weigh(counts[:, columns], columns, self.idf[: self._border]).astype(np.float32)
            for head, values in parts.items():
                values.append(features @ self.weights[head][: self._border] + self.biases[head])
        return {head: np.concatenate(values) for head, values in parts.items()}

    def _add_values(self, logits: dict[str, np.ndarray], fields: pd.DataFrame | None) -> dict[str, np.ndarray]:
        for head, terms in self.terms.items():
            values = count_values(fields, terms, len(logits[head]))[:, self.columns[self._border :] - VALUES]
            logits[head] += TERM_WEIGHT * (values @ self.weights[head][self._border :])
        return logits

    def contributions(self, texts: Sequence[Sequence[str]]) -> dict[str, list[np.ndarray]]:
        """Return what each piece of a text adds to its decision values, float64 (pieces, classes), per label and text.

        A text is its pieces, joined by spaces. An n-gram of characters lies in one piece; one of two words counts for
        both halves. The sum over the pieces, plus the bias, is that of `logits`.
        """
        ends = np.cumsum([len(pieces) for pieces in texts])
        columns = self.columns[: self._border]
        grams = _count_in_pieces(texts)[:, columns]
        text_of = np.searchsorted(ends, np.arange(ends[-1]), side="right")
        members = sparse.csr_matrix((np.ones(ends[-1]), (text_of, np.arange(ends[-1]))), (len(texts), ends[-1]))
        counts = members @ grams
        features = _weigh(counts, columns, self.idf[: self._border])
        counts.data = 1 / counts.data
        shares = grams.multiply(features.multiply(counts).tocsr()[text_of])
        return {
            head: np.split(shares @ weights[: self._border].astype(float), ends[:-1])
            for head, weights in self.weights.items()
        }

    def value_contributions(self, fields: pd.DataFrame) -> dict[str, dict[Term, np.ndarray]]:
        """Return what the value of each term adds to the decision values of one row, float64 (classes,), per label."""
        own = self.columns[self._border :] - VALUES
        return {
            head: {
                term: TERM_WEIGHT * (count_values(fields, [term], 1)[:, own] @ self.weights[head][self._border :])[0]
                for term in terms
            }
            for head, terms in self.terms.items()
        }

    def known_share(self, texts: Sequence[str]) -> np.ndarray:
        """Return the share of the n-grams of each text that the model knows, float64 (texts,); 0 without any."""
        columns = self.columns[: self._border]
        parts = [(np.diff(part[:, columns].indptr), np.diff(part.indptr)) for part in _count_in_chunks(texts)]
        known, present = np.concatenate(parts, axis=1)
        return known / np.maximum(present, 1)

    def write(self, path: Path) -> None:
        arrays = {"columns": self.columns, "idf": self.idf}
        for head in self.weights:
            arrays |= {f"{head}.weights": self.weights[head], f"{head}.biases": self.biases[head]}
        tensors.write(path, {name: torch.from_numpy(values) for name, values in arrays.items()}, self.terms)

    @classmethod
    def read(cls, path: Path, sizes: Mapping[str, int]) -> "LinearModel":
        """Return the model of a file; raises `UserError` if it is missing, damaged or of other labels."""
        kinds = {"columns": (torch.int32, "features"), "idf": (torch.float32, "features")}
        for head, size in sizes.items():
            kinds |= {f"{head}.weights": (torch.float32, "features", size), f"{head}.biases": (torch.float32, size)}
        arrays, terms = tensors.read_arrays(path, kinds)
        columns = arrays["columns"]
        if not (
            0 <= columns.min(initial=VALUES) < VALUES  # one is of an n-gram, at least
            and columns.max() < VALUES + HASHES
            and (np.diff(columns) > 0).all()
            and fits(terms, {str: [[str]]})
            and terms.keys() <= sizes.keys()
            and all("".join(term).isprintable() for term in chain(*terms.values()))
        ):
            raise UserError(tensors.OTHER_RUN.format(path=path))
        weights, biases = ({head: arrays[f"{head}.{part}"] for head in sizes} for part in ("weights", "biases"))
        return cls(columns, arrays["idf"], weights, biases, {head: tuple(map(tuple, terms[head])) for head in terms})


def count_ngrams(texts: Sequence[str]) -> sparse.csr_matrix:
    """Return the count of each hashed n-gram in each text, float32 (texts, 2 * HASHES): 2 kB for 90 letters."""
    return sparse.vstack(list(_count_in_chunks(texts)), format="csr")


def _count_in_chunks(texts: Sequence[str]) -> Iterator[sparse.csr_matrix]:
    """Yield the counts of `CHUNK` texts at a time."""
    for start in range(0, max(len(texts), 1), CHUNK):
        chunk = texts[start : start + CHUNK]
        yield sparse.hstack([_vectorizer(analyser).transform(chunk) for analyser in ANALYSERS], format="csr")


def _vectorizer(analyser: str) -> HashingVectorizer:
    return HashingVectorizer(
        analyzer=analyser,
        ngram_range=ANALYSERS[analyser],
        n_features=HASHES,
        alternate_sign=False,
        norm=None,
        strip_accents="unicode",
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
    )


def _count_in_pieces(texts: Sequence[Sequence[str]]) -> sparse.csr_matrix:
    """Return the count of each hashed n-gram in each piece of the texts; half of one of two words in two pieces."""
    words, spanning = _vectorizer("word").build_analyzer(), []
    for pieces in texts:
        last = None  # the last word before a piece, and the n-grams of its piece
        for piece in pieces:
            spanning.append([])
            if grams := words(piece):  # the words, then each two of them
                if last:
                    last[1].append(f"{last[0]} {grams[0]}")
                    spanning[-1].append(f"{last[0]} {grams[0]}")
                last = grams[len(grams) // 2], spanning[-1]
    halves = FeatureHasher(HASHES, input_type="string", alternate_sign=False, dtype=np.float32).transform(spanning) / 2
    whole = count_ngrams([piece for pieces in texts for piece in pieces])
    return whole + sparse.hstack([halves, sparse.csr_matrix(halves.shape)], format="csr")


def count_values(fields: pd.DataFrame | None, terms: Sequence[Term], rows: int) -> sparse.csr_matrix:
    """Return which hashed value of each term a row has, float32 (rows, HASHES); without `fields`, every cell is empty.

    An empty cell is a value too: a mark such as SAP's of a stopped unit is made by leaving it out.
    """
    hasher = FeatureHasher(HASHES, input_type="string", alternate_sign=False, dtype=np.float32)
    counts = sparse.csr_matrix((rows, HASHES), dtype=np.float32)
    for term in terms:
        cells = [[""] * rows if fields is None or title not in fields else fields[title] for title in term]
        joined, distinct = pd.factorize(pd.Series(["\x1f".join(values) for values in zip(*cells, strict=True)]))
        name = "\x1f".join(term)
        counts = counts + hasher.transform([[f"{name}={value}"] for value in distinct])[joined]
    return counts


def _select(counts: sparse.csr_matrix, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns to use, in order, and their IDF.

    They are those in several rows; the most frequent of them if the file would be too large.
    """
    rows_of = np.asarray((counts > 0).sum(axis=0)).ravel()
    columns = np.flatnonzero(rows_of >= max(1, min(LEAST_ROWS, rows_of.max())))
    if not len(columns):
        columns = np.zeros(1, np.int64)  # texts without a single n-gram: one feature, which is always 0
    most = LARGEST_BYTES // (4 * (classes + 2))
    if len(columns) > most:
        columns = np.sort(columns[np.argsort(-rows_of[columns], kind="stable")[:most]])
    return columns, np.log((1 + counts.shape[0]) / (1 + rows_of[columns])) + 1  # as scikit-learn's TfidfTransformer


def weigh_words(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return TF-IDF of the words alone, float64 (texts, words), from `count_ngrams`."""
    words = counts[:, :HASHES]
    columns, idf = _select(words, 0)
    return _weigh(words[:, columns], columns, idf)


def _weigh(counts: sparse.csr_matrix, columns: np.ndarray, idf: np.ndarray) -> sparse.csr_matrix:
    counts = counts.astype(np.float64)
    counts.data = 1 + np.log(counts.data)
    weighted = counts @ sparse.diags(idf.astype(np.float64))
    border = int(np.searchsorted(columns, HASHES))
    parts = [part for part in (weighted[:, :border], weighted[:, border:]) if part.shape[1]]
    return sparse.hstack([normalize(part) for part in parts], format="csr")


def fit_classifier(features: sparse.csr_matrix, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (features, classes) and biases (classes,) of a linear SVM; absent classes get a low bias."""
    present = np.unique(labels)
    weights, biases = np.zeros((features.shape[1], size), np.float32), np.full(size, -10, np.float32)
    if len(present) < 2:
        biases[present] = 1
        return weights, biases
    with warnings.catch_warnings():  # few rows, or a fit that could be a little closer: in English, and no fault
        warnings.simplefilter("ignore")
        fitted = LinearSVC(C=0.3, class_weight="balanced", tol=TOLERANCE, random_state=FIT_SEED).fit(features, labels)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(present) == 2:  # scikit-learn fits one model, for the second class
        coefficients, intercepts = np.vstack([-coefficients, coefficients]), np.append(-intercepts, intercepts)
    weights[:, present], biases[present] = coefficients.T, intercepts
    return weights, biases
