"""Read regular files only (a pipe blocks, `/dev/zero` never ends), and verify checksums."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ocensa_nb.errors import UserError, num

LARGEST_JSON = 2**26  # bytes; a labels.json of 10,000 classes has less than one MB
CHUNK_BYTES = 2**24
PAGE_BYTES = 4096  # a disk loses or misplaces no less than a sector, an operating system no less than a page
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # without it, opening a pipe blocks; Windows has no named pipes in folders


def open_regular(path: Path, mode: str = "rb") -> IO[bytes]:
    """Open a regular file in a binary mode; raises `OSError` if it is not a regular file."""
    return open(path, mode, opener=_open_regular)


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file; raises `OSError` if there are more than `most`."""
    with open_regular(path) as file:
        too_large = os.fstat(file.fileno()).st_size > most
        content = b"" if too_large else file.read(most + 1)
    if too_large or len(content) > most:  # the file may have grown since fstat
        raise OSError(errno.EOVERFLOW, f"ocupa más de {num(most / 2**20)} MiB")
    return content


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises `UserError` if it is missing or damaged."""
    try:
        value = json.loads(read_regular(path, LARGEST_JSON))
        # A lone surrogate or a non-finite number could not be written again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"El archivo «{path}» falta o está dañado. Vuelva a entrenar o recupere una copia.") from error


def require_regular(path: Path) -> None:
    """Raise `OSError` if a path is not a regular file; for libraries that open files by name."""
    _check_mode(path, path.stat().st_mode)


def first_special(folder: Path) -> Path | None:
    """Return the first pipe, device or socket in a folder or its subfolders, one level deep, or None."""
    paths = sorted([*folder.glob("*"), *folder.glob("*/*")])
    return next((path for path in paths if path.exists() and not path.is_dir() and not path.is_file()), None)


def compute(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return `{"bytes": size, "sha256": digest}` by POSIX path, for files of a folder and all files of its folders."""
    for name in names:
        (folder / name).stat()  # raises if it is missing
    return {name: _checksum(file) for name, file in _files(folder, names)}


def first_mismatch(folder: Path, names: Sequence[str], expected: Mapping[str, Any]) -> str:
    """Return the first name that is missing or has another checksum than that of `compute`; "" if all match."""
    files = dict(_files(folder, names))
    for name in sorted({*files, *expected}):
        if name not in files or name not in expected or not _matches(files[name], expected[name]):
            return name
    return ""


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def page_digest(path: Path) -> str:
    """Return the SHA-256 of the sums, modulo 2**64, of the 64-bit words of each page of a file.

    It detects flipped bits, and pages that are empty, missing, old or misplaced, but no tampering. It is several times
    as fast as SHA-256 over all bytes.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
        while chunk := file.read(2**20):
            padded = chunk.ljust(-(-len(chunk) // PAGE_BYTES) * PAGE_BYTES, b"\0")
            digest.update(np.frombuffer(padded, np.uint64).reshape(-1, PAGE_BYTES // 8).sum(axis=1))
    return digest.hexdigest()


def _matches(file: Path, expected: Any) -> bool:
    size = expected.get("bytes") if isinstance(expected, dict) else None
    return file.stat().st_size == size and _checksum(file) == expected


def _checksum(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _files(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for name in names:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not _is_of_the_system(file):
                yield file.relative_to(folder).as_posix(), file


def _is_of_the_system(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in ("desktop.ini", "thumbs.db")


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | _NONBLOCK, 0o666)
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_mode(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no es un archivo normal, sino un dispositivo o una tubería", str(path))
