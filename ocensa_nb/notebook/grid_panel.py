"""Run a grid of experiments from notebook 08: buttons to start and stop, and a live table of its cases.

The grid runs in another process, with the command that the panel shows. The view is redrawn from one of two places
only, because of a limit of Colab (`page_clock.py`): the panel, at each tick of the page clock, after its button is
pressed; or a cell, while that cell is executing. Works with ipywidgets 7.7 (Colab's) and 8.
"""

import shlex
import signal
import time
from html import escape
from pathlib import Path

import ipywidgets as ipw
from IPython.display import HTML, DisplayHandle, display

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.experiments.case_files import FAILED
from ocensa_nb.experiments.results import Results, read_results
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook import session
from ocensa_nb.notebook.experiments_view import ExperimentView
from ocensa_nb.notebook.page_clock import PageClock, guarded
from ocensa_nb.notebook.process_panel import ChildProcess
from ocensa_nb.paths import ROOT, plain_path
from ocensa_nb.runtime.process import StopRequest, defer_signals

GRIDS = ROOT / "notebooks" / "grids"
REDRAW_SECONDS = 2.0  # between two updates of the view
POLL_SECONDS = 0.2  # between two checks, in a cell, of whether it has ended or must stop
STOPPING = "Se detiene al terminar el paso en curso y guarda el avance…"
STOPPED = (
    "Detenido. Para continuar, pulse Empezar o ejecute otra vez la celda de abajo: los casos terminados se conservan."
)

_started: dict[Path, ChildProcess] = {}  # lets a new panel follow a grid that an earlier one started, by its folder


def grid_path(grid: str) -> Path:
    """Return the file of a grid: a path, or the name of one in `notebooks/grids`."""
    for path in (plain_path(grid), GRIDS / f"{grid}.yaml"):
        if grid and path.is_file():
            return path
    names = ", ".join(file.stem for file in sorted(GRIDS.glob("*.yaml")))
    raise UserError(f"grid = «{grid}»: no existe ese archivo ni esa cuadrícula. Las incluidas son: {names}.")


def experiments_panel(
    grid: str, out: str | Path = "", jobs: int = 1, root: Path = Path("runs"), interactive: bool | None = None
) -> "Experiments":
    """Return the panel of a grid; display it in a notebook and run the grid with its `run`.

    Parameters
    ----------
    grid
        A path, or a name in `notebooks/grids`.
    out
        Folder of the results; empty for `experiments-NAME` in `root`. If it has results of the grid, they are kept.
    jobs
        How many cases run at the same time, each with a part of the threads.
    root
        Folder of the runs.
    interactive
        Whether a user can press the buttons; None to detect it.

    Returns
    -------
    Experiments
        A `Panel` with widgets if interactive.

    Raises
    ------
    UserError
        If the grid does not exist, or `jobs` is less than 1.
    """
    path = grid_path(grid)
    if jobs < 1:
        raise UserError(f"jobs = {jobs}: debe ser 1 como mínimo.")
    with_user = session.is_interactive() if interactive is None else interactive
    folder = plain_path(out) if str(out) else root / f"experiments-{path.stem}"
    return (Panel if with_user else Experiments)(path, folder, jobs)


