"""Which columns help the linear model with a label: alone, or two whose values count together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import clipped, num
from ocensa_nb.evaluation.metrics import bootstrap, weighted_f1
from ocensa_nb.models.linear import TERM_WEIGHT, Term, count_values, fit_classifier, weigh_words
from ocensa_nb.runtime.commands import command_with_field
from ocensa_nb.runtime.logs import progress

FOLDS = 3
LEAST_GAIN = 0.005  # mean of weighted and macro F1 that a further term has to add
# Standard errors of the gain. Many terms are tried, and cross-validation puts a model of random labels below chance:
# with 3, random labels had a column in 3 of 20 tries.
SURE = 4.0
RESAMPLES = 200
TRIED = 2  # terms a round that are fitted: those that promise most
SAMPLED_ROWS = 4_000
WORTH_NAMING = 0.03  # weighted F1 that columns have to add to be named
DECIDES = 0.9  # weighted F1 of columns alone that give a label


@dataclass(frozen=True)
class FieldChoice:
    """The columns that a label uses, and the weighted F1 in cross-validation of words alone, and with the columns."""

    terms: tuple[Term, ...]
    f1_without: float
    f1: float
    alone: float  # F1 of the most frequent class of each combination of the columns' values, without the text
    advised: str = ""  # the column outside the list that would add most, if any adds `WORTH_NAMING`
    f1_advised: float = 0.0

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(title for term in self.terms for title in term))

    @property
    def is_rule(self) -> bool:
        """Whether the columns alone give the label."""
        return self.alone >= DECIDES

    def lines(self, head: str, config: TrainConfig) -> list[str]:
        """Return, in Spanish, what the columns gain, whether they are a rule, and how to add another that helps."""
        names, lines = " y ".join(f"«{clipped(title)}»" for title in self.fields), []
        if self.f1 - self.f1_without >= WORTH_NAMING:
            lines.append(f"{head}: F1 {num(self.f1_without, 2)} → {num(self.f1, 2)} con {names} en el modelo simple.")
        if self.is_rule:
            lines.append(
                f"{head} se deduce de {names} (F1 {num(self.alone, 2)} sin el texto): no hace falta un modelo de texto."
            )
        if self.advised:
            lines.append(
                f"{head}: F1 {num(self.f1, 2)} → {num(self.f1_advised, 2)} con «{clipped(self.advised)}». Si se conoce "
                f"al crear el aviso, ejecute: {command_with_field(config, self.advised)}"
            )
        return lines


def choose_fields(
    counts: sparse.csr_matrix, fields: pd.DataFrame, known: Sequence[str], labels: Arrays, groups: np.ndarray
) -> dict[str, FieldChoice]:
    """Choose the terms of each label, by cross-validation of training rows.

    Forward selection (Hastie, Tibshirani and Friedman, *The elements of statistical learning*, 3.3.2) over single
    columns and pairs of chosen ones. The words of the text alone stand for it: they fit ten times as fast.

    Parameters
    ----------
    counts
        From `count_ngrams`, (rows, features).
    fields
        The canonical values of columns, a row per text; `known` are those that may be chosen, the others are tried.
    groups
        Rows of a group have the same text and share a fold, int64 (rows,).
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(groups))[:SAMPLED_ROWS])
    groups = pd.factorize(groups[rows])[0]
    words, table = weigh_words(counts[rows]), fields.iloc[rows].reset_index(drop=True)
    shown = progress(labels, "Columnas que ayudan", "etiqueta")
    return {head: _Search(words, table, labels[head][rows], groups).choose(known) for head in shown}


