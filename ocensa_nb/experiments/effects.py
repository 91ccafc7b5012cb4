"""Which settings matter: differences between cases that are equal in everything else, with their intervals.

A pair is two finished cases with the same seed and the same settings but one. The mean difference has a bootstrap t
interval: mean ± t · (bootstrap standard error) · √(n/(n−1)), with Student's t for n−1 degrees of freedom. With so few
pairs a percentile interval is too narrow: that of three values contains the true mean 3 times in 4 at most (Hesterberg,
"What teachers should know about the bootstrap", The American Statistician 69, 2015).

Cases with the same seed share their split, so their differences are not independent: with three seeds or more, the
differences of a seed are averaged first, and the seeds are resampled.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ocensa_nb.experiments.case_result import CaseResult

FEWEST = 3  # pairs (or seeds) below which no interval is computed
RESAMPLES = 4_000
CONFIDENCE = 0.95
UNSET = "—"  # the value of a setting that neither the case nor its run has
_Change = tuple[str, str, str]  # field, value before, value after


@dataclass(frozen=True)
class Interval:
    """A mean difference, its interval of 95 %, and the one corrected for the number of comparisons (Bonferroni)."""

    mean: float
    low: float
    high: float
    corrected_low: float
    corrected_high: float


@dataclass(frozen=True)
class Effect:
    """What changing one setting from a value to another does."""

    field: str
    before: str
    after: str
    pairs: int
    seeds: int
    mean: float
    score: Interval | None
    time: Interval | None

    @property
    def verdict(self) -> str:
        """What can be said of the difference of the metric, in Spanish."""
        if self.score is None:
            return f"no se puede saber: hacen falta {FEWEST} pares y hay {self.pairs}"
        if self.score.low <= 0 <= self.score.high:
            return "no se distingue del ruido"
        direction = "mejora" if self.score.mean > 0 else "empeora"
        if self.score.corrected_low <= 0 <= self.score.corrected_high:
            return f"{direction}, pero puede ser azar entre tantas comparaciones"
        return direction


def effects(cases: Sequence[CaseResult], metric: str) -> list[Effect]:
    """Return the effect of each value of each setting, against that of the base of the grid."""
    together: dict[_Change, list[tuple[CaseResult, CaseResult]]] = {}
    for change, first, second in _pairs(cases, metric):
        together.setdefault(change, []).append((first, second))
    comparisons = sum(len(pairs) >= FEWEST for pairs in together.values())
    found = [_effect(change, pairs, metric, comparisons) for change, pairs in together.items()]
    return sorted(found, key=lambda effect: (effect.field, _in_order(effect.after)))


def interval(values: Sequence[float], comparisons: int = 1, seed: int = 0) -> Interval:
    """Return the bootstrap t interval of a mean.

    Parameters
    ----------
    values
        Independent differences, two or more.
    comparisons
        Number of intervals that are read together.
    seed
        Of the resampling.
    """
    from scipy.stats import t

    sample, count = np.asarray(values, dtype=np.float64), len(values)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    error = sample[drawn].mean(axis=1).std() * math.sqrt(count / (count - 1))
    mean = float(sample.mean())
    half = [float(t.ppf(1 - (1 - CONFIDENCE) / 2 / k, count - 1) * error) for k in (1, comparisons)]
    return Interval(mean, mean - half[0], mean + half[0], mean - half[1], mean + half[1])


def _pairs(cases: Sequence[CaseResult], metric: str) -> Iterator[tuple[_Change, CaseResult, CaseResult]]:
    """Yield the changes of one setting from its reference value, with the two cases."""
    scored = [case for case in cases if case.score(metric) is not None]
    fields = sorted({name for case in scored for name in case.settings})
    values = {case.name: {name: _value(case, name) for name in fields} for case in scored}
    # The reference is the value of the base; without one, that of most cases; of as many, the first in order.
    reference = {}
    for name in fields:
        based = [case for case in scored if name not in case.state["changes"]] or scored
        counts = Counter(values[case.name][name] for case in based)
        reference[name] = min(counts, key=lambda value: (-counts[value], _in_order(value)))
    for one, other in combinations(scored, 2):
        different = [name for name in fields if one.settings.get(name) != other.settings.get(name)]
        if one.seed != other.seed or len(different) != 1:
            continue
        name = different[0]
        first, second = (one, other) if values[one.name][name] == reference[name] else (other, one)
        before, after = values[first.name][name], values[second.name][name]
        if before == reference[name] != after:
            yield (name, before, after), first, second


def _effect(change: _Change, pairs: Sequence[tuple[CaseResult, CaseResult]], metric: str, comparisons: int) -> Effect:
    differences = [(b.seed, (b.score(metric) or 0.0) - (a.score(metric) or 0.0)) for a, b in pairs]
    comparable = [(a, b) for a, b in pairs if a.machine() == b.machine() and min(_total(a), _total(b)) > 0]
    ratios = [(b.seed, math.log(_total(b) / _total(a))) for a, b in comparable]
    time = _interval(ratios, comparisons)
    return Effect(
        *change,
        pairs=len(pairs),
        seeds=len({seed for seed, _ in differences}),
        mean=float(np.mean([value for _, value in differences])),
        score=_interval(differences, comparisons),
        time=time and Interval(*map(math.exp, dataclasses.astuple(time))),
    )


def _interval(differences: Sequence[tuple[int, float]], comparisons: int) -> Interval | None:
    """Return the interval of (seed, difference) pairs, averaged by seed if there are enough seeds; None if too few."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in differences:
        by_seed.setdefault(seed, []).append(value)
    averages = [float(np.mean(values)) for values in by_seed.values()]
    values = averages if len(averages) >= FEWEST else [value for _, value in differences]
    return interval(values, comparisons) if len(values) >= FEWEST else None


def _total(case: CaseResult) -> float:
    return case.seconds()["total"]


def _value(case: CaseResult, name: str) -> str:
    """Return the value of a setting as text: that of the recipe if the case does not set it."""
    value = case.settings.get(name, case.config.get(name, UNSET))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _in_order(value: str) -> tuple[int, float, str]:
    """Return a key that sorts numbers by size, before texts."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
