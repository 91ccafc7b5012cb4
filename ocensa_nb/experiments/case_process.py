"""Run a case in a separate process, which ends cleanly on a signal or when its parent dies.

Usage, by the runner only: `python -m ocensa_nb.experiments.case_process FOLDER PARENT_PID`.

The kernel of a notebook is a child of this process, in a separate session. On a stop it gets SIGINT, as from the stop
button of a notebook: the training saves a checkpoint. If this process is killed, the kernel ends by itself within a
second (ipykernel's `ParentPoller`). A crash, or lack of memory, of one case does not affect the others.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import psutil

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import case
from ocensa_nb.experiments.case_files import FINISHED, LOG
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.resume import Lock, lock_folder
from ocensa_nb.runtime import logs

STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
GROUP = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {"start_new_session": True}
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
POLL_SECONDS = 0.25
INSIST_SECONDS = 10.0  # SIGTERM after SIGINT: ignored by a training that is saving, but it ends all other cells
PATIENCE_SECONDS = 90.0  # to finish a step and to save; then the kernel is killed
LOCK_SECONDS = 2 * PATIENCE_SECONDS  # for a process that is still stopping in the same folder


def start(folder: Path, threads: int | None = None) -> subprocess.Popen[bytes]:
    """Start the process of a case; its output goes to a log file in the folder.

    Parameters
    ----------
    folder
        The folder of the case.
    threads
        Threads of its computations; None for the default of the machine.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    if threads is not None:
        environment |= dict.fromkeys(THREADS, str(threads))
    with open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ocensa_nb.experiments.case_process", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            **GROUP,
        )


def describe_exit(process: subprocess.Popen[bytes]) -> str:
    """Return, in Spanish, how a process ended that did not record it in its case.json."""
    return (
        f"El proceso terminó de forma inesperada (código {process.returncode}); suele ser falta de memoria: use menos "
        "jobs o un batch menor."
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a case's process and its kernel at once."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.kill()
    process.wait()


class StopWatch:
    """Notice a stop: SIGTERM, or the end of the parent; then stop the kernel."""

    def __init__(self, parent: int) -> None:
        self._asked = threading.Event()
        self._parent = parent
        for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGBREAK] if sys.platform == "win32" else [])):
            signal.signal(number, self._note)
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self._asked.is_set()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def _watch(self) -> None:
        while not self._asked.wait(POLL_SECONDS):
            if self._is_orphan():
                self._asked.set()
        asked_at = time.monotonic()
        self._send(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        insist_at = asked_at + INSIST_SECONDS
        while True:
            time.sleep(POLL_SECONDS)
            if time.monotonic() > asked_at + PATIENCE_SECONDS:
                self._send(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            elif time.monotonic() > insist_at:
                self._send(signal.SIGTERM)
                insist_at += INSIST_SECONDS

    def _is_orphan(self) -> bool:
        return not psutil.pid_exists(self._parent) if sys.platform == "win32" else os.getppid() != self._parent

    def _send(self, number: int) -> None:
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                kernel.send_signal(number)


def lock(folder: Path, stop: StopWatch) -> Lock:
    """Lock the folder of a case; wait for a process that is still stopping in it.

    Raises
    ------
    UserError
        If another process still runs the case after `LOCK_SECONDS`.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while (held := lock_folder(folder)) is None:
        if stop() or time.monotonic() > deadline:
            raise UserError(f"Otro proceso está ejecutando el caso de «{folder}».")
        time.sleep(POLL_SECONDS)
    return held


def main(folder: str, parent: str) -> int:
    """Run the case of a folder and return the exit code: 0 if it is finished, else 1."""
    logs.configure()
    stop = StopWatch(int(parent))
    held = lock(Path(folder), stop)
    try:
        return 0 if case.run(Path(folder), stop) == FINISHED else 1
    finally:
        held.release()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
