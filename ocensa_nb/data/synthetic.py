"""Invented maintenance notices with a known best score.

    frame = generate(8000, seed=42)    # the training CSV
    ceiling()                          # {"modo_f1": ..., ...}: what no text classifier can exceed

A notice starts as a state: the component, and for each head either a label the text states or silence. The
sentence is written from the state alone; the recorded label follows a rule on the state, with noise. So the
best possible classifier is known, and its score can be computed: see `ceiling`.
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
    """One head in one context: what may be stated, how often, and what silence means."""

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    default: str


@cache
def _contexts() -> tuple[tuple[float, str, Component, dict[str, _Choice]], ...]:
    """List every (share, family, component, {head: choice}); the shares sum to one."""
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
    """Shares that fall with the rank: 1/2, 1/3, 1/4, ... normalised."""
    weights = [1 / (rank + 2) for rank in range(len(labels))]
    return tuple(weight / sum(weights) for weight in weights)


def ceiling(
    *,
    evidence: Mapping[str, float] = EVIDENCE,
    noise: Mapping[str, float] = NOISE,
) -> dict[str, float]:
    """Highest F1 any classifier of the text can have on these notices, weighted and macro, per head.

    Write z for the component (share w_z), r for the ruled label and q_z(c) for the chance that r = c given z:
    q_z(c) = evidence * p_z(c) + (1 - evidence) * [c is the default]. The recorded label is r, or with
    probability `noise` a fresh draw from q_z; its class frequencies are therefore those of r.

    1. The text depends on the labels only through the state (z and what is stated), so no classifier of the
       text beats the best classifier of the state.
    2. F1 of one class c is greatest when exactly the states with posterior above F*_c / 2 are claimed, F*_c
       being that greatest value (Lipton, Elkan and Naryanaswamy 2014, "Optimal thresholding of classifiers
       to maximize F1 measure").
    3. In every state the ruled label has posterior 1 - noise + noise * q_z(r) > 1/2 >= F*_c / 2, any other
       noise * q_z(c) <= noise. Predicting r gives F1_c >= 1 - noise, so F*_c / 2 >= (1 - noise) / 2, above
       `noise` as long as noise < 1/3. Hence the single classifier "predict r" is optimal for every class
       at once, and so for any weighted mean of the classes' F1:

           F1_c = sum_z w_z q_z(c) [1 - noise + noise q_z(c)] / sum_z w_z q_z(c)

    This is the population value: on a finite test set even the best classifier's score scatters around it.

    Parameters
    ----------
    evidence : head -> probability that the text states the label; heads left out keep `EVIDENCE`.
    noise : head -> probability that the recorded label is redrawn, in [0, 1/3); others keep `NOISE`.

    Returns
    -------
    `{"modo_f1": ..., "modo_f1_macro": ..., "causa_f1": ..., ...}`, `_f1` being the weighted mean.

    Raises
    ------
    ValueError : an unknown head, an evidence outside [0, 1] or a noise outside [0, 1/3).
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
    """Compute q_z: how often the rule gives each label in one context."""
    shares = {label: evidence * share for label, share in zip(choice.labels, choice.shares, strict=True)}
    shares[choice.default] = shares.get(choice.default, 0.0) + 1 - evidence
    return shares


def _settings(evidence: Mapping[str, float], noise: Mapping[str, float]) -> tuple[dict[str, float], ...]:
    """Fill in the defaults and refuse what the theorem does not cover."""
    for name, given in (("evidence", evidence), ("noise", noise)):
        for head, value in given.items():
            if head not in COLUMNS:
                raise ValueError(f"{name}: no existe la etiqueta {head!r}; use {', '.join(COLUMNS)}.")
            if name == "evidence" and not 0 <= value <= 1:
                raise ValueError(f"evidence[{head!r}] = {value}: debe estar entre 0 y 1.")
            if name == "noise" and not 0 <= value < 1 / 3:
                raise ValueError(f"noise[{head!r}] = {value}: debe ser al menos 0 y menor que 1/3.")
    return {**EVIDENCE, **evidence}, {**NOISE, **noise}


def generate(
    rows: int,
    seed: int,
    *,
    evidence: Mapping[str, float] = EVIDENCE,
    noise: Mapping[str, float] = NOISE,
    short_tries: float = 0.8,
    with_rule: bool = False,
) -> pd.DataFrame:
    """Generate labelled notices: one row each, the same for the same arguments on any machine.

    Parameters
    ----------
    rows, seed
        Number of notices, and seed of the random source.
    evidence, noise
        As for `ceiling`, which gives the best score possible under the same settings.
    short_tries
        Share of rows that try the short style first. It fits in two of five, so a third end up short.
    with_rule
        Add `regla_modo`, `regla_causa`, `regla_prioridad`: the answers of the best classifier.

    Returns
    -------
    pd.DataFrame
        Columns `id_aviso, fecha_aviso, ubicacion_tecnica, familia_equipo, componente, descripcion, modo_falla,
        causa_falla, prioridad`, all text except `id_aviso`.

    Raises
    ------
    ValueError
        A negative `rows`, or settings that `ceiling` rejects.
    """
    if rows < 0:
        raise ValueError(f"rows = {rows}: debe ser cero o más.")
    evidence, noise = _settings(evidence, noise)
    # random() is the one draw Python promises to repeat across versions, so everything is made from it.
    draw = random.Random(seed).random
    contexts, families = _contexts(), vocabulary().families
    bounds = list(accumulate(share for share, *_ in contexts))
    every_choice = {choice for *_, choices in contexts for choice in choices.values()}
    cumulative = {choice: list(accumulate(choice.shares)) for choice in every_choice}

    def state_of(choice: _Choice, head: str) -> str | None:
        if draw() >= evidence[head]:
            return None
        # min: the last bound may fall short of one by a rounding error
        return choice.labels[min(bisect(cumulative[choice], draw()), len(choice.labels) - 1)]

    table = []
    for row in range(rows):
        _, name, part, choices = contexts[min(bisect(bounds, draw()), len(contexts) - 1)]
        stated, ruled, recorded = {}, [], []
        for head, choice in choices.items():
            stated[head] = state_of(choice, head)
            rule = stated[head] or choice.default
            ruled.append(rule)
            # a redraw repeats the whole draw, silence included: that is q_z
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
    """Write a table as UTF-8 CSV; the bytes are the same on any system."""
    frame.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
