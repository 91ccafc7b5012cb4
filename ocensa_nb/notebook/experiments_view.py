"""The live table of an experiment as HTML: each case, its state, its seconds and its F1, read from its files."""

import statistics
from datetime import datetime
from html import escape
from pathlib import Path

from ocensa_nb.errors import UserError
from ocensa_nb.experiments.case_files import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, STATE, STATES
from ocensa_nb.experiments.case_result import CaseResult
from ocensa_nb.experiments.results import case_folders, read_case, with_results
from ocensa_nb.runtime.timing import duration

SHOWN = 60  # rows; the running ones are always among them


class ExperimentView:
    """Incremental reader of an experiment folder."""

    def __init__(self, out: Path, jobs: int = 1) -> None:
        self.out, self.jobs = out, jobs
        self.cases: list[CaseResult] = []
        self._known: dict[Path, tuple[int, CaseResult]] = {}

    def update(self) -> None:
        """Read the cases whose case.json has changed; a damaged one is left out until it is written again."""
        found = []
        for folder in case_folders(self.out):
            try:
                changed = (folder / STATE).stat().st_mtime_ns
                known = self._known.get(folder)
                if known is None or known[0] != changed or known[1].state["status"] == RUNNING:
                    self._known[folder] = changed, with_results(read_case(folder))
                found.append(self._known[folder][1])
            except (OSError, UserError):
                continue
        self.cases = [case for case in found if not case.state.get("dropped")]

    @property
    def done(self) -> int:
        """Number of cases that have ended."""
        return sum(case.state["status"] in (FINISHED, FAILED) for case in self.cases)

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until all cases have ended; None until one has finished."""
        took = [seconds for case in self.cases if case.state["status"] == FINISHED if (seconds := _seconds(case))]
        left = [case for case in self.cases if case.state["status"] in (PENDING, RUNNING, INTERRUPTED)]
        if not took:
            return None
        mean = statistics.fmean(took)
        work = sum(max(0.0, mean - (_elapsed(case) or 0.0)) for case in left)
        return work / max(1, min(self.jobs, len(left)))

    def html(self, sentence: str = "", running: bool = False) -> str:
        """Return the table, a bar, and a sentence in Spanish; its style is `figures.style.PANEL_CSS`."""
        total, left = len(self.cases), self.seconds_left() if running else None
        share = self.done / total if total else 0.0
        time_left = f" · faltan unos {duration(left)}" if left else ""
        said = f'<div class="ocensa-state">{escape(sentence)}</div>' if sentence else ""
        if not total:
            return f'<div class="ocensa">{said}</div>'
        order = [RUNNING, FAILED, INTERRUPTED, FINISHED, PENDING]
        shown = sorted(self.cases, key=lambda case: (order.index(case.state["status"]), case.name))[:SHOWN]
        more = f"<p>Y {total - len(shown)} casos más.</p>" if total > len(shown) else ""
        titles = "".join(f'<th scope="col">{title}</th>' for title in ("Caso", "Semilla", "Estado", "Tiempo", "F1"))
        return (
            f'<div class="ocensa">{said}<div class="ocensa-bar"><small>{self.done} de {total} casos{time_left}</small>'
            f'<div><i style="width:{100 * share:.1f}%"></i></div></div><div style="overflow-x:auto">'
            f'<table class="ocensa-cases"><thead><tr>{titles}</tr></thead><tbody>{"".join(map(_row, shown))}</tbody>'
            f"</table></div>{more}</div>"
        )


def _row(case: CaseResult) -> str:
    error, seconds, score = case.state.get("error"), _seconds(case), case.score(case.monitor)
    line = f": {error.get('line', '')}" if isinstance(error, dict) and case.state["status"] == FAILED else ""
    cells = [
        case.seed,
        STATES[case.state["status"]] + line,
        "" if seconds is None else duration(seconds),
        "" if score is None else f"{score:.3f}",
    ]
    return f'<tr><th scope="row">{escape(case.title)}</th>{"".join(f"<td>{escape(str(c))}</td>" for c in cells)}</tr>'


def _seconds(case: CaseResult) -> float | None:
    """Return the seconds of a case until now; None if it has not started."""
    if case.state["status"] == RUNNING:
        return _elapsed(case)
    seconds = case.state.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _elapsed(case: CaseResult) -> float | None:
    """Return the seconds since a running case was started; None for any other."""
    started = case.state.get("started")
    if case.state["status"] != RUNNING or not isinstance(started, str):
        return None
    try:
        return max(0.0, datetime.now().timestamp() - datetime.fromisoformat(started).timestamp())
    except ValueError:
        return None
