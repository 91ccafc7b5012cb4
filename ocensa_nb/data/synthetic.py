"""Synthetic maintenance notices with a known best possible score.

    frame = generate(8000, seed=42)    # the training CSV
    ceiling()                          # {"modo_f1": ..., ...}: no text classifier can exceed it

The text depends on a state alone: the component, and the labels that it states. The recorded label follows a rule on
the state, with noise, so the best possible classifier is known.
"""

import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ocensa_nb.data.synthetic_text import Component, compose_notice, pick, vocabulary

EVIDENCE = {"modo": 0.92, "causa": 0.90, "prioridad": 0.75}
NOISE = {"modo": 0.06, "causa": 0.08, "prioridad": 0.10}
COLUMNS = {"modo": "modo_falla", "causa": "causa_falla", "prioridad": "prioridad"}
_FIRST_DAY, _DAYS = date(2023, 1, 2), 1000


class _Choice(NamedTuple):
    """One head in one context: the labels that may be stated, their shares, and the label if none is stated."""

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    default: str


@cache
def _contexts() -> tuple[tuple[float, str, Component, dict[str, _Choice]], ...]:
    """Return every (share, family, component, {head: choice}); the shares sum to one."""
    words = vocabulary()
    total = sum(part.weight for family in words.families.values() for part in family.components)
    priority = _Choice(tuple(words.priority_shares), tuple(words.priority_shares.values()), "3-Media")
    return tuple(
        (
            part.weight / total,
            name,
            part,
            {
                "modo": _Choice(part.modes, _by_rank(part.modes), "Other (OTH)"),
                "causa": _Choice(part.causes, _by_rank(part.causes), part.causes[0]),
                "prioridad": priority,
            },
        )
        for name, family in words.families.items()
        for part in family.components
    )


def _by_rank(labels: tuple[str, ...]) -> tuple[float, ...]:
    weights = [1 / (rank + 2) for rank in range(len(labels))]
    return tuple(weight / sum(weights) for weight in weights)


def ceiling(*, evidence: Mapping[str, float] = EVIDENCE, noise: Mapping[str, float] = NOISE) -> dict[str, float]:
    """Compute the highest F1, weighted and macro, that a classifier of the text can reach on these notices.

    Write z for the component (share w_z), r for the label of the rule and q_z(c) for the probability that r = c given
    z: q_z(c) = evidence * p_z(c) + (1 - evidence) * [c is the default]. The recorded label is r, or with probability
    `noise` a new draw from q_z; its class frequencies are therefore those of r.

    1. The text depends on the labels only through the state: no classifier of the text beats the best one of the state.
    2. F1 of one class c is greatest if exactly the states with a posterior above F*_c / 2 are predicted as c, where
       F*_c is that greatest value (Lipton, Elkan and Naryanaswamy 2014, "Optimal thresholding of classifiers to
       maximize F1 measure").
    3. In every state the label of the rule has the posterior 1 - noise + noise * q_z(r) > 1/2 >= F*_c / 2, any other
       noise * q_z(c) <= noise. Predicting r gives F1_c >= 1 - noise, so F*_c / 2 >= (1 - noise) / 2, which exceeds
       `noise` if noise < 1/3. "Predict r" is thus optimal for every class, and so for any weighted mean of their F1:

           F1_c = sum_z w_z q_z(c) [1 - noise + noise q_z(c)] / sum_z w_z q_z(c)

    This is the population value: on a finite test set the score of the best classifier varies around it.
    """
    evidence, noise = _settings(evidence, noise)
    scores = {}
    for head in COLUMNS:
        frequency: dict[str, float] = defaultdict(float)
        correct: dict[str, float] = defaultdict(float)
        for share, _, _, choices in _contexts():
            for label, q in _ruled_shares(choices[head], evidence[head]).items():
                frequency[label] += share * q
                correct[label] += share * q * (1 - noise[head] + noise[head] * q)
        f1 = [correct[label] / frequency[label] for label in frequency if frequency[label] > 0]
        scores[f"{head}_f1"] = sum(correct.values())
        scores[f"{head}_f1_macro"] = sum(f1) / len(f1)
    return scores


