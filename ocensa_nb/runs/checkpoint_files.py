"""Two checkpoint files, overwritten in turn; the newest valid one is read.

At any time at least one of them is complete. Overwriting in place leaves nothing in the trash of a synchronised disk
(Google Drive counts it against the quota), and if the machine dies during an upload, the other file is still valid.

Each is a safetensors file. Its metadata has the format and the number of the checkpoint; its last tensor is the SHA-256
of all preceding bytes.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ocensa_nb.errors import UserError
from ocensa_nb.files import tensors as tensor_files
from ocensa_nb.files.atomic import overwriting
from ocensa_nb.files.verify import CHUNK_BYTES, require_regular
from ocensa_nb.runs.run import FORMAT

logger = logging.getLogger(__name__)

FILES = ("checkpoint.safetensors", "checkpoint-2.safetensors")
NUMBER = "number"  # counts the checkpoints of a run, from 1
VERSION = "format"
CANNOT_RESUME = (
    "No se puede continuar desde el checkpoint de «{}»: {}. La carpeta se conserva. Para empezar de nuevo, use "
    "resume = 'never' y otra carpeta en out."
)
CHECKSUM = "sha256"
CHECKSUM_BYTES = hashlib.sha256().digest_size
# The dtype names of the safetensors format: "Format", github.com/huggingface/safetensors
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class CheckpointFiles:
    """The two checkpoint files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / name for name in FILES]
        self._number, self._next = 0, 0  # the newest checkpoint, and the index of the file to overwrite next

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint, valid or not."""
        return any(path.exists() for path in self.paths)

    def write(self, tensors: Mapping[str, torch.Tensor], state: Any) -> None:
        """Overwrite the older checkpoint; the newer one is not touched."""
        metadata = {tensor_files.STATE: json.dumps(state), NUMBER: str(self._number + 1), VERSION: str(FORMAT)}
        _write(self.paths[self._next], tensors, metadata)
        self._number, self._next = self._number + 1, 1 - self._next

    def read(self) -> tuple[dict[str, torch.Tensor], Any]:
        """Return the tensors and the state of the newest valid checkpoint; print a warning about a damaged one."""
        there = [path for path in self.paths if path.exists()]
        numbers = {path: number for path in there if (number := _number(path))}
        if not numbers:
            raise UserError(CANNOT_RESUME.format(self.paths[0].parent, "está dañado"))
        newest = max(numbers, key=numbers.__getitem__)
        for path in set(there) - set(numbers):
            logger.warning(f"El checkpoint «{path}» está incompleto o dañado: se usa «{newest.name}».")
        self._number, self._next = numbers[newest], 1 - self.paths.index(newest)
        return tensor_files.read(newest)


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file in place; the checksum is last, so that an incomplete file has no valid checksum."""
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
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    header[CHECKSUM] = {"dtype": "U8", "shape": [CHECKSUM_BYTES], "data_offsets": [end, end + CHECKSUM_BYTES]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        yield as_bytes(tensor)


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a CPU tensor; a contiguous tensor is not copied."""
    return memoryview(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def _number(path: Path) -> int | None:
    """Return the number of a checkpoint, or None if it is damaged; raises `UserError` if it has another format."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        number = int(metadata[NUMBER]) if _is_intact(path) else None
    except (SafetensorError, OSError, ValueError, LookupError):
        return None
    written = metadata.get(VERSION)
    if number and written != str(FORMAT):
        why = f"es de otra versión de este programa (formato {written}; aquí se lee el {FORMAT})"
        raise UserError(CANNOT_RESUME.format(path.parent, why))
    return number


def _is_intact(path: Path) -> bool:
    """Return whether a file ends with the SHA-256 of its preceding bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size - CHECKSUM_BYTES
    with open(path, "rb") as file:
        while left > 0:
            piece = file.read(min(left, CHUNK_BYTES))
            digest.update(piece)
            left -= len(piece)
        return file.read() == digest.digest()
