"""`RUN/last`: the checkpoints for resuming a training; on a CPU the result is bit-identical to an uninterrupted run.

Two safetensors files are overwritten in turn, so that one of them is always complete; the newest valid one is read.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ocensa_nb.errors import StoppedError, UserError, num
from ocensa_nb.files import tensors as tensor_files
from ocensa_nb.files.atomic import overwriting
from ocensa_nb.files.verify import CHUNK_BYTES, require_regular
from ocensa_nb.runs.run import FORMAT
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.process import random_state, restore_random_state

logger = logging.getLogger(__name__)

# Overwriting in place leaves nothing in the trash of a synchronised disk (Google Drive counts it against the quota).
FILES = ("checkpoint.safetensors", "checkpoint-2.safetensors")
CHECKSUM = "sha256"
CHECKSUM_BYTES = hashlib.sha256().digest_size
MARK = "__tensor__"  # replaces a tensor in the tree of plain values
MIB = 2**20
CANNOT_RESUME = (
    "No se puede continuar desde el checkpoint de «{}»: {}. La carpeta se conserva. Para empezar de nuevo, use "
    "resume = 'never' y otra carpeta en out."
)


@dataclass
class TrainerState:
    """The progress of a training; its seconds add up over all sessions."""

    epoch: int = 1
    step: int = 0  # completed in the epoch
    over: bool = False
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    since: float = field(default_factory=time.perf_counter)  # the last `tick`; not saved

    def tick(self) -> float:
        """Add the time since the last call; return the seconds of this epoch."""
        now = time.perf_counter()
        self.epoch_seconds, self.seconds = self.epoch_seconds + now - self.since, self.seconds + now - self.since
        self.since = now
        return self.epoch_seconds

    def next_epoch(self, over: bool) -> None:
        self.epoch, self.step, self.over, self.epoch_seconds = self.epoch + 1, 0, over, 0.0

    def state_dict(self) -> dict[str, Any]:
        self.tick()
        return {name: value for name, value in vars(self).items() if name != "since"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.since = time.perf_counter()


class CheckpointManager:
    """Save checkpoints of a training: the state is copied in memory, then a background thread writes it.

    On exit it waits for the last write; after a `StoppedError` it saves once more. Each of `parts` has `state_dict`,
    which returns a tree of dicts, lists, plain values and tensors, and `load_state_dict`. The first process writes,
    with the random state of each; any number of processes can restore.
    """

    def __init__(self, folder: Path, minutes: float, parts: Mapping[str, Any], world: World = ALONE) -> None:
        self.folder, self.minutes, self.parts, self.world = folder, minutes, parts, world
        self.files = CheckpointFiles(folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._saved_at = time.perf_counter()
        self.bytes = 0

    def describe(self, trained: int) -> str:
        """Return, in Spanish, the location, interval and size of the checkpoints; `trained` is a number of weights."""
        size = num(4 * 4 * trained / MIB)  # weights, best weights and two moments, in fp32
        return (
            f"Checkpoints: dos archivos de hasta {size} MiB en «{self.folder}», cada "
            f"{num(self.minutes, 6, form='g')} min, al detenerlo y al final. Si la sesión se corta, ejecute lo mismo "
            "otra vez: continúa desde el último."
        )

    def restore(self) -> bool:
        """Restore the parts and the random state from the newest valid checkpoint; return whether there was one.

        Raises `UserError` if it is damaged, or belongs to another model or another version of this program.
        """
        saved = self.world.on_first(self.files.read)
        if saved is None:
            return False
        try:
            state = unflatten_state(*saved)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self._restore_random_state(state["random"])
        except (LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(CANNOT_RESUME.format(self.folder, "está dañado o es de otro entrenamiento")) from error
        return True

    def save(self) -> None:
        """Save a checkpoint in the background; raises `UserError` if the previous one could not be written."""
        self._finish()
        random_states = self.world.gather(random_state())
        self._saved_at = time.perf_counter()
        if self.world.is_first:
            state = {name: part.state_dict() for name, part in self.parts.items()} | {"random": random_states}
            tensors, tree = flatten_state(state)
            self.bytes = sum(tensor.nbytes for tensor in tensors.values())
            self._writing = self._writer.submit(self.files.write, tensors, tree)

    def save_if_due(self) -> None:
        """Save if `minutes` have passed; raises `UserError` if the previous checkpoint could not be written."""
        if self._writing and self._writing.done():
            self._finish()
        if self.world.largest(time.perf_counter() - self._saved_at >= 60 * self.minutes):
            self.save()

    def _restore_random_state(self, states: list[list[torch.Tensor]]) -> None:
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
    """Invert `flatten_state`, with text keys; raises `KeyError` if a tensor is missing."""
    if isinstance(tree, dict):
        if MARK in tree:
            return tensors[tree[MARK]]
        return {key: unflatten_state(tensors, one) for key, one in tree.items()}
    return [unflatten_state(tensors, one) for one in tree] if isinstance(tree, list) else tree


class CheckpointFiles:
    """The two checkpoint files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / name for name in FILES]
        self._number, self._next = 0, 0  # the newest checkpoint, and the index of the file to overwrite next

    def write(self, tensors: Mapping[str, torch.Tensor], state: Any) -> None:
        metadata = {tensor_files.STATE: json.dumps(state), "number": str(self._number + 1), "format": str(FORMAT)}
        _write(self.paths[self._next], tensors, metadata)
        self._number, self._next = self._number + 1, 1 - self._next

    def read(self) -> tuple[dict[str, torch.Tensor], Any] | None:
        """Return the tensors and the state of the newest valid checkpoint, or None; warn about a damaged one."""
        existing = [path for path in self.paths if path.exists()]
        if not existing:
            return None
        numbers = {path: number for path in existing if (number := _number(path))}
        if not numbers:
            raise UserError(CANNOT_RESUME.format(self.paths[0].parent, "está dañado"))
        newest = max(numbers, key=numbers.__getitem__)
        for path in set(existing) - set(numbers):
            logger.warning(f"El checkpoint «{path}» está incompleto o dañado: se usa «{newest.name}».")
        self._number, self._next = numbers[newest], 1 - self.paths.index(newest)
        return tensor_files.read(newest)


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    digest = hashlib.sha256()
    # The widest dtypes first: then all tensors are aligned, as the format requires, and the checksum is last.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    with overwriting(path) as file:
        for piece in _pieces(ordered, metadata):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())