def _ruled_shares(choice: _Choice, evidence: float) -> dict[str, float]:
    """Return q_z: the share of each label that the rule gives in one context."""
    shares = {label: evidence * share for label, share in zip(choice.labels, choice.shares, strict=True)}
    shares[choice.default] = shares.get(choice.default, 0.0) + 1 - evidence
    return shares


def _settings(evidence: Mapping[str, float], noise: Mapping[str, float]) -> tuple[dict[str, float], ...]:
    """Return the settings with defaults; raises `ValueError` for values that the proof in `ceiling` excludes."""
    evidence, noise = {**EVIDENCE, **evidence}, {**NOISE, **noise}
    if evidence.keys() | noise.keys() != COLUMNS.keys() or not all(0 <= share <= 1 for share in evidence.values()):
        raise ValueError(f"evidence = {evidence}: no va de 0 a 1, o no existe la etiqueta ({', '.join(COLUMNS)}).")
    if not all(0 <= share < 1 / 3 for share in noise.values()):
        raise ValueError(f"noise = {noise}: de 0 a menos de 1/3.")
    return evidence, noise


def generate(
    rows: int,
    seed: int,
    *,
    evidence: Mapping[str, float] = EVIDENCE,
    noise: Mapping[str, float] = NOISE,
    short_tries: float = 0.8,
    with_rule: bool = False,
) -> pd.DataFrame:
    """Generate labelled notices; the same arguments give the same notices on any machine.

    Parameters
    ----------
    evidence, noise
        As for `ceiling`, which computes the best possible score for the same settings.
    short_tries
        Share of rows, 0 to 1, for which the short style is tried first; two of five fit.
    with_rule
        Whether to add `regla_modo`, `regla_causa`, `regla_prioridad`: the predictions of the best classifier.
    """
    if rows < 0:
        raise ValueError(f"rows = {rows}: debe ser cero o más.")
    evidence, noise = _settings(evidence, noise)
    # Python guarantees the same numbers across versions for random() alone, so it is the only source.
    draw = random.Random(seed).random
    contexts, families = _contexts(), vocabulary().families
    bounds = list(accumulate(share for share, *_ in contexts))
    every_choice = {choice for *_, choices in contexts for choice in choices.values()}
    cumulative = {choice: list(accumulate(choice.shares)) for choice in every_choice}

    def state_of(choice: _Choice, head: str) -> str | None:
        if draw() >= evidence[head]:
            return None
        # min: by a rounding error, the last bound may be below one
        return choice.labels[min(bisect(cumulative[choice], draw()), len(choice.labels) - 1)]

    table = []
    for row in range(rows):
        _, name, part, choices = contexts[min(bisect(bounds, draw()), len(contexts) - 1)]
        stated, ruled, recorded = {}, [], []
        for head, choice in choices.items():
            stated[head] = state_of(choice, head)
            rule = stated[head] or choice.default
            ruled.append(rule)
            # A new draw includes the draw of the evidence: that is q_z.
            recorded.append((state_of(choice, head) or choice.default) if draw() < noise[head] else rule)
        family = families[name]
        tag = f"{pick(family.tags, draw)}-{int(101 + draw() * 4800)}{pick(('', '', 'A', 'B'), draw)}"
        day = _FIRST_DAY + timedelta(days=row * _DAYS // rows)
        text = compose_notice(stated, family, part, tag, short_tries, draw)
        when = f"{day.day}/{day.month}/{day.year}"
        notice = (10_400_000 + row, when, tag, name, part.name, text, *recorded)
        table.append(notice + tuple(ruled) if with_rule else notice)

    columns = ["id_aviso", "fecha_aviso", "ubicacion_tecnica", "familia_equipo", "componente", "descripcion"]
    columns += COLUMNS.values()
    columns += [f"regla_{head}" for head in COLUMNS] if with_rule else []
    return pd.DataFrame(table, columns=columns)


def write_csv(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table as a UTF-8 CSV file; the bytes are the same on any system."""
    frame.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
