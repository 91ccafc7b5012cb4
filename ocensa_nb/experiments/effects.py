"""What each setting changes: paired differences between cases that differ in nothing else, with their intervals."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from ocensa_nb.experiments.case import Case
from ocensa_nb.experiments.results import Results, are_comparable, total_seconds
from ocensa_nb.runtime.commands import as_text

FEWEST = 3  # seeds below which no interval is computed
CONFIDENCE = 0.95
UNSET = "—"  # the value of a setting that neither the case nor its run has
_Change = tuple[str, str, str]  # field, value before, value after


@dataclass(frozen=True)
class Interval:
    """A mean, its interval of 95 %, and the one corrected for the number of comparisons (Bonferroni)."""

    mean: float
    low: float
    high: float
    corrected_low: float
    corrected_high: float

    @property
    def is_clear(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Effect:
    """What changing one setting does to the score (a difference) and to the seconds (a ratio)."""

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
        if self.score is None:
            return f"no se puede saber: hacen falta {FEWEST} semillas y hay {self.seeds}"
        if not self.score.is_clear:
            return "no se distingue del ruido"
        direction = "mejora" if self.score.mean > 0 else "empeora"
        if self.score.corrected_low <= 0 <= self.score.corrected_high:
            return f"{direction}, pero puede ser azar entre tantas comparaciones"
        return direction


def effects(results: Results) -> list[Effect]:
    """Return the effect of each value of each setting, against that of the base of the grid."""
    together: dict[_Change, list[tuple[Case, Case]]] = {}
    for change, first, second in _pairs(results.finished, results.metric):
        together.setdefault(change, []).append((first, second))
    comparisons = sum(len({one.seed for one, _ in pairs}) >= FEWEST for pairs in together.values())
    changes = [_effect(change, pairs, results.metric, comparisons) for change, pairs in together.items()]
    return sorted(changes, key=lambda effect: (effect.field, _in_order(effect.after)))


def interval(values: Sequence[float], comparisons: int = 1) -> Interval:
    """Return Student's t interval of the mean of two or more independent differences."""
    from scipy.stats import t

    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    ends = []
    for confidence in (CONFIDENCE, 1 - (1 - CONFIDENCE) / comparisons):
        ends += [mean + error * float(end) for end in t.interval(confidence, len(values) - 1)]
    return Interval(mean, *ends)


def _pairs(cases: Sequence[Case], metric: str) -> Iterator[tuple[_Change, Case, Case]]:
    """Yield each change of one setting from its reference value, with two cases that differ in nothing else."""
    scored = [case for case in cases if case.score(metric) is not None]
    fields = sorted({name for case in scored for name in case.settings})
    values = {case.name: {name: _value(case, name) for name in fields} for case in scored}
    # The reference is the value of the base; without one, that of most cases; of as many, the first in order.
    reference = {}
    for name in fields:
        based = [case for case in scored if name not in case.content["changes"]] or scored
        times = Counter(values[case.name][name] for case in based)
        reference[name] = min(times, key=lambda value: (-times[value], _in_order(value)))
    for one, other in combinations(scored, 2):
        different = [name for name in fields if one.settings.get(name) != other.settings.get(name)]
        if one.seed != other.seed or len(different) != 1:
            continue
        name = different[0]
        first, second = (one, other) if values[one.name][name] == reference[name] else (other, one)
        before, after = values[first.name][name], values[second.name][name]
        if before == reference[name] != after:
            yield (name, before, after), first, second


def _effect(change: _Change, pairs: Sequence[tuple[Case, Case]], metric: str, comparisons: int) -> Effect:
    differences = [(b.seed, b.score(metric) - a.score(metric)) for a, b in pairs]
    ratios = [(b.seed, math.log(total_seconds(b) / total_seconds(a))) for a, b in pairs if are_comparable(a, b)]
    time = _interval(ratios, comparisons)
    return Effect(
        *change,
        pairs=len(pairs),
        seeds=len({seed for seed, _ in differences}),
        mean=statistics.fmean(value for _, value in differences),
        score=_interval(differences, comparisons),
        time=time and Interval(*map(math.exp, dataclasses.astuple(time))),
    )


def _interval(differences: Sequence[tuple[int, float]], comparisons: int) -> Interval | None:
    """Return the interval of (seed, difference) pairs; None with too few seeds.

    Cases with the same seed share their split, so their differences are not independent: they count once, as a mean.
    """
    by_seed: dict[int, list[float]] = {}
    for seed, value in differences:
        by_seed.setdefault(seed, []).append(value)
    averages = [statistics.fmean(values) for values in by_seed.values()]
    return interval(averages, comparisons) if len(averages) >= FEWEST else None


def _value(case: Case, name: str) -> str:
    """Return the value of a setting as text: that of the recipe if the case does not set it."""
    return as_text(case.settings.get(name, case.config.get(name, UNSET))) or UNSET


def _in_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
