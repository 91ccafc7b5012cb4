"""What an experiment measured: its cases, their groups over the seeds, and what each setting changes."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError, listed, num
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
    number,
    read_case,
    with_results,
)
from ocensa_nb.paths import plain_path
from ocensa_nb.runs.run import Run

GRID = "grid.yaml"  # the copy in the experiment folder
BASELINE = "baseline"
SHARE = 0.95  # of the best validation score: the target of `seconds_to_target` (Coleman et al., DAWNBench, 2017)


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
        return pd.Series([total_seconds(case) for case in self.cases])


def read_results(out: str | Path) -> Results:
    """Read an experiment; a damaged case becomes a problem of the results. Raises `UserError` if there is no case."""
    path = plain_path(out)
    folders = case_folders(path)
    if not folders:
        missing = "no tiene ningún caso" if path.is_dir() else "no existe"
        raise UserError(
            f"La carpeta «{path}» {missing}. Ejecute: python -m ocensa_nb experiments --grid GRID.yaml --out {path}"
        )
    cases, problems = [], []
    for folder in folders:
        try:
            cases.append(read_case(folder))
        except UserError as error:
            problems.append(f"Caso {folder.name}: {error}")
    results = results_of(path, cases)
    return dataclasses.replace(results, problems=[*problems, *results.problems])


def results_of(path: Path, cases: Sequence[Case]) -> Results:
    """Return the results of the cases of an experiment folder."""
    kept = [case for case in cases if not case.content.get("dropped")]
    measured = [with_results(case) for case in kept]
    pairs = zip(kept, measured, strict=True)
    problems = [f"Caso {case.name}: {case.error}" for before, case in pairs if case.status != before.status]
    if dropped := [case.name for case in cases if case.content.get("dropped")]:
        problems.append(f"Casos de la carpeta que ya no están en la cuadrícula, y no se cuentan: {listed(dropped)}.")
    return Results(path, _with_context(measured), problems)


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
    ratios = [total_seconds(other) / total_seconds(case) for case, other in pairs if are_comparable(case, other)]
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
        points = [(number(line.get("seconds"), 1e9), number(line.get(results.metric), 1)) for line in lines]
        curves[case.name] = [point for point in points if None not in point]
    best = max((score for curve in curves.values() for _, score in curve), default=math.inf)
    reached = {}
    for case in results.finished:
        times = [seconds for seconds, score in curves[case.name] if score >= SHARE * best]
        reached[case.name] = times[0] + case.seconds()["frozen"] if times else None
    return reached


def total_seconds(case: Case) -> float:
    return case.seconds()["total"]


def are_comparable(case: Case, other: Case) -> bool:
    return case.machine() == other.machine() and min(total_seconds(case), total_seconds(other)) > 0


def _with_context(cases: list[Case]) -> list[Case]:
    """Add what a case does not know alone: how its run was trained, and who computed the features that it reused."""
    trained = {case.name: case for case in cases if case.owns_run}
    built = {}
    for case in trained.values():
        if (features := nested(case.metadata, "features")) and not features.get("reused"):
            built[str(features.get("key"))] = case.seconds()["frozen"]
    complete = []
    for case in cases:
        trainer = trained.get(case.content["trainer"], case)
        features = nested(trainer.metadata, "features")
        building = built.get(str(features.get("key"))) if features.get("reused") else None
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
            f" Guardar una sola vez las capas congeladas ahorró {num(results.saved_seconds, 1)} s en "
            f"{counted(reused, 'caso')}: lo que tardó en calcularlas el primero, menos lo que los demás en leerlas."
        )
    return text


def counted(count: int, noun: str) -> str:
    """Return a number with a noun or participle in the singular or plural; «en marcha» has no plural."""
    return f"{count} {noun}" if count == 1 or noun.startswith("en ") else f"{count} {noun}s"


def counts(cases: Iterable[Case]) -> str:
    statuses = [case.status for case in cases]
    order = (FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING)
    return ", ".join(counted(statuses.count(status), STATES[status]) for status in order if status in statuses)