def predict_by_value(values: np.ndarray, labels: np.ndarray, folds: np.ndarray, size: int) -> np.ndarray:
    """Return the most frequent class of each value in the other folds, of all for a new value, int64 (rows,)."""
    predicted = np.zeros(len(labels), np.int64)
    for part in np.unique(folds):
        seen = folds != part
        pairs, counts = np.unique(values[seen] * size + labels[seen], return_counts=True)
        order = np.lexsort((-pairs, counts))  # the last pair of each value is the most frequent
        best = np.full(values.max() + 1, np.bincount(labels[seen], minlength=size).argmax())
        best[pairs[order] // size] = pairs[order] % size
        predicted[~seen] = best[values[~seen]]
    return predicted


class _Search:
    """The search for the terms of one label."""

    def __init__(self, words: sparse.csr_matrix, fields: pd.DataFrame, labels: np.ndarray, groups: np.ndarray) -> None:
        self.words, self.fields, self.labels, self.groups = words, fields, labels, groups
        self.folds = (np.random.default_rng(0).permutation(groups.max() + 1) % FOLDS)[groups]
        self.size = int(labels.max()) + 1

    def choose(self, known: Sequence[str]) -> FieldChoice:
        terms: list[Term] = []
        predicted = self._predict(terms)
        without = weighted_f1(self.labels, predicted)
        while further := self._next(terms, predicted, known):
            terms, predicted = further
        f1, advised, f1_advised = weighted_f1(self.labels, predicted), "", 0.0
        alone = weighted_f1(self.labels, self._by_value([title for term in terms for title in term])) if terms else 0.0
        if further := self._next(terms, predicted, [title for title in self.fields if title not in known]):
            gained = weighted_f1(self.labels, further[1])
            if gained >= f1 + WORTH_NAMING:
                advised, f1_advised = further[0][-1][-1], gained  # of a pair, the column that is not chosen yet
        return FieldChoice(tuple(terms), without, f1, alone, advised, f1_advised)

    def _next(
        self, terms: Sequence[Term], predicted: np.ndarray, titles: Sequence[str]
    ) -> tuple[list[Term], np.ndarray] | None:
        """Return the terms with the best further one, and their predictions; None if none gains enough."""
        pairs = [(chosen[0], title) for chosen in terms if len(chosen) == 1 for title in titles if title != chosen[0]]
        taken = {frozenset(term) for term in terms}
        options = [term for term in [*((title,) for title in titles), *pairs] if frozenset(term) not in taken]
        # The classes that the model predicts, corrected by the values of a column, promise what the column would add.
        promised = {term: self._gain(predicted, self._by_value(term, predicted))[0] for term in options}
        best, least = None, LEAST_GAIN
        for term in sorted(options, key=lambda term: -promised[term])[:TRIED]:
            after = self._predict([*terms, term])
            gain, error = self._gain(predicted, after, RESAMPLES)
            if gain > max(least, SURE * error):
                best, least = ([*terms, term], after), gain
        return best

    def _predict(self, terms: Sequence[Term]) -> np.ndarray:
        """Return the class of each row from a fit on the other folds, int64 (rows,)."""
        values = count_values(self.fields, terms, len(self.labels))
        features = sparse.hstack([self.words, TERM_WEIGHT * values[:, np.unique(values.indices)]], format="csr")
        predicted = np.zeros(len(self.labels), np.int64)
        for part in np.unique(self.folds):
            seen = self.folds != part
            weights, biases = fit_classifier(features[seen], self.labels[seen], self.size)
            predicted[~seen] = (features[~seen] @ weights + biases).argmax(axis=1)
        return predicted

    def _by_value(self, titles: Sequence[str], predicted: np.ndarray | None = None) -> np.ndarray:
        cells = self.fields[list(dict.fromkeys(titles))]
        cells = cells if predicted is None else cells.assign(predicted=predicted)
        values = cells.groupby(list(cells), sort=False).ngroup().to_numpy()
        return predict_by_value(values, self.labels, self.folds, self.size)

    def _gain(self, before: np.ndarray, after: np.ndarray, resamples: int = 0) -> tuple[float, float]:
        """Return what a prediction gains over another, mean of weighted and macro F1, and its standard error."""
        models = bootstrap(self.labels, {"before": before, "after": after}, self.groups, resamples)
        means = {model: (scores["f1"] + scores["f1_macro"]) / 2 for model, scores in models.items()}
        gains = means["after"] - means["before"]
        return float(gains[0]), float(gains[1:].std()) if resamples else 0.0
