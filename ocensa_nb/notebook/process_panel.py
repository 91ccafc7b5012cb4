"""Run a command of the package in another process and follow it, with ipywidgets 7.7 (Colab's) or 8."""

import abc
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as ipw
from IPython import get_ipython
from IPython.display import HTML, DisplayHandle

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.figures.style import PANEL_CSS
from ocensa_nb.notebook.controls import ROW, button, describe, guarded
from ocensa_nb.paths import ROOT
from ocensa_nb.runtime.machine import platform
from ocensa_nb.runtime.process import StopRequest, defer_signals

TRACEBACK = "Traceback (most recent call last)"
TAIL = 16_000  # bytes read from the end of the log
# Stops the process with a checkpoint. Not SIGINT: a notebook sends that to all its processes when a cell is
# interrupted, and this must not end a training.
STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}
REDRAW_SECONDS = 2.0  # between two updates of the view
POLL_SECONDS = 0.2  # between two checks, in a cell, of whether it has ended or must stop
STOPPING = "Se detiene al terminar este paso y guarda el avance…"
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


class ChildProcess:
    """A command in a background process, started on construction; `folder` is the one it writes to."""

    _started: ClassVar[list["ChildProcess"]] = []

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._temporary = tempfile.TemporaryDirectory(prefix="ocensa-", ignore_cleanup_errors=True)
        self._log = Path(self._temporary.name) / "log.txt"
        with open(self._log, "wb") as log, _interruptions_ignored():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocensa_nb", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
                **OWN_GROUP,
            )
        ChildProcess._started.append(self)

    @classmethod
    def running(cls) -> list[Any]:
        """Return the running processes of this class: a new panel follows what an earlier one started."""
        return [process for process in ChildProcess._started if isinstance(process, cls) and process.is_running]

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def was_asked_to_stop(self) -> bool:
        """Whether it ended on request; it can be resumed if it had reached a checkpoint."""
        return 128 < (self.exit_code or 0) < 160 or self.exit_code == -signal.SIGTERM

    @property
    def was_refused(self) -> bool:
        """Whether it ended with an error message for the user (see `last_words`), not with a crash."""
        return self.exit_code in (1, 2) and TRACEBACK not in self._tail()

    def require_success(self, stopped: str, advice: str) -> None:
        """Raise the error of a process that was refused, asked to stop (`stopped` says how to continue), or crashed."""
        if self.was_refused:
            raise UserError(self.last_words() or "El comando terminó sin decir por qué.")
        if self.was_asked_to_stop:
            raise AskedToStopError(stopped, signal.SIGTERM)
        if self.exit_code:
            words = f"{self.last_words()} {advice}".strip()
            raise UserError(f"Terminó de forma inesperada (código {self.exit_code}): {words}")

    def stop(self) -> None:
        if self.is_running:
            self._process.send_signal(STOP)

    def last_words(self) -> str:
        """Return the last line of its output, including progress bars; empty if there is none."""
        lines = [line.strip() for line in self._tail().replace("\r", "\n").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def _tail(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - TAIL))
            return log.read().decode("utf-8", "replace")


class PageClock:
    """Call a function every few seconds while running, each time from a message of the front end; display its `box`.

    Colab delivers a widget update only while the request that caused it is being executed
    (googlecolab/colabtools#3373), so a thread or a timer in the kernel cannot redraw. In ipywidgets 7 and 8 a hidden
    `Play` widget does not start by itself. Here each tick sets the timer of the next, so ticks do not accumulate, and a
    reloaded page resumes by itself.
    """

    def __init__(self, on_tick: Callable[[], None], seconds: float) -> None:
        self._on_tick, self._seconds = on_tick, seconds
        self._running, self._ticks = False, 0
        self._button, self._timer = ipw.Button(), ipw.HTML()
        self._button.on_click(lambda _: self.tick())
        self.box = ipw.HBox([self._button, self._timer], layout={"display": "none"})
        self.box.add_class("ocensa-clock")

    def start(self) -> None:
        self._running = True
        self._set_timer()

    def stop(self) -> None:
        self._running = False  # a pending tick is ignored
        self._timer.value = ""

    def tick(self) -> None:
        if self._running:
            self._on_tick()
        if self._running:
            self._set_timer()

    def _set_timer(self) -> None:
        """Display an image that sets the timer in `onload`; browsers do not run a script inserted in a widget."""
        self._ticks += 1  # an unchanged value would not be sent
        # A page has one timer per clock, even if the clock is displayed several times.
        timer = f"window['ocensa-clock-{self._timer.model_id}']"
        press = "this.closest('.ocensa-clock')?.querySelector('button').click()"
        self._timer.value = (
            f'<img alt="" data-tick="{self._ticks}" src="{DOT}" '
            f'onload="clearTimeout({timer}); {timer} = setTimeout(() => {press}, {round(1000 * self._seconds)})">'
        )


