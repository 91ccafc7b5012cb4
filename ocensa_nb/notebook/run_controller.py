"""Train from the panel: start a training in another process, show its progress, stop it, and report how it ended.

The view is redrawn from one of two places only, because of a limit of Colab (`notebook/page_clock.py`): the panel, at
each tick of the page clock, after its button is pressed; or a cell, while that cell is executing.
"""

import signal
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
from IPython import get_ipython
from IPython.display import HTML, DisplayHandle, display

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.figures import training as plots
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook import live_view, training_process
from ocensa_nb.notebook.forecast import ExpectedTime, stop_measuring
from ocensa_nb.notebook.page_clock import PageClock, guarded
from ocensa_nb.notebook.training_process import Training, short
from ocensa_nb.runs import resume
from ocensa_nb.runs.run import HISTORY, Run
from ocensa_nb.runtime.machine import platform
from ocensa_nb.runtime.process import StopRequest, defer_signals

REDRAW_SECONDS = 2.0  # between two updates of the view
POLL_SECONDS = 0.2  # between two checks, in a cell, of whether it has ended or must stop
STOPPING = "Se detiene al terminar este paso y guarda el avance…"


def print_stops_plainly() -> None:
    """Print the message of a requested stop as plain text, not as a red error: it ends the cells, but nothing failed.

    For interactive use only: papermill finds a failed cell by its red error.
    """
    if shell := get_ipython():
        shell.set_custom_exc((AskedToStopError,), lambda shell, kind, error, trace, tb_offset=None: print(error))


