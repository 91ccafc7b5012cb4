"""Rank the columns of a table by their content, for the message about a column that was not found."""

import difflib
from collections.abc import Collection

import pandas as pd

from ocensa_nb.data.accents import without_accents

SAMPLED_ROWS = 1_000
MOST_WORDS = 10  # of a cell; more words do not make a column more likely to be the description
TYPO = 0.85  # similarity of names, from 0 to 1, that suggests a spelling error: causa_fala, descripcon


def text_score(column: pd.Series) -> float:
    """Return how much a column looks like free text."""
    values = _filled(column)
    if values.empty:
        return 0.0
    words = min(float(values.str.split().str.len().mean()), MOST_WORDS)
    letters = values.str.count(r"[^\W\d_]").sum() / values.str.len().sum()
    return values.nunique() / len(column) * words * float(letters)


def label_score(column: pd.Series) -> float:
    """Return how much a column looks like a label."""
    values = _filled(column)
    if values.nunique() < 2 or values.str.contains(r"[^\W\d_]").mean() < 0.5:
        return 0.0
    return (len(values) - values.nunique()) / len(column)


def rank_columns(table: pd.DataFrame, wanted: str, label: str, taken: Collection[str]) -> tuple[list[str], str]:
    """Return the columns of a table, those that suit a role best first."""
    sample = table.head(SAMPLED_ROWS)
    score = label_score if label else text_score
    scores = {name: 0.0 if name in taken else score(sample[name]) for name in sample}
    likeness = {name: _likeness(name, wanted) for name in sample}
    # Many columns repeat their values about as much as a label does: among those, the name decides.
    digits = 1 if label else 6

    def order(name: str) -> tuple[bool, bool, bool, float, float]:
        suits = scores[name] > 0
        mentioned = suits and bool(label) and label in without_accents(name).lower()
        misspelt = suits and likeness[name] >= TYPO
        return misspelt, name not in taken, mentioned, round(scores[name], digits), likeness[name]

    ranked = sorted(sample, key=order, reverse=True)
    return ranked, next((name for name in ranked[:1] if order(name)[0]), "")


def _filled(column: pd.Series) -> pd.Series:
    values = column.str.strip()
    return values[values != ""]


def _likeness(name: str, wanted: str) -> float:
    """Return the similarity of two names, 0 to 1, without regard to case and accents; a long name is cut."""
    return difflib.SequenceMatcher(None, without_accents(name[:100]).lower(), wanted).ratio()