class ProcessPanel(abc.ABC):
    """Start and stop buttons and a live view, redrawn only by the page clock or an executing cell (`PageClock`)."""

    process: Any = None  # the `ChildProcess` that is followed

    def __init__(self, start: str, tooltip: str) -> None:
        self.start = button(start, self._start, self.say, tooltip, button_style="success")
        about = "Termina el paso en curso y guarda el avance"
        self.stop = button("Detener", self._stop, self.say, about, disabled=True)
        self.clock = PageClock(lambda: guarded(self._redraw, self.say), REDRAW_SECONDS)
        self.status, self.view = ipw.HTML(), ipw.HTML()
        self.buttons = ipw.HBox([self.start, self.stop], layout=ROW)
        self.following = ipw.VBox([self.status, self.view, self.clock.box])

    @abc.abstractmethod
    def _launch(self) -> ChildProcess:
        """Start the process."""

    @abc.abstractmethod
    def _update(self) -> bool:
        """Read what the process has written; return whether there is something to show."""

    @abc.abstractmethod
    def _html(self, sentence: str) -> str:
        """Return the live view with a sentence above it."""

    @abc.abstractmethod
    def _outcome(self) -> tuple[Any, str]:
        """Return the result of the ended process and a sentence about it; raises `UserError` if there is no result."""

    @abc.abstractmethod
    def _where(self) -> str:
        """Return a sentence with the folder of the running process."""

    def _show_below(self, result: Any) -> None:  # noqa: B027
        """Show more of a result below the panel."""

    def say(self, sentence: str) -> None:
        self.status.value = f'<div class="ocensa ocensa-state">{escape(sentence)}</div>'

    def watch(self, process: ChildProcess) -> None:
        self._attend(process)
        self.clock.start()

    def follow_in_cell(self, process: ChildProcess | None) -> Any:
        """Follow a process, or a new one, and return its result; an interruption stops it: `AskedToStopError`."""
        cell = DisplayHandle()
        try:
            with defer_signals(announce=False) as asked:
                self._attend(process or self._launch())
                self.stop.disabled = True  # the kernel processes no clicks while a cell is executing
                self.clock.stop()
                self.view.value = ""
                where = self._where()
                self.say(f"{where} Se sigue en la celda que lo ejecuta; para detenerlo, pulse el ■ de esa celda.")
                cell.display(self._page())
                self._redraw_until_end(cell, asked)
                return self._end_in(cell)
        except KeyboardInterrupt:
            if not (self.process and self.process.is_running):
                raise AskedToStopError("Interrumpido antes de empezar.", signal.SIGINT) from None
            # A second interruption: the panel follows the process while it stops.
            self.clock.start()
            raise AskedToStopError(
                f"{STOPPING} Para continuar desde ahí, ejecute esta celda otra vez cuando el panel diga «Detenido».",
                signal.SIGINT,
            ) from None

    def _start(self) -> None:
        if not self.start.disabled:  # it is at a second click, made before the first was processed
            self.watch(self._launch())

    def _stop(self) -> None:
        self.stop.disabled = True
        if self.process.is_running:
            self.process.stop()
            self.say(STOPPING)

    def _attend(self, process: ChildProcess) -> None:
        self.process = process
        self._show_running(True)

    def _show_running(self, running: bool) -> None:
        self.start.disabled, self.stop.disabled = running, not running

    def _redraw(self) -> None:
        ended = not self.process.is_running  # asked first: it may write until it ends
        self.view.value = self._draw()
        if ended:
            self.clock.stop()
            result, sentence = self._end()
            self._show_below(result)
            self.say(f"{sentence} Siga con las celdas de abajo.")
        elif self._update() and not self.stop.disabled:
            on_colab = " Ejecute la celda de abajo: Colab puede cerrar una sesión que no ejecuta ninguna celda."
            self.say(self._where() + (on_colab if platform() == "colab" else ""))

    def _end(self) -> tuple[Any, str]:
        try:
            return self._outcome()
        finally:
            self._show_running(False)

    def _redraw_until_end(self, cell: DisplayHandle, asked: StopRequest) -> None:
        hint, redraw_at = f"{self._where()} Para detenerlo, pulse el ■ de esta celda.", 0.0
        while self.process.is_running:
            if asked.signal and hint != STOPPING:
                self.process.stop()
                self.say(STOPPING)
                hint, redraw_at = STOPPING, 0.0
            if time.monotonic() >= redraw_at:
                cell.update(self._page(hint))
                redraw_at = time.monotonic() + REDRAW_SECONDS
            time.sleep(POLL_SECONDS)

    def _end_in(self, cell: DisplayHandle) -> Any:
        try:
            result, sentence = self._end()
        except UserError as error:
            self.say(describe(error))
            has_view = self._update()
            cell.update(self._page() if has_view else HTML())  # the error is shown below
            self.view.value = self._draw() if has_view else ""  # the cell loses it when it is executed again
            raise
        self.say(sentence)
        cell.update(self._page(sentence))
        return result

    def _page(self, sentence: str = "") -> HTML:
        return HTML(f"<style>{PANEL_CSS}</style>{self._draw(sentence)}")

    def _draw(self, sentence: str = "") -> str:
        """Return the live view, or the last printed line while there is nothing to show."""
        words = sentence if self._update() else f"{sentence} {self.process.last_words()}".strip()
        return self._html(words)


def print_stops_plainly() -> None:
    """Print a requested stop as plain text; not for papermill, which finds a failed cell by its red error."""
    if shell := get_ipython():
        shell.set_custom_exc((AskedToStopError,), lambda shell, kind, error, trace, tb_offset=None: print(error))


@contextlib.contextmanager
def _interruptions_ignored() -> Iterator[None]:
    """Ignore SIGINT inside the block, so that a process started in it inherits this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment() -> dict[str, str]:
    """Return this environment with the package on PYTHONPATH, UTF-8 output, no buffering, and frequent progress."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    output = {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "OCENSA_LINE_SECONDS": "1"}
    return {**os.environ, "PYTHONPATH": path, **output}
