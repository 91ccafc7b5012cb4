"""The panel of notebook 07: run a grid of experiments in another process, with a live table of its cases."""

import shlex
from html import escape
from pathlib import Path

import ipywidgets as ipw
import pandas as pd
from IPython.display import HTML, display

from ocensa_nb.errors import UserError, duration, num
from ocensa_nb.experiments.case import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    STATE,
    STATES,
    Case,
    case_folders,
    read_case,
    with_results,
)
from ocensa_nb.experiments.results import Results, read_results
from ocensa_nb.experiments.run import run_grid, seconds_left
from ocensa_nb.figures.style import PANEL_CSS, readable
from ocensa_nb.notebook import live_view, session
from ocensa_nb.notebook.controls import in_terminal, panel
from ocensa_nb.notebook.process_panel import ChildProcess, ProcessPanel, print_stops_plainly
from ocensa_nb.paths import NOTEBOOKS, plain_path
from ocensa_nb.runtime.machine import visible_gpus

GRIDS = NOTEBOOKS / "grids"
SHOWN = 60  # rows of the table; the running cases are always among them
STOPPED = (
    "Detenido. Para continuar, pulse Empezar o ejecute otra vez la celda de abajo: los casos terminados se conservan."
)


def grid_path(grid: str) -> Path:
    for path in (plain_path(grid), GRIDS / f"{grid}.yaml"):
        if grid and path.is_file():
            return path
    names = ", ".join(file.stem for file in sorted(GRIDS.glob("*.yaml")))
    raise UserError(f"grid = «{grid}»: no existe ese archivo ni esa cuadrícula. Las incluidas son: {names}.")


def experiments_panel(
    grid: str, out: str | Path = "", jobs: int = 0, root: Path = Path("runs"), interactive: bool | None = None
) -> "GridPanel | GridInKernel":
    """Return the panel of a grid; display it and run the grid with its `run`.

    Parameters
    ----------
    grid
        A path, or a name in `notebooks/grids`.
    out
        Folder of the results, kept if there are any; empty for `experiments-NAME` in `root`.
    jobs
        How many cases run at the same time, each with a part of the threads; 0 for one per GPU, or one.
    """
    path = grid_path(grid)
    if jobs < 0:
        raise UserError(f"jobs = {jobs}: debe ser 0 (uno por GPU) o más.")
    with_user = session.is_interactive() if interactive is None else interactive
    folder = plain_path(out) if str(out) else root / f"experiments-{path.stem}"
    return (GridPanel if with_user else GridInKernel)(path, folder, jobs or len(visible_gpus()) or 1)


class GridInKernel:
    """Run a grid in the kernel, with progress lines, and show the table of its cases."""

    def __init__(self, grid: Path, out: Path, jobs: int) -> None:
        self.grid, self.out, self.jobs = grid, out, jobs
        self._arguments = ["experiments", "--grid", str(grid), "--out", str(out), "--jobs", str(jobs)]
        self._command = in_terminal(shlex.join(["python", "-m", "ocensa_nb", *self._arguments]))
        self._table = CaseTable(out, jobs)

    def run(self) -> Results:
        run_grid(self.grid, self.out, self.jobs)
        self._table.update()
        display(HTML(f"<style>{PANEL_CSS}</style>{self._table.html()}"))
        return read_results(self.out)

    def _ipython_display_(self) -> None:
        display(HTML(self._command))


