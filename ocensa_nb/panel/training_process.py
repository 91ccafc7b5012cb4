"""Run the training command in a separate process; watch and stop it from a notebook, and report how it ended.

It is a process, not a thread: other computations of the notebook change neither its random state nor its pace, and its
memory is released when it ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.paths import ROOT, RUNS
from ocensa_nb.runtime import environment
from ocensa_nb.runtime.commands import arguments
from ocensa_nb.storage import resume
from ocensa_nb.storage.run_folder import LAST, Run

TRACEBACK = "Traceback (most recent call last)"
TAIL = 16_000  # bytes read from the end of the log
# Stops the process with a checkpoint. Not SIGINT: a notebook sends that to all its processes when a cell is
# interrupted, and this must not end a training.
STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}


_started: list["Training"] = []  # lets a new panel follow a training that an earlier one started


class Training:
    """A training in a background process, started on construction; with several GPUs, in one process per GPU.

    Parameters
    ----------
    config
        Settings of the training.
    recipe
        Recipe that the config came from.
    folder
        Run folder; replaces `config.out`.
    """

    def __init__(self, config: TrainConfig, recipe: str, folder: Path) -> None:
        self.config, self.recipe, self.folder = config, recipe, folder
        self.processes = environment.processes()
        together = ["--processes", str(self.processes)] if self.processes > 1 else []
        self._place = tempfile.TemporaryDirectory(prefix="ocensa-", ignore_cleanup_errors=True)
        self._log = Path(self._place.name) / "log.txt"
        with open(self._log, "wb") as log, _interruptions_ignored():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocensa_nb", *arguments(config.replace(out=str(folder)), recipe), *together],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                **OWN_GROUP,
            )
        _started.append(self)

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while running. See `cli` for its meaning."""
        return self._process.poll()

    @property
    def was_asked_to_stop(self) -> bool:
        """Whether it ended on request; it can be resumed if it had reached a checkpoint."""
        return 128 < (self.exit_code or 0) < 160 or self.exit_code == -signal.SIGTERM

    @property
    def was_refused(self) -> bool:
        """Whether it ended with an error message for the user (see `last_words`), not with a crash."""
        return self.exit_code in (1, 2) and TRACEBACK not in self._tail()

    def is_finished(self, data_fingerprint: str) -> bool:
        """Return whether its folder has the finished run of its config and of the data with this fingerprint."""
        return resume.find_finished(self.config.replace(out=str(self.folder)), data_fingerprint) is not None

    def stop(self) -> None:
        """Request a stop with a checkpoint after the current step; do nothing if it has ended."""
        if self.is_running:
            self._process.send_signal(STOP)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code.

        Parameters
        ----------
        timeout
            Maximum seconds to wait; None for no limit.

        Returns
        -------
        int
            The exit code.

        Raises
        ------
        subprocess.TimeoutExpired
            If it is still running after `timeout` seconds.
        """
        return self._process.wait(timeout)

    def last_words(self) -> str:
        """Return the last line of its output, including progress bars; empty if there is none."""
        lines = [line.strip() for line in self._tail().replace("\r", "\n").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def _tail(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - TAIL))
            return log.read().decode("utf-8", "replace")


def running() -> Training | None:
    """Return the running training started from this process; None if there is none."""
    return next((training for training in _started if training.is_running), None)


def outcome(training: Training, data_fingerprint: str, root: Path = RUNS) -> Run:
    """Return the finished run of a training that has ended.

    Parameters
    ----------
    training : Training
        A training that is no longer running.
    data_fingerprint : str
        Fingerprint of the notices it was trained on.
    root : Path
        Folder of the numbered runs.

    Returns
    -------
    Run
        The finished run, loaded from its folder.

    Raises
    ------
    AskedToStopError
        If it was stopped before the end.
    UserError
        If it ended with an error message for the user, or crashed.
    """
    if training.was_refused:
        raise UserError(training.last_words())
    if training.is_finished(data_fingerprint):  # whatever the exit code: a stop may arrive when the run is complete
        return Run.load(training.folder)
    if training.was_asked_to_stop:
        message = "Detenido antes del primer paso."
        if (training.folder / LAST).exists():
            message = f"Detenido. El avance quedó guardado en «{short(training.folder)}»."
        if resume.will_resume(training.config, data_fingerprint, root):
            message += " Para continuar, pulse Continuar en el panel o ejecute otra vez run = panel.run()."
        raise AskedToStopError(message, signal.SIGTERM)
    if training.exit_code:
        raise UserError(
            f"El entrenamiento terminó de forma inesperada (código {training.exit_code}); suele ser "
            "falta de memoria. Use un batch menor o congele más capas, y entrene otra vez: continúa desde lo último "
            "que guardó."
        )
    return Run.load(training.folder)


def success(run: Run) -> str:
    """Return a Spanish sentence with the folder, best epoch and test F1 of a run."""
    scores = ", ".join(f"{head} {run.metrics['test'][f'{head}_f1']:.3f}" for head in run.classes)
    best, made = run.metrics["best_epoch"], run.metrics["epochs"]
    return f"✅ Listo, en «{short(run.path)}». Mejor época: {best} de {made}. F1 de prueba: {scores}."


def failure(error: UserError) -> str:
    """Return the message of an error, marked as an error unless the user requested the stop."""
    return str(error) if isinstance(error, AskedToStopError) else f"⛔ {error}"


def short(path: Path) -> Path:
    """Return a path relative to the working directory if it is inside it, otherwise unchanged."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this package on PYTHONPATH, UTF-8 output, no buffering, and frequent progress."""
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
    return {**own, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "OCENSA_LINE_SECONDS": "1"}
