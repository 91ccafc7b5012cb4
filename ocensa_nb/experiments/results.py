"""What an experiment measured: its cases, their groups over the seeds, and what each setting changes."""

import contextlib
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError, listed
from ocensa_nb.experiments.case import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    STATES,
    Case,
    case_folders,
    nested,
    read_case,
    with_results,
)
from ocensa_nb.paths import plain_path
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.commands import as_text

GRID = "grid.yaml"  # the copy in the experiment folder
BASELINE = "baseline"
SHARE = 0.95  # of the best validation score: the target of `seconds_to_target` (Coleman et al., DAWNBench, 2017)
FEWEST = 3  # pairs (or seeds) below which no interval is computed
CONFIDENCE = 0.95
UNSET = "—"  # the value of a setting that neither the case nor its run has
_Change = tuple[str, str, str]  # field, value before, value after


@dataclass(frozen=True)
class Results:
    """What an experiment has so far: its folder, the cases by name, and what could not be read, in Spanish."""

    path: Path
    cases: list[Case]
    problems: list[str]

    @property
    def finished(self) -> list[Case]:
        return [case for case in self.cases if case.is_finished]

    @property
    def saved_seconds(self) -> float:
        return sum(case.saved_seconds() for case in self.finished)

    @property
    def metric(self) -> str:
        """The metric that all finished cases monitor; the default one if they monitor different ones."""
        metrics = {case.monitor for case in self.finished}
        return metrics.pop() if len(metrics) == 1 else TrainConfig.monitor


@dataclass(frozen=True)
class Group:
    """The finished cases with the same settings, ordered by seed; `number` is its place in the table."""

    number: int
    cases: list[Case]

    @property
    def title(self) -> str:
        return self.cases[0].title

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline: a case of that name, or the recipe and no other change."""
        case = self.cases[0]
        is_recipe = case.settings.get("recipe") == BASELINE and case.content["changes"].keys() <= {"recipe"}
        return case.title == BASELINE or is_recipe

    def score(self, metric: str, side: str = "test", model: str = "") -> pd.Series:
        """Return a metric of each case, NaN for a case without it; see `Case.score`."""
        return pd.Series([case.score(metric, side, model) for case in self.cases], dtype=float)

    def seconds(self) -> pd.Series:
        return pd.Series([_total(case) for case in self.cases])


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
            return f"no se puede saber: hacen falta {FEWEST} pares y hay {self.pairs}"
        if not self.score.is_clear:
            return "no se distingue del ruido"
        direction = "mejora" if self.score.mean > 0 else "empeora"
        if self.score.corrected_low <= 0 <= self.score.corrected_high:
            return f"{direction}, pero puede ser azar entre tantas comparaciones"
        return direction


def read_results(out: str | Path) -> Results:
    """Read an experiment; a damaged case becomes a problem of the results. Raises `UserError` if there is no case."""
    path = plain_path(out)
    folders = case_folders(path)
    if not folders:
        missing = "no tiene ningún caso" if path.is_dir() else "no existe"
        raise UserError(
            f"La carpeta de experimentos «{path}» {missing}. Ejecute antes: python -m ocensa_nb experiments --grid "
            f"CUADRICULA.yaml --out {path}"
        )
    problems, cases, dropped = [], [], []
    for folder in folders:
        try:
            case = read_case(folder)
            if case.content.get("dropped"):
                dropped.append(case.name)
                continue
            cases.append(case)
            cases[-1] = with_results(case)
        except UserError as error:
            problems.append(f"Caso {folder.name}: {error}")
    if dropped:
        problems.append(f"Casos de la carpeta que ya no están en la cuadrícula, y no se cuentan: {listed(dropped)}.")
    return Results(path, _with_context(cases), problems)


def grouped(results: Results) -> list[Group]:
    """Return the groups of finished cases, the best mean test score of the monitored metric first."""
    together: dict[str, list[Case]] = {}
    for case in sorted(results.finished, key=lambda case: (case.seed, case.name)):
        together.setdefault(case.content["group"], []).append(case)
    groups = [Group(0, members) for members in together.values()]

    def order(group: Group) -> tuple[float, float, str]:
        return np.nan_to_num(-group.score(results.metric).mean()), group.seconds().mean(), group.title

    return [Group(number, group.cases) for number, group in enumerate(sorted(groups, key=order), 1)]


def baseline_of(groups: Sequence[Group]) -> Group | None:
    return next((group for group in groups if group.is_baseline), None)


def chosen(groups: Sequence[Group], metric: str) -> Group:
    """Return the group with the best mean validation score; the test rows have no part in the choice."""
    return max(groups, key=lambda group: np.nan_to_num(group.score(metric, "val").mean(), nan=-1.0))


def speedup(group: Group, baseline: Group) -> pd.Series:
    """Return the speed-ups over the baseline, of the cases with equal seed, machine, threads and jobs."""
    by_seed = {case.seed: case for case in baseline.cases}
    pairs = [(case, by_seed[case.seed]) for case in group.cases if case.seed in by_seed]
    ratios = [_total(other) / _total(case) for case, other in pairs if _are_comparable(case, other)]
    return pd.Series(ratios, dtype=float)


def pareto_front(groups: Sequence[Group], metric: str) -> pd.DataFrame:
    """Return the mean and standard deviation of the seconds and the score of each group that has a score.

    Indexed by number; `on_front` if no other is as good in less time, or better in as little.
    """
    rows = []
    for group in groups:
        score, seconds = group.score(metric), group.seconds()
        rows.append((score.mean(), score.std(), seconds.mean(), seconds.std()))
    columns = ["score", "score_sd", "seconds", "seconds_sd"]
    points = pd.DataFrame(rows, [group.number for group in groups], columns).dropna(subset="score")
    f1, seconds = points["score"], points["seconds"]
    beaten = [
        ((f1 >= point.score) & (seconds <= point.seconds) & ((f1 > point.score) | (seconds < point.seconds))).any()
        for point in points.itertuples()
    ]
    return points.assign(on_front=~np.array(beaten, bool))


def seconds_to_target(results: Results) -> dict[str, float | None]:
    """Return the seconds until the encoder of each case reached `SHARE` of the best validation score; None if never."""
    curves = {}
    for case in results.finished:
        lines = []
        with contextlib.suppress(UserError):  # a damaged history
            lines = Run(case.run, case.metadata, {}).history()
        points = [(line.get("seconds"), line.get(results.metric)) for line in lines if "epoch" in line]
        curves[case.name] = [point for point in points if all(isinstance(value, float) for value in point)]
    best = max((score for curve in curves.values() for _, score in curve), default=math.inf)
    reached = {}
    for case in results.finished:
        times = [seconds for seconds, score in curves[case.name] if score >= SHARE * best]
        reached[case.name] = times[0] + case.seconds()["frozen"] if times else None
    return reached


def effects(results: Results) -> list[Effect]:
    """Return the effect of each value of each setting, against that of the base of the grid."""
    together: dict[_Change, list[tuple[Case, Case]]] = {}
    for change, first, second in _pairs(results.finished, results.metric):
        together.setdefault(change, []).append((first, second))
    comparisons = sum(len(pairs) >= FEWEST for pairs in together.values())
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
    ratios = [(b.seed, math.log(_total(b) / _total(a))) for a, b in pairs if _are_comparable(a, b)]
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
    """Return the interval of (seed, difference) pairs; None if there are too few."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in differences:
        by_seed.setdefault(seed, []).append(value)
    # Cases with the same seed share their split, so their differences are not independent.
    averages = [statistics.fmean(values) for values in by_seed.values()]
    values = averages if len(averages) >= FEWEST else [value for _, value in differences]
    return interval(values, comparisons) if len(values) >= FEWEST else None


