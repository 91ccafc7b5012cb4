"""Temporary folders next to what is being written: unique, recognised by their name, removed once their process died.

A name holds the machine and the process that made it. Nothing else is ever removed: a file of the user's that is called
`.tmp-x` is not a temporary file of ours.
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
STALE_SECONDS = 24 * 3600  # a process of another machine cannot be asked about; this long unchanged, it counts as dead
_OWNER = re.compile(r"([0-9a-f]{8})-(\d{1,10})")
_NAME = re.compile(rf"{re.escape(PREFIX)}({_OWNER.pattern})-[a-z0-9_]{{8}}")  # the random part is that of tempfile


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in `parent`, and remove it at the end with what is left in it.

    What processes that died left in `parent` is removed first. Raises `OSError` if the disk refuses.
    """
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner()}-", dir=parent))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            remove(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove the temporary folders in `parent` whose process does not exist any more."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            if is_temporary(path.name) and not _in_use(path):
                with contextlib.suppress(OSError):  # another process may have removed it meanwhile
                    remove(path)


def is_temporary(name: str) -> bool:
    """Return whether a name is one that `temporary_folder` gives."""
    return _NAME.fullmatch(name) is not None


def owner() -> str:
    """Return a name for this process that other processes can look up with `is_running`."""
    return f"{_machine()}-{os.getpid()}"


def is_running(name: str) -> bool | None:
    """Return whether the process that `owner` named exists; None if it belongs to another machine or container."""
    import psutil

    found = _OWNER.fullmatch(name)
    if found is None or found[1] != _machine():
        return None
    return psutil.pid_exists(int(found[2]))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all its files, each emptied first.

    A synchronised disk moves what is deleted to its trash, and counts its bytes: those of an empty file are none.
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
        # A file with a second name is left as it is: that name may be the user's.
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink <= 1:
            os.truncate(path, 0)


def _in_use(path: Path) -> bool:
    running = is_running(_NAME.fullmatch(path.name)[1])
    return time.time() - path.stat().st_mtime < STALE_SECONDS if running is None else running


def _machine() -> str:
    """Return eight digits for this machine and, on Linux, its space of process numbers: each container has its own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
