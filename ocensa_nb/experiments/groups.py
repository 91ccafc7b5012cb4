"""Groups of cases that differ only in their seed: means and deviations, speed-up, and the Pareto front."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from ocensa_nb.config import TrainConfig
from ocensa_nb.experiments.case_result import CaseResult

BASELINE = "baseline"


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (None for a single value), smallest and largest of some values, and their number."""

    mean: float
    sd: float | None
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Group:
    """The finished cases with the same settings, ordered by seed."""

    number: int
    cases: list[CaseResult]

    @property
    def key(self) -> str:
        """The identifier of the group."""
        return self.cases[0].state["group"]

    @property
    def title(self) -> str:
        """What the user calls the group."""
        return self.cases[0].title

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline: a case of that name, or the recipe and no other change."""
        case = self.cases[0]
        is_recipe = case.settings.get("recipe") == BASELINE and case.state["changes"].keys() <= {"recipe"}
        return case.title == BASELINE or is_recipe

    def score(self, metric: str, side: str = "test", model: str = "") -> Spread | None:
        """Return the spread of a metric over the seeds; None if no case has it. See `CaseResult.score`."""
        return spread(case.score(metric, side, model) for case in self.cases)

    def seconds(self) -> Spread:
        """Return the spread of the total seconds of the cases."""
        return spread(case.seconds()["total"] for case in self.cases)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    sd = statistics.stdev(known) if len(known) > 1 else None
    return Spread(statistics.fmean(known), sd, min(known), max(known), len(known))


def monitored(cases: list[CaseResult]) -> str:
    """Return the metric that all cases monitor; the default one if they monitor different ones."""
    metrics = {case.monitor for case in cases}
    return metrics.pop() if len(metrics) == 1 else TrainConfig.monitor


def grouped(cases: list[CaseResult]) -> list[Group]:
    """Return the groups of finished cases, the best mean test score of the monitored metric first."""
    metric = monitored(cases)
    together: dict[str, list[CaseResult]] = {}
    for case in sorted(cases, key=lambda case: (case.seed, case.name)):
        together.setdefault(case.state["group"], []).append(case)
    groups = [Group(0, members) for members in together.values()]

    def place(group: Group) -> tuple[float, float, str]:
        score = group.score(metric)
        return (-score.mean if score else 0.0, group.seconds().mean, group.title)

    return [Group(number, group.cases) for number, group in enumerate(sorted(groups, key=place), 1)]


def baseline_of(groups: list[Group]) -> Group | None:
    """Return the group of the baseline, or None."""
    return next((group for group in groups if group.is_baseline), None)


def chosen(groups: list[Group], metric: str) -> Group:
    """Return the group with the best mean validation score; the test rows have no part in the choice."""
    return max(groups, key=lambda group: score.mean if (score := group.score(metric, "val")) else -1.0)


def speedup(group: Group, baseline: Group) -> Spread | None:
    """Return how many times faster than the baseline the cases of a group are, seed by seed.

    Only cases with the same seed and the same machine, threads and jobs are compared; None if there is none.
    """
    by_seed = {case.seed: case for case in baseline.cases}
    pairs = [(case, by_seed[case.seed]) for case in group.cases if case.seed in by_seed]
    return spread(
        other.seconds()["total"] / case.seconds()["total"]
        for case, other in pairs
        if case.machine() == other.machine() and case.seconds()["total"] > 0
    )


def pareto_front(groups: list[Group], metric: str) -> set[str]:
    """Return the keys of the groups that no other group beats: none is as good in less time, or better in as little."""
    points = {group.key: (score.mean, group.seconds().mean) for group in groups if (score := group.score(metric))}
    return {
        key
        for key, (f1, seconds) in points.items()
        if not any(
            better >= f1 and faster <= seconds and (better, faster) != (f1, seconds)
            for better, faster in points.values()
        )
    }
