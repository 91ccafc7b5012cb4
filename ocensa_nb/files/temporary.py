"""Temporary folders next to the target file, with unique names; those of dead processes are removed.

The name contains the machine and the process that created the folder. Nothing else is ever removed: a user's file named
`.tmp-x` does not match.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".ocensa-tmp-"
STALE_SECONDS = 24 * 3600  # unchanged for this long, a folder of another machine is abandoned
_OWNER = re.compile(r"([0-9a-f]{8})-(\d{1,10})")
_NAME = re.compile(rf"{re.escape(PREFIX)}({_OWNER.pattern})-[a-z0-9_]{{8}}")  # tempfile adds the random part


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder in `parent`; remove it and its content at the end.

    Temporary folders of dead processes in `parent` are removed first.

    Raises
    ------
    OSError
        If the folder cannot be created.
    """
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner()}-", dir=parent))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            remove(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders in `parent` whose process no longer exists."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            if is_temporary(path.name) and not _in_use(path):
                with contextlib.suppress(OSError):  # another process may have removed it meanwhile
                    remove(path)


def is_temporary(name: str) -> bool:
    """Return whether a name has the format of `temporary_folder`."""
    return _NAME.fullmatch(name) is not None


def owner() -> str:
    """Return an identifier of this process for `is_running`."""
    return f"{_machine()}-{os.getpid()}"


def is_running(name: str) -> bool | None:
    """Return whether the process of an `owner` identifier exists; None if it is of another machine or container."""
    import psutil

    found = _OWNER.fullmatch(name)
    if found is None or found[1] != _machine():
        return None
    return psutil.pid_exists(int(found[2]))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all its files, after truncating each file to zero bytes.

    A synchronised disk moves deleted files to its trash, where their bytes count against the quota.
    """
    if path.is_dir() and not path.is_symlink():
        for file in path.rglob("*"):
            _empty(file)
        shutil.rmtree(path)
    else:
        _empty(path)
        path.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    with contextlib.suppress(OSError):  # a file that cannot be written can still be removed
        # A file with a second hard link is not truncated: the other name may be the user's.
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink <= 1:
            os.truncate(path, 0)


def _in_use(path: Path) -> bool:
    running = is_running(_NAME.fullmatch(path.name)[1])
    return time.time() - path.stat().st_mtime < STALE_SECONDS if running is None else running


def _machine() -> str:
    """Return eight hex digits for this machine and, on Linux, its PID namespace (each container has its own)."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
