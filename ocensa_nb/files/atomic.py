"""Atomic writes: write to a temporary path, fsync it, then rename it to the final path.

`atomic_write` replaces files of the program; `create_new` creates files of the user and never replaces anything.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ocensa_nb.errors import UserError
from ocensa_nb.paths import TAKEN, error_number, reason

PREFIX = ".ocensa-tmp-"
STALE_SECONDS = 24 * 3600  # unchanged for this long, a folder of another machine is abandoned
# The name of a temporary folder has the machine and the process. Only folders of dead processes are removed: a user's
# file named `.tmp-x` does not match.
_OWNER = re.compile(r"([0-9a-f]{8})-(\d{1,10})")
_NAME = re.compile(rf"{re.escape(PREFIX)}({_OWNER.pattern})-[a-z0-9_]{{8}}")  # tempfile adds the random part
REPLACE_SECONDS = 1.0  # how long Windows may refuse to replace a file that another process has open
RETRY_SECONDS = 0.02
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: "System Error Codes (0-499)", learn.microsoft.com
IN_USE = (5, 32, 33)
_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same name; on success fsync it and rename it to `path`.

    Missing parent folders are created. A file at `path` is replaced in one rename. A folder at `path` is removed first.
    Raises `UserError` if it cannot be written; `path` is unchanged.
    """
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as folder:
            temporary = folder / path.name  # the same suffix: some writers choose the format by it
            yield temporary
            _settle(temporary)
            if temporary.is_dir():
                remove(path)
            replace(temporary, path)
            _sync(path.parent)


@contextlib.contextmanager
def create_new(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success fsync it and rename it to `path`, which must not exist.

    `path` may be an empty folder, such as a mount point, if a folder is written. Raises `UserError` if `path` exists,
    also if it appears while the block runs, or cannot be written; `path` is unchanged.
    """
    with _refusals(path):
        parent = path if path.is_dir() else path.parent
        parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent) as folder:
            temporary = folder / (path.name or "new")  # the current folder has no name
            yield temporary
            _settle(temporary)
            try:
                if temporary.is_dir() and parent == path:
                    _move_entries(temporary, path)
                else:
                    _rename_new(temporary, path)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    raise UserError(TAKEN.format(path=path)) from error
                raise
            _sync(parent)


@contextlib.contextmanager
def overwriting(path: Path) -> Iterator[BinaryIO]:
    """Open a file to overwrite it in place; on success truncate it to the new length and fsync it.

    An existing file is damaged if the block fails or the machine dies, so readers must verify it. A new file is written
    atomically. Raises `UserError` if the file cannot be written.
    """
    if not path.is_file():
        with _refusals(path):
            path.parent.mkdir(exist_ok=True)  # not its parents: a deleted run folder must not be created again
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            yield file
        return
    try:
        with open(path, "r+b") as file:
            yield file
            file.truncate()
        _sync(path)
    except OSError as error:
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}.") from error


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def replace(source: Path, target: Path) -> None:
    """Rename a file or a folder over another one; on Windows retry for `REPLACE_SECONDS` while it is in use."""
    _retry(lambda: os.replace(source, target))


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Create a temporary folder in `parent`; remove it at the end, and those of dead processes first."""
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner()}-", dir=parent))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            remove(folder)


def remove_abandoned(parent: Path) -> None:
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            if is_temporary(path.name) and not _in_use(path):
                with contextlib.suppress(OSError):  # another process may have removed it meanwhile
                    remove(path)


def is_temporary(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def owner() -> str:
    return f"{_machine()}-{os.getpid()}"


def is_running(name: str) -> bool | None:
    """Return whether the process of an `owner()` exists; None if it is of another machine or container."""
    import psutil

    parts = _OWNER.fullmatch(name)
    if parts is None or parts[1] != _machine():
        return None
    return psutil.pid_exists(int(parts[2]))


def remove(path: Path) -> None:
    """Remove a file or a folder, after truncating each file to zero bytes."""
    if path.is_dir() and not path.is_symlink():
        # A synchronised disk moves deleted files to its trash, where their bytes count against the quota.
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


def _in_use(folder: Path) -> bool:
    running = is_running(_NAME.fullmatch(folder.name)[1])
    return time.time() - folder.stat().st_mtime < STALE_SECONDS if running is None else running


def _machine() -> str:
    """Return eight hex digits for this machine and, on Linux, its PID namespace (each container has its own)."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn an error of the system, safetensors or tokenizers into a `UserError`."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and error_number(error) is None:
            raise
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}. Lo que ya había sigue intacto.") from error


def _move_entries(source: Path, folder: Path) -> None:
    """Move the entries of a folder to another one, which must be empty but for temporary folders."""
    if any(not is_temporary(entry.name) for entry in folder.iterdir()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    for entry in sorted(source.iterdir()):
        _rename_new(entry, folder / entry.name)


def _rename_new(source: Path, path: Path) -> None:
    """Rename a file or a folder to a path that must not exist; raises `FileExistsError` if it does."""
    if os.name == "nt":
        _retry(lambda: os.rename(source, path))
    elif source.is_dir():
        # Renaming a folder replaces an empty folder at most.
        if os.path.lexists(path) and not path.is_dir():  # the system would raise NotADirectoryError
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(source, path)
    else:
        try:
            os.link(source, path)
        except FileExistsError:
            raise
        except OSError:
            # A disk without hard links (exFAT, Google Drive): a process that dies here leaves an empty file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            replace(source, path)
        else:
            source.unlink()


def _retry(rename: Callable[[], None]) -> None:
    """Rename; on Windows retry for `REPLACE_SECONDS` while another process has the file open, such as an antivirus."""
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            return rename()
        except PermissionError as error:
            # on other systems there is no `winerror`: raised at once
            if getattr(error, "winerror", None) not in IN_USE or time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _settle(path: Path) -> None:
    for file in [*(sorted(path.rglob("*")) if path.is_dir() else []), path]:
        if file.is_file() and file.stat().st_mode & 0o777 == 0o600:  # safetensors creates files with mode 600
            with contextlib.suppress(OSError):  # a disk without permissions
                file.chmod(0o666 & ~_UMASK)
        _sync(file)


def _sync(path: Path) -> None:
    # Windows cannot open a folder, and some network disks do not support fsync.
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
