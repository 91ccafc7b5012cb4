"""What the user reads while a grid runs: one line per change, and the time left."""

import statistics
import time
from collections import Counter
from collections.abc import Iterable

from ocensa_nb.experiments.case import CaseState
from ocensa_nb.experiments.case_files import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, STATES, counted
from ocensa_nb.runs.run import read_config
from ocensa_nb.runtime.timing import duration

ORDER = (FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING)


class Progress:
    """Describe the changes of the cases and estimate the time left."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._started: dict[str, float] = {}
        self._took: dict[bool, list[float]] = {True: [], False: []}  # with a training, and without

    def note(self, case: CaseState) -> None:
        """Record that a case has started or ended."""
        if case.status == RUNNING:
            self._started[case.name] = time.monotonic()
        elif case.status == FINISHED and case.name in self._started:
            self._took[case.owns_run].append(time.monotonic() - self._started[case.name])

    def line(self, case: CaseState, cases: list[CaseState]) -> str:
        """Return the line that says what happened to a case, and how the grid stands."""
        done = sum(other.status in (FINISHED, FAILED, INTERRUPTED) for other in cases)
        what = STATES[case.status]
        if case.status in (FINISHED, INTERRUPTED):
            what += f" en {duration(case.seconds)}"
        elif case.status == FAILED:
            what += f": {describe_error(case)}"
        left = self.seconds_left(cases)
        end = f"; faltan unos {duration(left)}" if left and left >= 1 else ""
        return f"[{done}/{len(cases)}] {case.title} · semilla {case.seed}: {what}. {counts(cases)}{end}."

    def seconds_left(self, cases: list[CaseState]) -> float | None:
        """Return the seconds until all cases have ended; None before the first one has."""
        everything = [*self._took[True], *self._took[False]]
        if not everything:
            return None
        total = 0.0
        left = [case for case in cases if case.status in (PENDING, RUNNING)]
        for case in left:
            expected = statistics.mean(self._took[case.owns_run] or everything)
            elapsed = time.monotonic() - self._started[case.name] if case.status == RUNNING else 0.0
            total += max(0.0, expected - elapsed)
        return total / max(1, min(self.slots, len(left)))


def counts(cases: Iterable[CaseState]) -> str:
    """Return how many cases have each status, in Spanish."""
    found = Counter(case.status for case in cases)
    return ", ".join(counted(found[status], STATES[status]) for status in ORDER if found[status])


def describe_error(case: CaseState) -> str:
    """Return where and how a case failed: notebook, cell and last line of the traceback."""
    if case.status == INTERRUPTED:
        return "interrumpido"
    error = case.error or {}
    cell = f", celda [{error['cell']}]" if error.get("cell") else ""
    where = f"{error['notebook']}{cell}: " if error.get("notebook") else ""
    return f"{where}{error.get('line', 'motivo desconocido')}".rstrip(".")


def saved_seconds(cases: Iterable[CaseState]) -> float:
    """Return the seconds saved because cases shared the features of their frozen layers."""
    took: dict[str, float] = {}
    reused: list[tuple[str, float]] = []
    for run in {case.run for case in cases if case.status == FINISHED}:
        metadata = read_config(run)
        features, seconds = metadata["features"], metadata["seconds"]["features"]
        if not features:
            continue
        if features["reused"]:
            reused.append((features["key"], seconds))
        else:
            took[features["key"]] = seconds
    return sum(max(0.0, took[key] - seconds) for key, seconds in reused if key in took)
