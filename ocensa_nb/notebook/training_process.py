"""A training in a process of its own: what the command line would do, started, watched and stopped from a notebook.

In a process and not in a thread: whatever else the notebook computes meanwhile can change neither its random state nor
its pace, and its memory is given back when it ends.
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
from ocensa_nb.notebook.commands import arguments
from ocensa_nb.paths import ROOT

TRACEBACK = "Traceback (most recent call last)"
TAIL = 16_000  # bytes of what the process has said that are looked at
# What stops a process with a checkpoint. Not SIGINT: a notebook sends that to all its processes when a cell is
# interrupted, which is not to end a training.
STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}


_started: list["Training"] = []  # a panel that is shown anew goes on watching what an earlier one started


class Training:
    """A training that goes on in the background; `folder` is its run."""

    def __init__(self, config: TrainConfig, recipe: str, folder: Path) -> None:
        self.config, self.recipe, self.folder = config, recipe, folder
        self._place = tempfile.TemporaryDirectory(prefix="ocensa-", ignore_cleanup_errors=True)
        self._log = Path(self._place.name) / "log.txt"
        with open(self._log, "wb") as log, _interruptions_ignored():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocensa_nb", *arguments(config.replace(out=str(folder)), recipe)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                **OWN_GROUP,
            )
        _started.append(self)

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs: see `cli` for what it means."""
        return self._process.poll()

    @property
    def was_asked_to_stop(self) -> bool:
        """Whether it ended because it was asked to, with what it needs to go on, if it had got that far."""
        return 128 < (self.exit_code or 0) < 160 or self.exit_code == -signal.SIGTERM

    @property
    def was_refused(self) -> bool:
        """Whether it ended with a sentence for the user, `last_words`, and not by a fault."""
        return self.exit_code in (1, 2) and TRACEBACK not in self._tail()

    def stop(self) -> None:
        """Ask it to stop after the step it is making, and to keep where it is; nothing is done once it has ended."""
        if self.is_running:
            self._process.send_signal(STOP)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code; raises `subprocess.TimeoutExpired`."""
        return self._process.wait(timeout)

    def last_words(self) -> str:
        """Return the last line it has said, the newest state of a progress bar included; empty before the first."""
        lines = [line.strip() for line in self._tail().replace("\r", "\n").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def _tail(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - TAIL))
            return log.read().decode("utf-8", "replace")


def running() -> Training | None:
    """Return the training of this process that goes on, None where there is none."""
    return next((training for training in _started if training.is_running), None)


@contextlib.contextmanager
def _interruptions_ignored() -> Iterator[None]:
    """Let a process that is started here ignore SIGINT, which it takes over from this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return a notebook's environment with this very package in it, and a bar of plain characters."""
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
    return {**own, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
