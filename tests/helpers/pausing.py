"""Pause the process that trains in a run folder, so that what a test does meanwhile may take any time."""

import contextlib
from pathlib import Path
from types import TracebackType

import psutil

from ocensa_nb.files.lock import LOCK
from ocensa_nb.runs.run import HISTORY
from tests.helpers.lab import wait_until

STARTS = 90  # seconds for a training to start and write its first steps


class Paused:
    """Pause a training, and let it advance on request. Leaving the block resumes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: psutil.Process | None = None

    def advance(self) -> None:
        """Let the training write one or more steps, then pause it again."""
        before = self._written()
        self._resume()
        assert wait_until(lambda: self._written() > before, STARTS), f"no step in {self.folder}"
        self._process = psutil.Process(self._holder())
        self._process.suspend()

    def __enter__(self) -> "Paused":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resume()

    def _resume(self) -> None:
        if self._process:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.resume()

    def _written(self) -> int:
        history = self.folder / HISTORY
        return history.read_text(encoding="utf-8").count('"step"') if history.exists() else 0

    def _holder(self) -> int:
        """Return the process that holds the lock of the folder; its command line names it only if it is not forked."""
        inode = f":{(self.folder / LOCK).stat().st_ino}"
        locks = map(str.split, Path("/proc/locks").read_text(encoding="utf-8").splitlines())
        return next(int(lock[4]) for lock in locks if lock[5].endswith(inode))
