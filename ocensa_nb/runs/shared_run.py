"""The run folder of a training in several processes: the first one locks and writes it, the others only know it."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.paths import RUNS
from ocensa_nb.runs.resume import acquire_run
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.distributed import World


@dataclass(frozen=True)
class FollowedRun(Run):
    """A run that another process writes; here every write does nothing, and the folder may not be visible at all."""

    finished: bool = False

    def is_finished(self) -> bool:
        """Return whether the run was finished when it was opened."""
        return self.finished

    def tidy(self) -> None:
        """Remove nothing."""

    def append_history(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write nothing."""

    def settle_history(self) -> int:
        """Return 0: this process has no history."""
        return 0

    def history_sha256(self, length: int) -> str:
        """Return the checksum of no history."""
        return ""

    def cut_history(self, length: int, sha256: str = "") -> None:
        """Change nothing."""

    def write_json(self, name: str, value: Any) -> None:
        """Write nothing."""


@contextlib.contextmanager
def acquire_shared_run(
    world: World,
    config: TrainConfig,
    metadata: Mapping[str, Any],
    classes: Mapping[str, list[str]],
    root: Path = RUNS,
) -> Iterator[Run]:
    """Lock the folder of a run in the first process; yield it there, and a `FollowedRun` in the others.

    Parameters
    ----------
    world
        The processes that train together.
    config, metadata, classes, root
        As in `resume.acquire_run`.

    Yields
    ------
    Run
        With the same path and metadata in all processes.

    Raises
    ------
    UserError
        In all processes, if the first one cannot lock or write the folder.
    """
    with contextlib.ExitStack() as stack:
        held: list[Run] = []

        def lock() -> list[Any]:
            held.append(stack.enter_context(acquire_run(config, metadata, classes, root)))
            return [str(held[0].path), held[0].metadata, held[0].is_finished()]

        if world.size == 1:
            lock()
            yield held[0]
            return
        path, shared, finished = world.on_first(lock)
        names = {head: list(given) for head, given in classes.items()}
        yield held[0] if held else FollowedRun(Path(path), shared, names, finished=finished)
