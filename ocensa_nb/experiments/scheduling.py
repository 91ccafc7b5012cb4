"""Decide which case runs when, on this machine or elsewhere; follow the cases, and stop them on request."""

import contextlib
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from ocensa_nb.errors import AskedToStopError
from ocensa_nb.experiments import case_process
from ocensa_nb.experiments.case import CaseState, read_case
from ocensa_nb.experiments.case import update as update_case
from ocensa_nb.experiments.case_files import CASES, FAILED, INTERRUPTED, RUNNING
from ocensa_nb.experiments.progress import Progress
from ocensa_nb.files.atomic import owner
from ocensa_nb.runs import manifest
from ocensa_nb.runs.run import LAST
from ocensa_nb.runtime.machine import cores, physical_cores
from ocensa_nb.runtime.process import StopRequest, defer_signals

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
STOP_SECONDS = case_process.PATIENCE_SECONDS + 30  # a case kills its own kernel before
OnChange = Callable[[list[CaseState]], None]


class Job(Protocol):
    """A case that was started."""

    def is_done(self) -> bool:
        """Return whether it has ended."""

    def problem(self) -> str:
        """Return, in Spanish, how it ended if it did not write so itself."""

    def stop(self) -> None:
        """Request a stop with a checkpoint."""

    def kill(self) -> None:
        """End it at once."""


class Pool(Protocol):
    """Where cases run."""

    @property
    def slots(self) -> int:
        """How many cases can run at the same time now."""

    @property
    def shares_cache(self) -> bool:
        """Whether all cases use the same cache of frozen features."""

    def start(self, state: CaseState) -> Job:
        """Start a case."""


class LocalJob:
    """A case in a process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def is_done(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def problem(self) -> str:
        """Return the exit code as a message for the user."""
        return case_process.describe_exit(self._process)

    def stop(self) -> None:
        """Request a stop with a checkpoint."""
        if not self.is_done():
            self._process.send_signal(case_process.STOP)

    def kill(self) -> None:
        """Kill the process and its kernel."""
        case_process.kill(self._process)


class LocalPool:
    """Processes of this machine, which share its cores."""

    def __init__(self, jobs: int) -> None:
        self.slots, self.shares_cache = jobs, True
        self._threads = max(1, cores() // jobs) if jobs > 1 else None

    def start(self, state: CaseState) -> Job:
        """Start the process of a case; a training records with how many threads, and beside how many others, it ran."""
        if state.owns_run and not manifest.is_finished(state.run):
            update_case(state.folder, jobs=self.slots, threads=self._threads or physical_cores())
        return LocalJob(case_process.start(state.folder, self._threads))


class Runner:
    """Start cases as slots become free, follow them, and stop them on request."""

    def __init__(self, out: Path, names: list[str], pool: Pool, on_change: OnChange | None) -> None:
        self._out, self._names, self._pool, self._on_change = out, names, pool, on_change
        self._progress = Progress(pool.slots)
        self._running: dict[str, Job] = {}

    def run(self, pending: list[CaseState], features: Mapping[str, str]) -> None:
        """Run cases until all have ended.

        Parameters
        ----------
        pending
            The cases, in order.
        features
            For each name, the key of the cached features that the case shares with others; "" for none.
        """
        waiting = list(pending)
        with self._ended_at_exit(), defer_signals(announce=False) as asked:
            while waiting or self._running:
                self._collect()
                while (case := self._next(waiting, features)) is not None:
                    waiting.remove(case)
                    self._start(case)
                if asked.signal:
                    self._stop(asked)
                time.sleep(POLL_SECONDS)

    def _next(self, waiting: list[CaseState], features: Mapping[str, str]) -> CaseState | None:
        """Return the first case that can start now.

        A case that evaluates the run of another waits for that one. Of the cases that share frozen features, one
        computes them and the others wait until it has stored them.
        """
        if not waiting or len(self._running) >= self._pool.slots:
            return None
        building = {features[name] for name in self._running if not self._has_features(name)} - {""}
        names = {case.name for case in waiting}
        for case in waiting:
            if case.owns_run:
                waits = self._pool.shares_cache and features[case.name] in building
                if not waits or manifest.is_finished(case.run):
                    return case
                continue
            trainer = case.run.parent.name
            if trainer not in names and (trainer not in self._running or manifest.is_finished(case.run)):
                return case  # also if the training failed: then this one fails with a message
        return None

    def _has_features(self, name: str) -> bool:
        """Return whether a running case has stored its frozen features: the first checkpoint comes after them."""
        run = read_case(self._out / CASES / name).run
        return (run / LAST).exists() or manifest.is_finished(run)

    def _start(self, case: CaseState) -> None:
        update_case(case.folder, status=RUNNING, process=owner(), error=None)
        self._running[case.name] = self._pool.start(case)
        self._changed(case.name)

    def _collect(self) -> None:
        for name, job in list(self._running.items()):
            if job.is_done():
                del self._running[name]
                folder = self._out / CASES / name
                if read_case(folder).content["status"] == RUNNING:  # it could not say how it ended
                    error = {"notebook": "", "cell": None, "line": job.problem()}
                    update_case(folder, status=FAILED, process=None, error=error)
                self._changed(name)

    def _changed(self, name: str) -> None:
        states = [read_case(self._out / CASES / other) for other in self._names]
        state = next(case for case in states if case.name == name)
        self._progress.note(state)
        logger.info(self._progress.line(state, states))
        if self._on_change:
            self._on_change(states)

    def _stop(self, asked: StopRequest) -> None:
        """Stop all running cases and raise `AskedToStopError` when they have ended."""
        logger.info("Se detiene: cada caso en marcha termina su paso y guarda el avance…")
        for job in self._running.values():
            job.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while any(not job.is_done() for job in self._running.values()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for name, job in self._running.items():
            if not job.is_done():
                job.kill()
            if read_case(self._out / CASES / name).content["status"] == RUNNING:
                update_case(self._out / CASES / name, status=INTERRUPTED, process=None)
        ended = list(self._running)
        self._running.clear()
        for name in ended:
            self._changed(name)
        raise AskedToStopError(
            f"Detenido. Lo terminado y el avance quedaron en «{self._out}». Para continuar, ejecute lo mismo otra vez.",
            asked.signal,
        )

    @contextlib.contextmanager
    def _ended_at_exit(self) -> Iterator[None]:
        """Kill what still runs when the block ends with an error, such as a second Ctrl+C."""
        try:
            yield
        finally:
            for job in self._running.values():
                if not job.is_done():
                    job.kill()
