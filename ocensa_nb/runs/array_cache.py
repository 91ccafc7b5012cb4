"""An on-disk cache of arrays, such as hidden states: one file per array, verified when read (`page_digest`)."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ocensa_nb.files.atomic import remove_abandoned, replace, temporary_folder
from ocensa_nb.files.verify import LARGEST_JSON, page_digest, read_regular

KEPT_BYTES = 20 * 2**30  # above this size the least recently used files are removed
SPARE_BYTES = 2**30  # free disk space to leave to the user


def default_folder() -> Path:
    return Path.home() / ".cache" / "ocensa-nb"


def read(folder: Path, key: str, shape: tuple[int, int], dtype: type[np.generic]) -> np.ndarray | None:
    """Return a cached array, memory-mapped copy-on-write; None if it is missing, damaged or of another shape."""
    data, record = folder / f"{key}.bin", folder / f"{key}.json"
    try:
        saved = json.loads(read_regular(record, LARGEST_JSON))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if saved["shape"] != list(shape) or data.stat().st_size != size or saved["pages"] != page_digest(data):
            return None
        os.utime(record)  # marks it as the most recently used
        return np.memmap(data, dtype, "c", shape=shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def write(folder: Path, key: str, shape: tuple[int, int], dtype: type[np.generic]) -> Iterator[np.ndarray]:
    """Yield a memory-mapped array to fill; on success add it to the cache, on an error remove it.

    Raises `OSError` if the file cannot be written or does not fit on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as temporary:
        data, record = temporary / f"{key}.bin", temporary / f"{key}.json"
        try:
            with open(data, "wb") as file:  # reserved now: a mapped file that outgrows the disk is a crash
                _reserve(file.fileno(), int(np.prod(shape)) * np.dtype(dtype).itemsize)
            array = np.memmap(data, dtype, "r+", shape=shape)
            yield array
            array.flush()
            del array
            record.write_text(json.dumps({"shape": list(shape), "pages": page_digest(data)}), encoding="utf-8")
            replace(data, folder / data.name)
            replace(record, folder / record.name)
        finally:
            data.unlink(missing_ok=True)  # removing the folder would truncate it, and it may still be mapped


def make_room(folder: Path, needed: int) -> bool:
    """Remove the least recently used arrays until a new one fits; return whether it does."""
    if needed > KEPT_BYTES:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        kept = sorted(folder.glob("*.bin"), key=_last_used)
        total = sum(data.stat().st_size for data in kept) + needed
        free = shutil.disk_usage(folder).free - SPARE_BYTES
        if needed > free + sum(data.stat().st_size for data in kept):
            return False  # remove nothing if the new array cannot fit anyway
        for data in kept:
            if total <= KEPT_BYTES and needed <= free:
                break
            size = data.stat().st_size
            data.unlink()
            data.with_suffix(".json").unlink(missing_ok=True)
            total, free = total - size, free + size
        return needed <= shutil.disk_usage(folder).free - SPARE_BYTES
    except OSError:
        return False


def _last_used(data: Path) -> float:
    record = data.with_suffix(".json")
    return record.stat().st_mtime if record.exists() else 0.0  # without its record it is unreadable, so it goes first


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