def _value(case: Case, name: str) -> str:
    """Return the value of a setting as text: that of the recipe if the case does not set it."""
    return as_text(case.settings.get(name, case.config.get(name, UNSET))) or UNSET


def _in_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def _total(case: Case) -> float:
    return case.seconds()["total"]


def _are_comparable(case: Case, other: Case) -> bool:
    return case.machine() == other.machine() and min(_total(case), _total(other)) > 0


def _with_context(cases: list[Case]) -> list[Case]:
    """Add what a case does not know alone: how its run was trained, and who computed the features that it reused."""
    trained = {case.name: case for case in cases if case.owns_run}
    built = {}
    for case in trained.values():
        if (features := nested(case.metadata, "features")) and not features.get("reused"):
            built[features.get("key")] = case.seconds()["frozen"]
    complete = []
    for case in cases:
        trainer = trained.get(case.content["trainer"], case)
        features = nested(trainer.metadata, "features")
        building = built.get(features.get("key")) if features.get("reused") else None
        of_training = {name: trainer.content[name] for name in ("jobs", "threads") if name in trainer.content}
        complete.append(dataclasses.replace(case, content=case.content | of_training, building=building))
    return complete


def summary(results: Results) -> str:
    """Return how many cases are in each state, and what the shared frozen layers saved."""
    text = f"{counted(len(results.cases), 'caso')}: {counts(results.cases)}."
    if not results.finished:
        return f"{text} Todavía no hay ningún resultado."
    if results.saved_seconds > 0:
        reused = sum(case.saved_seconds() > 0 for case in results.finished)
        text += (
            f" Guardar una sola vez las capas congeladas ahorró {results.saved_seconds:.1f} s en "
            f"{counted(reused, 'caso')}: son los segundos que tardó en calcularlas el primero, menos los que tardaron "
            "los demás en leerlas."
        )
    return text


def counted(count: int, noun: str) -> str:
    """Return a number with a noun or participle in the singular or plural; «en marcha» has no plural."""
    return f"{count} {noun}" if count == 1 or noun.startswith("en ") else f"{count} {noun}s"


def counts(cases: Iterable[Case]) -> str:
    statuses = [case.status for case in cases]
    order = (FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING)
    return ", ".join(counted(statuses.count(status), STATES[status]) for status in order if status in statuses)