class Runner:
    """The Entrenar and Detener buttons, and the live view of one panel.

    Parameters
    ----------
    notices : Notices
        Data to train on.
    root : Path
        Folder of the numbered runs.
    choose : callable
        Returns the recipe and the config to train.
    lock : callable
        Called with True when a training begins and with False when it ends.
    expected : ExpectedTime
        Predicted time of the settings; corrected by the pace of the training.
    """

    def __init__(
        self,
        notices: Notices,
        root: Path,
        choose: Callable[[], tuple[str, TrainConfig]],
        lock: Callable[[bool], None],
        expected: ExpectedTime,
    ) -> None:
        self.notices, self.root, self._choose, self._lock, self._expected = notices, root, choose, lock, expected
        self.training: Training | None = None
        self._history: live_view.History | None = None
        self._steps = 0
        self._picture: Any = None
        self.start = ipw.Button(description="Entrenar", button_style="success", tooltip="Entrena con estos ajustes")
        self.stop = ipw.Button(
            description="Detener", disabled=True, tooltip="Termina el paso en curso y guarda el avance"
        )
        self.start.on_click(lambda _: guarded(self._start, self.say))
        self.stop.on_click(lambda _: guarded(self._stop, self.say))
        self.clock = PageClock(lambda: guarded(self._redraw, self.say), REDRAW_SECONDS)
        self._status, self.view = ipw.HTML(), ipw.HTML()
        self.box = ipw.VBox([self._status, self.view, self.clock.box])

    def show_picture(self) -> None:
        """Reserve an output below the panel for the learning curves; saved notebooks do not include widgets."""
        self._picture = display({"text/plain": ""}, raw=True, display_id=True)

    def say(self, sentence: str) -> None:
        """Show a message under the buttons."""
        self._status.value = f'<div class="ocensa ocensa-state">{escape(sentence)}</div>'

    def name_start(self) -> None:
        """Label the button after its action: start a training or resume an interrupted one."""
        _, config = self._choose()
        will_resume = resume.will_resume(config, self.notices.fingerprint, self.root)
        self.start.description = "Continuar" if will_resume else "Entrenar"

    def watch(self, training: Training) -> None:
        """Follow a training in the panel until it ends."""
        self._attend(training)
        self.clock.start()

    def train(self, running: Training | None = None) -> Run:
        """Start a training, or follow a running one, in the executing cell and return the finished run.

        Interrupting the cell stops the training, with a checkpoint. A second interruption leaves the cell at once, and
        the panel follows the training while it stops.

        Parameters
        ----------
        running
            A running training to follow; None to start one.

        Returns
        -------
        Run
            The finished run.

        Raises
        ------
        AskedToStopError
            If the training was stopped.
        UserError
            If it ended with an error message for the user, or crashed.
        """
        try:
            with defer_signals(announce=False) as asked:
                return self._train_in(DisplayHandle(), asked, running)
        except KeyboardInterrupt:
            if not (self.training and self.training.is_running):
                raise AskedToStopError("Interrumpido antes de empezar a entrenar.", signal.SIGINT) from None
            self.clock.start()
            raise AskedToStopError(
                f"{STOPPING} Para continuar desde ahí, ejecute esta celda otra vez cuando el panel diga «Detenido».",
                signal.SIGINT,
            ) from None

    def _start(self) -> None:
        if self.start.disabled:  # a second click, made before the first was processed
            return
        if training_process.running():
            raise UserError("Ya hay un entrenamiento en marcha en este cuaderno: ejecute otra vez la celda del panel.")
        self.watch(self._launch())

    def _launch(self) -> Training:
        recipe, config = self._choose()
        folder = resume.resolve_run_dir(config.validate(), self.notices.fingerprint, self.root)
        self.say(f"Preparando el entrenamiento en «{short(folder)}»…")
        stop_measuring()  # two computations would slow each other down
        return Training(config, recipe, folder.resolve())

    def _stop(self) -> None:
        self.stop.disabled = True
        if not self.training.is_running:
            return
        self.training.stop()
        self.say(STOPPING)

    def _attend(self, training: Training) -> None:
        config = training.config
        self.training = training
        self._history = live_view.History(training.folder / HISTORY, list(config.heads))
        self._steps = config.epochs * config.steps_an_epoch(len(self.notices.split["train"]))
        self._show_running(True)

    def _show_running(self, running: bool) -> None:
        self.start.disabled, self.stop.disabled = True, not running
        self._lock(running)  # also labels the button, before it is enabled
        self.start.disabled = running

    def _draw(self, sentence: str = "") -> str:
        """Return the live view; before the first step, add the last line printed by the training."""
        self._history.update()
        if pace := self._history.seconds_per_step():
            self._expected.show_pace(pace * self._steps)
        words = sentence if self._history.step else f"{sentence} {self.training.last_words()}"
        over = self.training.exit_code == 0
        return live_view.view(self._history, self._steps, self.training.config.epochs, words.strip(), over)

    def _redraw(self) -> None:
        """Redraw the panel; if the training has ended, report how."""
        ended = not self.training.is_running
        self.view.value = self._draw()
        if ended:
            self.clock.stop()
            self._end()
        elif self._history.step and not self.stop.disabled:
            on_colab = " Ejecute la celda de abajo: Colab puede cerrar una sesión que no ejecuta ninguna celda."
            self.say(self._where() + (on_colab if platform() == "colab" else ""))

    def _end(self) -> None:
        try:
            run = self._outcome()
            if self._picture:
                self._picture.update(plots.learning_curves(run))
            self.say(f"{training_process.success(run)} Siga con las celdas de abajo.")
        except UserError as error:
            self.say(training_process.failure(error))
        finally:
            self._show_running(False)

    def _train_in(self, cell: DisplayHandle, asked: StopRequest, running: Training | None) -> Run:
        """Train and redraw the output of the executing cell until the training has ended."""
        self._attend(running or self._launch())
        self.stop.disabled = True  # the kernel processes no clicks while a cell is executing
        self.clock.stop()
        self.view.value = ""
        self.say(f"{self._where()} Se sigue en la celda que lo ejecuta; para detenerlo, pulse el ■ de esa celda.")
        cell.display(self._page())
        self._follow(cell, asked)
        try:
            run = self._outcome()
            self.say(training_process.success(run))
            cell.update(self._page(training_process.success(run)))
            return run
        except UserError as error:
            self.say(training_process.failure(error))
            cell.update(self._page() if self._history.step else HTML())  # the error is shown below
            raise
        finally:
            self._show_running(False)

    def _follow(self, cell: DisplayHandle, asked: StopRequest) -> None:
        """Redraw until the training has ended; stop it on request."""
        hint, redraw_at = f"{self._where()} Para detenerlo, pulse el ■ de esta celda.", 0.0
        while self.training.is_running:
            if asked.signal and hint != STOPPING:
                self.training.stop()
                self.say(STOPPING)
                hint, redraw_at = STOPPING, 0.0
            if time.monotonic() >= redraw_at:
                cell.update(self._page(hint))
                redraw_at = time.monotonic() + REDRAW_SECONDS
            time.sleep(POLL_SECONDS)

    def _outcome(self) -> Run:
        run = training_process.outcome(self.training, self.notices.fingerprint, self.root)
        self._expected.note_taken(run)
        return run

    def _page(self, sentence: str = "") -> HTML:
        """Return the live view with its style; on Colab styles are not shared between cells."""
        return HTML(f"<style>{PANEL_CSS}</style>{self._draw(sentence)}")

    def _where(self) -> str:
        gpus = f", en {self.training.processes} GPU" if self.training.processes > 1 else ""
        return f"Entrenando en «{short(self.training.folder)}»{gpus}."
