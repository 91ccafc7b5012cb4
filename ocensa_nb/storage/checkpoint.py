"""`RUN/last`: everything a training needs to go on as if it had never stopped, bit for bit on a CPU.

Each checkpoint is one file (`checkpoint_files.py`). Frozen weights are not in it: they are where they came from.
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from ocensa_nb.errors import StoppedError, UserError
from ocensa_nb.runtime.seeding import random_state, restore_random_state
from ocensa_nb.storage.checkpoint_files import CheckpointFiles

MARK = "__tensor__"  # stands, in the tree of plain values, where a tensor was
MIB = 2**20


@dataclass
class TrainerState:
    """Where a training is: its epoch, from 1; the steps made of it; whether it is over; the seconds spent."""

    epoch: int = 1
    step: int = 0
    over: bool = False
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def tick(self) -> float:
        """Count the time since the last call; return the seconds of this epoch, over all its sessions."""
        now = time.perf_counter()
        self.epoch_seconds, self.seconds = self.epoch_seconds + now - self.since, self.seconds + now - self.since
        self.since = now
        return self.epoch_seconds

    def next_epoch(self, over: bool) -> None:
        """Go on to the next epoch, or end."""
        self.epoch, self.step, self.over, self.epoch_seconds = self.epoch + 1, 0, over, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return where it is; this session's clock is its own."""
        self.tick()
        return {name: value for name, value in vars(self).items() if name != "since"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where another session was."""
        vars(self).update(state)
        self.since = time.perf_counter()


class Stateful(Protocol):
    """What can be kept: `state_dict` gives a tree of dicts, lists, plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state, which may be the living one: it is copied here."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take a state back."""


class CheckpointManager:
    """Keeps the parts of a training in a folder, every so many minutes and when told to, beside the training.

    The parts are copied in memory while the training waits, and written by a thread while it goes on. As a context,
    waits for the last one, and keeps one more where a `StoppedError` ends the training.
    """

    def __init__(self, folder: Path, minutes: float, parts: Mapping[str, Stateful]) -> None:
        self.folder, self.minutes, self.parts = folder, minutes, parts
        self.files = CheckpointFiles(folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._kept_at = time.perf_counter()
        self.bytes = 0

    def describe(self, trained_bytes: int) -> str:
        """Say in Spanish where and when they are kept, and how large they get: weights, best weights, two moments."""
        size = f"{4 * trained_bytes / MIB:,.0f}"
        return (
            f"Puntos de control: dos archivos de hasta {size} MiB en «{self.folder}», cada {self.minutes:g} min y en "
            "cada época. Si la sesión se corta, ejecute lo mismo otra vez y continúa."
        )

    def restore(self) -> bool:
        """Put the parts, and the random state, where they were; return whether there was anything kept.

        Raises `UserError` where what was kept is damaged or of another model.
        """
        if not self.files.exist:
            return False
        try:
            state = unflatten_state(*self.files.read())
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            restore_random_state(state["chance"])
        except (UserError, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"No se puede continuar desde el punto de control de «{self.folder}»: está dañado o es de otro "
                "entrenamiento. Para empezar de nuevo, resume = 'never' y otra carpeta en out."
            ) from error
        return True

    def save(self) -> None:
        """Keep the parts as they are now; raises `UserError` where the one before could not be written."""
        self._finish()
        state = {name: part.state_dict() for name, part in self.parts.items()} | {"chance": random_state()}
        tensors, tree = flatten_state(state)
        self.bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._writing = self._writer.submit(self.files.write, tensors, tree)
        self._kept_at = time.perf_counter()

    def save_if_due(self) -> None:
        """Keep the parts where `minutes` have passed; raises `UserError` where the last one could not be written."""
        if self._writing and self._writing.done():
            self._finish()
        if time.perf_counter() - self._kept_at >= 60 * self.minutes:
            self.save()

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
        finally:
            self._writer.shutdown()


def flatten_state(state: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Take the tensors, copied to the CPU, out of a tree; return them by name, and the tree with marks for them."""
    tensors: dict[str, torch.Tensor] = {}

    def take(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            while name in tensors:  # a key with a slash in it
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
    """Return the tree that `pack` took apart, with its keys as text; raises `KeyError` for a tensor not there."""
    if isinstance(tree, dict):
        if MARK in tree:
            return tensors[tree[MARK]]
        return {key: unflatten_state(tensors, one) for key, one in tree.items()}
    return [unflatten_state(tensors, one) for one in tree] if isinstance(tree, list) else tree
