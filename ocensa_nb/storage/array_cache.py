"""The cache folder: hidden states kept between runs, a file each, checked before they are believed."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ocensa_nb.files.atomic import replace
from ocensa_nb.files.checksums import sha256
from ocensa_nb.files.regular import LARGEST_JSON, read_regular
from ocensa_nb.files.temporary import remove_abandoned, temporary_folder

KEPT_BYTES = 20 * 2**30  # older files make room for newer ones beyond this
SPARE_BYTES = 2**30  # disk that is left to the user


def default_folder() -> Path:
    """Return the folder of this user's caches."""
    return Path.home() / ".cache" / "ocensa-nb"


def read(folder: Path, key: str, shape: tuple[int, int], dtype: type[np.generic]) -> np.ndarray | None:
    """Return a kept array, memory-mapped copy-on-write; None where there is none, or it is damaged or another's."""
    data, record = folder / f"{key}.bin", folder / f"{key}.json"
    try:
        kept = json.loads(read_regular(record, LARGEST_JSON))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if kept["shape"] != list(shape) or data.stat().st_size != size or kept["sha256"] != sha256(data):
            return None
        os.utime(record)  # used now: the last to make room
        return np.memmap(data, dtype, "c", shape=shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def write(folder: Path, key: str, shape: tuple[int, int], dtype: type[np.generic]) -> Iterator[np.ndarray]:
    """Give an empty memory-mapped array to fill; it is kept when the block ends well, and removed when it does not.

    Raises `OSError` where the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as place:
        fresh, record = place / f"{key}.bin", place / f"{key}.json"
        try:
            with open(fresh, "wb") as file:  # the space is taken now: a mapped file that outgrows the disk is a crash
                _reserve(file.fileno(), int(np.prod(shape)) * np.dtype(dtype).itemsize)
            array = np.memmap(fresh, dtype, "r+", shape=shape)
            yield array
            array.flush()
            del array
            record.write_text(json.dumps({"shape": list(shape), "sha256": sha256(fresh)}), encoding="utf-8")
            replace(fresh, folder / fresh.name)
            replace(record, folder / record.name)
        finally:
            fresh.unlink(missing_ok=True)  # before it is emptied with its folder: it may still be mapped


def make_room(folder: Path, needed: int) -> bool:
    """Remove the least recently used files beyond `KEPT_BYTES`; return whether `needed` bytes then fit on the disk."""
    if needed > KEPT_BYTES:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        kept = sorted(folder.glob("*.bin"), key=_last_used)
        total = sum(data.stat().st_size for data in kept) + needed
        free = shutil.disk_usage(folder).free - SPARE_BYTES
        if needed > free + sum(data.stat().st_size for data in kept):
            return False  # nothing is given up for what would not fit anyway
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
    return record.stat().st_mtime if record.exists() else 0.0  # without its record it can never be read


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
