"""`RUN/last`: the checkpoints for resuming a training; on a CPU the result is bit-identical to an uninterrupted run.

Each checkpoint is one file (`checkpoint_files.py`). Frozen weights are not saved: they are loaded from the encoder.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ocensa_nb.errors import StoppedError, UserError
from ocensa_nb.runs.checkpoint_files import CANNOT_RESUME, CheckpointFiles
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.seeding import random_state, restore_random_state

logger = logging.getLogger(__name__)

MARK = "__tensor__"  # replaces a tensor in the tree of plain values
MIB = 2**20


@dataclass
class TrainerState:
    """The progress of a training.

    Attributes
    ----------
    epoch
        The current epoch, from 1.
    step
        Steps completed in the epoch.
    over
        Whether the training has ended.
    epoch_seconds, seconds
        Seconds spent in the epoch and in total, over all sessions.
    since
        `time.perf_counter()` at the last `tick`; not saved.
    """

    epoch: int = 1
    step: int = 0
    over: bool = False
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def tick(self) -> float:
        """Add the time since the last call; return the seconds of this epoch, over all sessions."""
        now = time.perf_counter()
        self.epoch_seconds, self.seconds = self.epoch_seconds + now - self.since, self.seconds + now - self.since
        self.since = now
        return self.epoch_seconds

    def next_epoch(self, over: bool) -> None:
        """Advance to the next epoch; `over` marks the end of the training."""
        self.epoch, self.step, self.over, self.epoch_seconds = self.epoch + 1, 0, over, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, without the clock of this session."""
        self.tick()
        return {name: value for name, value in vars(self).items() if name != "since"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the progress of another session and restart the clock."""
        vars(self).update(state)
        self.since = time.perf_counter()


class Stateful(Protocol):
    """An object that can be checkpointed; its state is a tree of dicts, lists, plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state; it may share memory with the object, because `CheckpointManager` copies it."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore a state."""


class CheckpointManager:
    """Save checkpoints of a training in a background thread.

    The training waits while the state is copied in memory; a thread then writes it. As a context manager, it waits for
    the last write, and saves one more checkpoint if a `StoppedError` ends the training.

    Parameters
    ----------
    folder
        The folder of the checkpoint files, `RUN/last`.
    minutes
        Minutes between checkpoints of `save_if_due`.
    parts
        The objects to save, by name.
    world
        The processes that train together. Their parts are equal, so the first one writes them, with the random state of
        each; a checkpoint of any number of processes can be restored in any other number.
    """

    def __init__(self, folder: Path, minutes: float, parts: Mapping[str, Stateful], world: World = ALONE) -> None:
        self.folder, self.minutes, self.parts, self.world = folder, minutes, parts, world
        self.files = CheckpointFiles(folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._kept_at = time.perf_counter()
        self.bytes = 0

    def describe(self, trained: int) -> str:
        """Return the location, interval and size of the checkpoints of so many trained weights, in Spanish."""
        size = f"{4 * 4 * trained / MIB:,.0f}"  # weights, best weights and two moments, in fp32
        return (
            f"Checkpoints: dos archivos de hasta {size} MiB en «{self.folder}», cada {self.minutes:g} min y en "
            "cada época. Si la sesión se corta, ejecute lo mismo otra vez y continúa."
        )

    def restore(self) -> bool:
        """Restore the parts and the random state from the newest valid checkpoint; return whether there was one.

        Raises
        ------
        UserError
            If the checkpoint is damaged, belongs to another model, or another version of this program wrote it.
        """
        if not self.world.on_first(lambda: self.files.exist):
            return False
        try:
            state = unflatten_state(*self._read())
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self._restore_random_state(state["chance"], state["others"])
        except UserError:
            raise
        except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(CANNOT_RESUME.format(self.folder, "está dañado o es de otro entrenamiento")) from error
        return True

    def save(self) -> None:
        """Save a checkpoint in the background; raises `UserError` if the previous one could not be written."""
        self._finish()
        own, *others = self._random_states()
        self._kept_at = time.perf_counter()
        if not self.world.is_first:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"chance": own, "others": others}
        tensors, tree = flatten_state(state)
        self.bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._writing = self._writer.submit(self.files.write, tensors, tree)

    def save_if_due(self) -> None:
        """Save if `minutes` have passed; raises `UserError` if the previous checkpoint could not be written."""
        if self._writing and self._writing.done():
            self._finish()
        if self.world.largest(time.perf_counter() - self._kept_at >= 60 * self.minutes)[0]:
            self.save()

    def _read(self) -> tuple[dict[str, torch.Tensor], Any]:
        """Return the tensors and the tree of the newest valid checkpoint, in every process."""
        if self.world.size == 1:
            return self.files.read()
        tensors: dict[str, torch.Tensor] = {}

        def read() -> Any:
            found, tree = self.files.read()
            tensors.update(found)
            return tree

        tree = self.world.on_first(read)
        return self.world.tensors_from_first(tensors), tree

    def _random_states(self) -> list[list[torch.Tensor]]:
        """Return the random states of all processes, by rank."""
        if self.world.size == 1:
            return [random_state()]
        by_generator = [self.world.gather(one) for one in random_state()]
        return [list(states) for states in zip(*by_generator, strict=True)]

    def _restore_random_state(self, first: list[torch.Tensor], others: list[list[torch.Tensor]]) -> None:
        """Restore the state of this process; with another number of processes, later ones keep what they have."""
        states = [first, *others]
        if len(states) != self.world.size:
            logger.warning(
                f"Los procesos eran {len(states)} al guardar el entrenamiento, y ahora son {self.world.size}: el "
                "resultado puede diferir en los últimos bits, y en lo que desactiva el dropout."
            )
        if self.world.rank < len(states):
            restore_random_state(states[self.world.rank])

    def _finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind and issubclass(kind, StoppedError):
                self.save()
            if kind is None or issubclass(kind, StoppedError):
                self._finish()
                self.world.wait()  # torchrun soon kills the others once a process has ended
        finally:
            self._writer.shutdown()


def flatten_state(state: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Separate the tensors of a state from its plain values."""
    tensors: dict[str, torch.Tensor] = {}

    def take(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            while name in tensors:  # two paths can be equal if a key has a slash
                name += "'"
            tensors[name] = value.detach().to("cpu", copy=True)
            return {MARK: name}
        if isinstance(value, Mapping):
            return {str(key): take(one, f"{name}/{key}") for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [take(one, f"{name}/{i}") for i, one in enumerate(value)]
        return value

    return tensors, take(state, "")


def unflatten_state(tensors: Mapping[str, torch.Tensor], tree: Any) -> Any:
    """Return the state that `flatten_state` separated, with text keys; raises `KeyError` if a tensor is missing."""
    if isinstance(tree, dict):
        if MARK in tree:
            return tensors[tree[MARK]]
        return {key: unflatten_state(tensors, one) for key, one in tree.items()}
    return [unflatten_state(tensors, one) for one in tree] if isinstance(tree, list) else tree
