"""Run a command of the package in a separate process; watch it, stop it from a notebook, and read its last line.

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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ocensa_nb.paths import ROOT

TRACEBACK = "Traceback (most recent call last)"
TAIL = 16_000  # bytes read from the end of the log
# Stops the process with a checkpoint. Not SIGINT: a notebook sends that to all its processes when a cell is
# interrupted, and this must not end a training.
STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}


class ChildProcess:
    """A command in a background process, started on construction."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="ocensa-", ignore_cleanup_errors=True)
        self._log = Path(self._place.name) / "log.txt"
        with open(self._log, "wb") as log, _interruptions_ignored():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocensa_nb", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                **OWN_GROUP,
            )

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

    def stop(self) -> None:
        """Request a stop with a checkpoint after the current step; do nothing if it has ended."""
        if self.is_running:
            self._process.send_signal(STOP)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its exit code."""
        return self._process.wait(timeout)

    def last_words(self) -> str:
        """Return the last line of its output, including progress bars; empty if there is none."""
        lines = [line.strip() for line in self._tail().replace("\r", "\n").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def _tail(self) -> str:
        with open(self._log, "rb") as log:
            log.seek(max(0, self._log.stat().st_size - TAIL))
            return log.read().decode("utf-8", "replace")


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
