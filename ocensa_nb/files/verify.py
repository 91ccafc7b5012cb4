"""Checksums of files: compute size and SHA-256, and find the first file that does not match."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

LARGEST_JSON = 2**26  # bytes; a labels.json of 10,000 classes has less than one MB
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
        raise OSError(errno.EOVERFLOW, f"ocupa más de {most / 2**20:,.0f} MiB")
    return content


def require_regular(path: Path) -> None:
    """Raise `OSError` if a path is not a regular file; for libraries that open files by name."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise _not_regular(path)


def first_special(folder: Path) -> Path | None:
    """Return the first special file (pipe, device, socket) in a folder or its subfolders, one level deep, or None."""
    files = sorted([*folder.glob("*"), *folder.glob("*/*")])
    found = (path for path in files if path.exists() and not path.is_dir() and not path.is_file())
    return next(found, None)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | _NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_regular(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _not_regular(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, "no es un archivo normal, sino un dispositivo o una tubería", str(path))


CHUNK_BYTES = 2**24
PAGE_BYTES = 4096  # a disk loses or misplaces no less than a sector, an operating system no less than a page


def compute(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the size and SHA-256 of files of a folder.

    Parameters
    ----------
    folder
        The folder that the names are relative to.
    names
        Files, or folders whose files are all included.

    Returns
    -------
    dict
        By relative POSIX path: `{"bytes": size, "sha256": hexadecimal digest}`.

    Raises
    ------
    OSError
        If a name is missing or a file cannot be read.
    """
    for name in names:
        (folder / name).stat()  # raises if it is missing
    return {name: _checksum(file) for name, file in _files(folder, names)}


def first_mismatch(folder: Path, names: Sequence[str], expected: Mapping[str, Any]) -> str:
    """Return the name of the first file that does not match its checksum.

    Parameters
    ----------
    folder, names
        See `compute`.
    expected
        What `compute` returned before.

    Returns
    -------
    str
        The first name, sorted, whose file differs, is missing, or has no expected checksum; "" if all match.
    """
    found = dict(_files(folder, names))
    for name in sorted({*found, *expected}):
        if name not in found or name not in expected or not _matches(found[name], expected[name]):
            return name
    return ""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in chunks; raises `OSError` if it is not a regular file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def page_digest(path: Path) -> str:
    """Return the SHA-256 of the sums, modulo 2**64, of the 64-bit words of each page of a file.

    It detects what disks and interrupted writes do: flipped bits, and pages that are empty, missing, old or misplaced.
    It does not detect tampering, nor words that change places within a page. Its speed is that of the memory, several
    times that of SHA-256 over all bytes.

    Raises
    ------
    OSError
        If it is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
        while chunk := file.read(2**20):
            padded = chunk.ljust(-(-len(chunk) // PAGE_BYTES) * PAGE_BYTES, b"\0")
            digest.update(np.frombuffer(padded, np.uint64).reshape(-1, PAGE_BYTES // 8).sum(axis=1))
    return digest.hexdigest()


def _is_of_the_system(file: Path) -> bool:
    """Return whether a file is one that Windows, macOS or a synchronised disk creates in any folder."""
    return file.name.startswith(".") or file.name.lower() in ("desktop.ini", "thumbs.db")


def _matches(file: Path, expected: Any) -> bool:
    """Return whether a file has the expected size and SHA-256; the file is only read if the size matches."""
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
