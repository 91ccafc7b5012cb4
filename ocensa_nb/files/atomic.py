"""Files written whole or not at all: a temporary name, what is in it forced to the disk, then the final name.

A reader never sees half a file, and after a power cut the name stands for the old content or for the new. A file of
ours is replaced (`atomic_write`); a file of the user's is new (`create_new`), and nothing that exists is touched.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ocensa_nb.errors import UserError
from ocensa_nb.files.temporary import is_temporary, remove, temporary_folder
from ocensa_nb.paths import TAKEN, error_number, reason

REPLACE_SECONDS = 1.0  # how long Windows may refuse to replace a file that another process has open
RETRY_SECONDS = 0.02
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: "System Error Codes (0-499)", learn.microsoft.com
IN_USE = (5, 32, 33)
_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder; on success rename it over `path`, which is ours to replace.

    Missing parent folders are created. A reader sees the old file or the new one; a folder at `path` is removed first.

    Raises
    ------
    UserError
        If the disk refuses; what was at `path` is unchanged.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as place:
            fresh = place / path.name  # with its suffix: some writers go by it
            yield fresh
            _settle(fresh)
            if fresh.is_dir():
                remove(path)
            replace(fresh, path)
            _sync(path.parent)


@contextlib.contextmanager
def create_new(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder; on success give it the name `path`, which must be free.

    The name may be taken while the block runs: nothing is replaced then either. A folder may also go to an empty folder
    that exists, such as a mount point. Its files are then moved one by one; otherwise the name appears at once.

    Raises
    ------
    UserError
        If `path` exists or the disk refuses; what is at `path` is unchanged.
    """
    with _refusals(path):
        parent = path if path.is_dir() else path.parent
        parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent) as place:
            fresh = place / (path.name or "new")  # the current folder has no name
            yield fresh
            _settle(fresh)
            try:
                if fresh.is_dir() and parent == path:
                    _fill(path, fresh)
                else:
                    _name_new(fresh, path)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    raise UserError(TAKEN.format(path=path)) from error
                raise
            _sync(parent)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the system, safetensors or tokenizers refuse into a `UserError`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and error_number(error) is None:
            raise
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}. Lo que ya había sigue intacto.") from error


def _fill(folder: Path, fresh: Path) -> None:
    """Move what is in a folder to one that has nothing in it but temporary folders."""
    if any(not is_temporary(entry.name) for entry in folder.iterdir()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    for entry in sorted(fresh.iterdir()):
        _name_new(entry, folder / entry.name)


def _name_new(fresh: Path, path: Path) -> None:
    """Rename a file or a folder to a name that is free; raises `FileExistsError` if it is not.

    Windows renames over nothing. Elsewhere a folder is renamed over an empty folder at most, and a file gets the name
    as a second link, which fails if the name exists. On a disk without links (exFAT, Google Drive) the name is created
    empty, which fails likewise, and replaced: a process that dies in between leaves an empty file.
    """
    if os.name == "nt":
        _retry(lambda: os.rename(fresh, path))
    elif fresh.is_dir():
        if os.path.lexists(path) and not path.is_dir():  # the system would say that it is not a folder
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(fresh, path)
    else:
        try:
            os.link(fresh, path)
        except FileExistsError:
            raise
        except OSError:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            replace(fresh, path)
        else:
            fresh.unlink()


@contextlib.contextmanager
def overwriting(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write it in place from its start; on success cut the rest off and force it to the disk.

    A new file appears whole or not at all. One that was there is damaged if the block fails or the machine dies, so
    readers must verify it. Raises `UserError` if the disk refuses.
    """
    if not path.is_file():
        with _refusals(path):
            path.parent.mkdir(exist_ok=True)  # but not its parents: a run folder that was deleted is not made again
        with atomic_write(path) as fresh, open(fresh, "wb") as file:
            yield file
        return
    try:
        with open(path, "r+b") as file:
            yield file
            file.truncate()
        _sync(path)
    except OSError as error:
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}.") from error


def replace(source: Path, target: Path) -> None:
    """Rename a file or a folder over another, and retry for `REPLACE_SECONDS` if Windows refuses."""
    _retry(lambda: os.replace(source, target))


def _retry(rename: Callable[[], None]) -> None:
    """Rename, and retry for `REPLACE_SECONDS` if Windows refuses.

    On Windows a file cannot be renamed while an antivirus, a search index or a reader has it open, which is soon over.
    On other systems a `PermissionError` is final: it has no `winerror`, and is raised at once.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            rename()
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE or time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def write_text(path: Path, text: str) -> None:
    """Write a text file of ours in UTF-8, whole or not at all; raises `UserError` if the disk refuses."""
    with atomic_write(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _settle(path: Path) -> None:
    """Force a file, or a folder with all its files, to the disk, with the permissions of any new file."""
    for file in sorted(path.rglob("*")) if path.is_dir() else []:
        _settle_one(file)
    _settle_one(path)


def _settle_one(path: Path) -> None:
    if path.is_file() and path.stat().st_mode & 0o777 == 0o600:  # safetensors lets nobody else read what it writes
        with contextlib.suppress(OSError):  # a disk without permissions
            path.chmod(0o666 & ~_UMASK)
    _sync(path)


def _sync(path: Path) -> None:
    """Force a file or a folder to the disk; Windows opens no folder, and some network disks sync none."""
    if path.is_dir():
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
