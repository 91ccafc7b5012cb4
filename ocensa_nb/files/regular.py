"""Open regular files only: a pipe would block until it has a writer, and `/dev/zero` never ends.

The functions raise `OSError`, so that callers handle a special file like any other unreadable file.
"""

import errno
import os
import stat
from pathlib import Path
from typing import IO

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