def _pieces(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file up to the checksum, its last tensor."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "data_offsets": [start, end]}
    header[CHECKSUM] = {"dtype": "U8", "shape": [CHECKSUM_BYTES], "data_offsets": [end, end + CHECKSUM_BYTES]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        yield as_bytes(tensor)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype in the safetensors format, such as F32."""
    # "Format", github.com/huggingface/safetensors
    if dtype == torch.bool:
        return "BOOL"
    kind = "BF" if dtype == torch.bfloat16 else "F" if dtype.is_floating_point else "I" if dtype.is_signed else "U"
    return f"{kind}{8 * dtype.itemsize}"


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a CPU tensor; a contiguous tensor is not copied."""
    return memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def _number(path: Path) -> int | None:
    """Return the number of a checkpoint, or None if it is damaged; raises `UserError` if it has another format."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        number = int(metadata["number"]) if _is_intact(path) else None
    except (SafetensorError, OSError, ValueError, LookupError):
        return None
    written = metadata.get("format")
    if number and written != str(FORMAT):
        why = f"es de otra versión de este programa (formato {written}; aquí se lee el {FORMAT})"
        raise UserError(CANNOT_RESUME.format(path.parent, why))
    return number


def _is_intact(path: Path) -> bool:
    digest, left = hashlib.sha256(), path.stat().st_size - CHECKSUM_BYTES
    with open(path, "rb") as file:
        while left > 0:
            piece = file.read(min(left, CHUNK_BYTES))
            digest.update(piece)
            left -= len(piece)
        return file.read() == digest.digest()
