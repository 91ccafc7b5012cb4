"""The state of an unfinished prediction of a file, kept beside its result, so that the same command continues it."""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import create_new, remove, write_json
from ocensa_nb.files.lock import lock_folder
from ocensa_nb.files.verify import read_json
from ocensa_nb.paths import reason

STATE, CHUNKS = "state.json", "chunks.bin"
_HEADER = struct.Struct("<4I")  # of a chunk: its part and number, bytes, CRC-32


class Partial:
    """The folder `.ocensa-NAME.parcial`: the result so far, and the probabilities of the current part.

    It is a `Scored` of that part.
    """

    def __init__(self, folder: Path, name: str, classes: Mapping[str, int], made_of: dict[str, Any]) -> None:
        self.result = folder / name
        self.parts = 0  # that are in the result
        self.kept: Any = None  # by the caller, with the last of them
        self.bar: tqdm | None = None  # of the rows
        self._folder, self._classes, self._made_of = folder, classes, made_of
        self._chunks: dict[int, np.ndarray] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was scored."""
        chunks = self._folder / CHUNKS
        return not self.parts and not (chunks.exists() and chunks.stat().st_size)

    @property
    def rows(self) -> int:
        """The rows of the part that need not be scored again."""
        return sum(map(len, self._chunks.values()))

    def resume(self) -> None:
        """Continue from the content of the folder if it is made of the same; otherwise remove it."""
        state: dict[str, Any] = {}
        with contextlib.suppress(UserError):
            state = read_json(self._folder / STATE)
        if state.get("made_of") != self._made_of:
            for name in (self.result.name, CHUNKS):
                (self._folder / name).unlink(missing_ok=True)
            self._write_state(0)
        else:
            self.parts, self.kept = state["parts"], state["kept"]
            if self.parts:
                os.truncate(self.result, state["bytes"])
            else:
                self.result.unlink(missing_ok=True)
        self._read_chunks()

    def read(self, chunk: int, rows: int) -> dict[str, np.ndarray] | None:
        """See `Scored`."""
        values = self._chunks.pop(chunk, None)
        if values is None or len(values) != rows:
            return None
        ends = np.cumsum(list(self._classes.values()))
        return dict(zip(self._classes, np.split(values, ends[:-1], axis=1), strict=True))

    def write(self, chunk: int, probabilities: dict[str, np.ndarray]) -> None:
        """See `Scored`."""
        content = np.hstack([probabilities[head] for head in self._classes]).astype(np.float32).tobytes()
        with open(self._folder / CHUNKS, "ab") as file:
            file.write(_HEADER.pack(self.parts, chunk, len(content), zlib.crc32(content)) + content)
        if self.bar is not None:
            self.bar.update(len(next(iter(probabilities.values()))))

    def end_part(self, content: bytes | None, kept: Any) -> None:
        """Append the content of the part to the result, unless it was written as a whole."""
        if content is not None:
            with open(self.result, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self.parts, self.kept = self.parts + 1, kept
        self._write_state(self.result.stat().st_size)
        (self._folder / CHUNKS).unlink(missing_ok=True)

    def _write_state(self, size: int) -> None:
        write_json(
            self._folder / STATE,
            {"made_of": self._made_of, "parts": self.parts, "bytes": size, "kept": self.kept},
        )

    def _read_chunks(self) -> None:
        """Read the chunks of this part, and drop what is damaged."""
        with open(self._folder / CHUNKS, "a+b") as file:
            file.seek(0)
            whole = 0
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                part, chunk, size, checksum = _HEADER.unpack(header)
                content = file.read(size)
                if part != self.parts or zlib.crc32(content) != checksum:
                    break
                self._chunks[chunk] = np.frombuffer(content, np.float32).reshape(-1, sum(self._classes.values()))
                whole = file.tell()
            file.truncate(whole)


@contextlib.contextmanager
def partial(path: Path, classes: Mapping[str, int], made_of: dict[str, Any]) -> Iterator[Partial]:
    """Yield the state of a result. At the end of the block the result must be complete, and is moved to its path.

    Parameters
    ----------
    classes
        The number of classes per label.
    made_of
        What the result is computed from, as JSON; the state of a result that is made of something else is removed.

    Raises
    ------
    UserError
        If the path exists, cannot be written, or another process writes it.
    """
    folder = path.with_name(f".ocensa-{path.name}.parcial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}.") from error
    lock = lock_folder(folder)
    if lock is None:
        raise UserError(f"Otro proceso está escribiendo «{path}». Espere a que termine, o elija otro nombre en out.")
    done, is_over = Partial(folder, path.name, classes, made_of), False
    try:
        try:
            done.resume()
            yield done
        except OSError as error:
            raise UserError(
                f"No se puede escribir «{path}»: {reason(error)}. Cuando se pueda, repita lo mismo."
            ) from error
        with create_new(path) as temporary:
            try:
                os.link(done.result, temporary)
            except OSError:  # a disk without hard links
                os.replace(done.result, temporary)
        is_over = True
    finally:
        lock.release()
        if is_over or done.is_empty:
            with contextlib.suppress(OSError):
                remove(folder)