class GridPanel(GridInKernel, ProcessPanel):
    """Buttons that start and stop a grid in another process, and the live table of its cases."""

    def __init__(self, grid: Path, out: Path, jobs: int) -> None:
        GridInKernel.__init__(self, grid, out, jobs)
        ProcessPanel.__init__(self, "Empezar", "Ejecuta o continúa los casos")
        self.process = next((process for process in ChildProcess.running() if process.folder == out.absolute()), None)
        title = ipw.HTML(f'<div class="ocensa-title">{escape(grid.stem)} → {escape(str(out))}</div>')
        self.box = panel(title, self.buttons, self.following, ipw.HTML(self._command))

    def run(self) -> Results:
        """Run the grid in this cell, or follow it (see `follow_in_cell`); failed cases do not stop it."""
        return self.follow_in_cell(self.process if self.process and self.process.is_running else None)

    def _ipython_display_(self) -> None:
        print_stops_plainly()
        self._update()
        self.view.value = self._html("")
        display(self.box)
        if self.process:  # started before this cell was executed again
            self.watch(self.process)

    def _launch(self) -> ChildProcess:
        self.say("Preparando…")
        return ChildProcess(self._arguments, self.out.absolute())

    def _update(self) -> bool:
        self._table.update()
        return bool(self._table.cases)

    def _html(self, sentence: str) -> str:
        return self._table.html(sentence, self.process is not None and self.process.is_running)

    def _where(self) -> str:
        return f"En marcha, en «{self.out}»."

    def _outcome(self) -> tuple[Results, str]:
        self._update()
        if self.process.was_refused and any(case.status == FAILED for case in self._table.cases):
            failed = "⚠️ Hay casos fallidos, que se nombran en la tabla y en el informe."
            return read_results(self.out), f"{failed} {self.process.last_words()}"
        self.process.require_success(STOPPED, "Ejecute otra vez: los casos terminados se conservan.")
        return read_results(self.out), f"✅ Listo. El informe está en «{self.out / 'report.html'}»."


class CaseTable:
    """The cases of an experiment folder as an HTML table: state, seconds and F1."""

    def __init__(self, out: Path, jobs: int = 1) -> None:
        self.out, self.jobs = out, jobs
        self.cases: list[Case] = []
        self._known: dict[Path, tuple[int, Case]] = {}

    def update(self) -> None:
        """Read the cases with a changed case.json; a damaged one is left out until it is written again."""
        cases = []
        for folder in case_folders(self.out):
            try:
                changed = (folder / STATE).stat().st_mtime_ns
                known = self._known.get(folder)
                if known is None or known[0] != changed or known[1].status == RUNNING:
                    self._known[folder] = changed, with_results(read_case(folder))
                cases.append(self._known[folder][1])
            except (OSError, UserError):
                continue
        self.cases = [case for case in cases if not case.content.get("dropped")]

    def html(self, sentence: str = "", running: bool = False) -> str:
        """Return the table, a bar and a Spanish sentence; its style is `figures.style.PANEL_CSS`."""
        total, left = len(self.cases), seconds_left(self.cases, self.jobs) if running else None
        state = f'<div class="ocensa-state">{escape(sentence)}</div>' if sentence else ""
        if not total:
            return f'<div class="ocensa">{state}</div>'
        ended = sum(case.status in (FINISHED, FAILED) for case in self.cases)
        time_left = f" · faltan unos {duration(left)}" if left else ""
        bar = live_view.bar(f"{ended} de {total} casos{time_left}", ended / total)
        order = [RUNNING, FAILED, INTERRUPTED, FINISHED, PENDING]
        shown = sorted(self.cases, key=lambda case: (order.index(case.status), case.name))[:SHOWN]
        rows = readable(pd.DataFrame([_row(case) for case in shown]))
        table = rows.to_html(table_attributes='class="ocensa-cases"')
        more = f"<p>Y {total - len(shown)} casos más.</p>" if total > len(shown) else ""
        return f'<div class="ocensa">{state}{bar}<div style="overflow-x:auto">{table}</div>{more}</div>'


def _row(case: Case) -> dict[str, str]:
    score = case.score(case.monitor)
    return {
        "Caso": case.title,
        "Semilla": str(case.seed),
        "Estado": STATES[case.status] + (f": {case.error}" if case.status == FAILED else ""),
        "Tiempo": "" if case.took is None else duration(case.took),
        "F1": "" if score is None else num(score, 3),
    }