class Experiments:
    """Run a grid in another process and show its progress in the executing cell."""

    def __init__(self, grid: Path, out: Path, jobs: int) -> None:
        self.grid, self.out, self.jobs = grid, out, jobs
        self.view = ExperimentView(out, jobs)
        self.process = _started.get(out.absolute())

    @property
    def is_running(self) -> bool:
        """Whether the grid is running, started from this notebook."""
        return self.process is not None and self.process.is_running

    def command(self) -> str:
        """Return the command that runs the grid."""
        return shlex.join(["python", "-m", "ocensa_nb", *self._arguments()])

    def run(self) -> Results:
        """Run the grid in this cell, or follow it if it is running, and return its results.

        Interrupting the cell stops it with a checkpoint; executing it again continues. Failed cases do not stop the
        others: the table and the report name them.
        """
        cell = DisplayHandle()
        try:
            with defer_signals(announce=False) as asked:
                if not self.is_running:
                    self._launch()
                cell.display(self._page("Preparando…"))
                self._follow(cell, asked)
        except KeyboardInterrupt:  # a second interruption leaves the cell; the grid still stops
            raise AskedToStopError(STOPPING, signal.SIGINT) from None
        sentence = self._outcome()
        cell.update(self._page(sentence))
        if self.process.was_asked_to_stop:
            raise AskedToStopError(STOPPED, signal.SIGTERM)
        return read_results(self.out)

    def _ipython_display_(self) -> None:
        display(HTML(f"<p>Se ejecuta con este comando:</p><pre>{escape(self.command())}</pre>"))

    def _arguments(self) -> list[str]:
        return ["experiments", "--grid", str(self.grid), "--out", str(self.out), "--jobs", str(self.jobs)]

    def _launch(self) -> None:
        self.process = _started[self.out.absolute()] = ChildProcess(self._arguments())

    def _follow(self, cell: DisplayHandle, asked: StopRequest) -> None:
        """Redraw until the process has ended; stop it on request."""
        hint, redraw_at = "Para detenerlo, pulse el ■ de esta celda.", 0.0
        while self.process.is_running:
            if asked.signal and hint != STOPPING:
                self.process.stop()
                hint, redraw_at = STOPPING, 0.0
            if time.monotonic() >= redraw_at:
                cell.update(self._page(hint))
                redraw_at = time.monotonic() + REDRAW_SECONDS
            time.sleep(POLL_SECONDS)

    def _outcome(self) -> str:
        """Return how the process ended, in Spanish; raises `UserError` if it made nothing."""
        self.view.update()
        if self.process.was_asked_to_stop:
            return STOPPED
        if self.process.exit_code == 0:
            return f"✅ Listo. El informe está en «{self.out / 'report.html'}»."
        if self.process.was_refused or not self.view.cases:
            words = self.process.last_words() or "El comando terminó sin decir por qué."
            if not any(case.state["status"] == FAILED for case in self.view.cases):
                raise UserError(words)
            return f"⚠️ Hay casos fallidos, que se nombran en la tabla y en el informe. {words}"
        raise UserError(
            f"Terminó de forma inesperada (código {self.process.exit_code}): {self.process.last_words()} Ejecute otra "
            "vez: los casos terminados se conservan."
        )

    def _page(self, sentence: str) -> HTML:
        """Return the live table with its style; on Colab styles are not shared between cells."""
        return HTML(f"<style>{PANEL_CSS}</style>{self._draw(sentence)}")

    def _draw(self, sentence: str = "") -> str:
        """Return the live table; before the first case, with the last line of the command."""
        self.view.update()
        words = sentence if self.view.cases or not self.process else f"{sentence} {self.process.last_words()}"
        return self.view.html(words.strip(), self.is_running)


class Panel(Experiments):
    """The interactive panel: buttons, and the live table."""

    def __init__(self, grid: Path, out: Path, jobs: int) -> None:
        super().__init__(grid, out, jobs)
        self.start = ipw.Button(description="Empezar", button_style="success", tooltip="Ejecuta o continúa los casos")
        self.stop = ipw.Button(description="Detener", disabled=True, tooltip="Termina el paso y guarda el avance")
        self.start.on_click(lambda _: guarded(self._start, self.say))
        self.stop.on_click(lambda _: guarded(self._stop, self.say))
        self.clock = PageClock(lambda: guarded(self._redraw, self.say), REDRAW_SECONDS)
        self._status, self._table = ipw.HTML(), ipw.HTML()
        title = f'<div class="ocensa-title">{escape(grid.stem)} → {escape(str(out))}</div>'
        repeat = f"<summary>Lo mismo desde una terminal</summary><pre>{escape(self.command())}</pre>"
        self.box = ipw.VBox(
            [
                ipw.HTML(f"<style>{PANEL_CSS}</style>{title}"),
                ipw.HBox([self.start, self.stop], layout={"flex_flow": "row wrap"}),
                self._status,
                self._table,
                self.clock.box,
                ipw.HTML(f'<details class="ocensa">{repeat}</details>'),
            ]
        )
        self.box.add_class("ocensa-panel")

    def say(self, sentence: str) -> None:
        """Show a message under the buttons."""
        self._status.value = f'<div class="ocensa ocensa-state">{escape(sentence)}</div>'

    def run(self) -> Results:
        """Run the grid in this cell; see `Experiments.run`. The buttons do not respond meanwhile."""
        self.clock.stop()
        self._show_running(True)
        self.stop.disabled = True  # the kernel processes no clicks while a cell is executing
        self.say("Se sigue en la celda que lo ejecuta; para detenerlo, pulse el ■ de esa celda.")
        try:
            found = super().run()
            self.say(self._outcome())
            return found
        except UserError as error:
            self.say(str(error))
            raise
        finally:
            self._table.value = self._draw()
            self._show_running(self.is_running)
            if self.is_running:  # left by a second interruption
                self.clock.start()

    def _ipython_display_(self) -> None:
        self._table.value = self._draw()
        display(self.box)
        if self.is_running:  # started before this cell was executed again
            self._show_running(True)
            self.clock.start()

    def _start(self) -> None:
        if self.start.disabled:  # a second click, made before the first was processed
            return
        self._show_running(True)
        self.say("Preparando…")
        self._launch()
        self.clock.start()

    def _stop(self) -> None:
        self.stop.disabled = True
        self.process.stop()
        self.say(STOPPING)

    def _redraw(self) -> None:
        """Redraw the table; if the process has ended, say how."""
        ended = not self.is_running
        self._table.value = self._draw()
        if ended:
            self.clock.stop()
            self._show_running(False)
            self.say(self._outcome())
        elif self.view.cases and not self.stop.disabled:
            self.say(f"En marcha, en «{self.out}».")

    def _show_running(self, running: bool) -> None:
        self.start.disabled, self.stop.disabled = running, not running
