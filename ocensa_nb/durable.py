"""Files written whole or not at all: a temporary name, what is in it forced to the disk, then the rename.

A reader never sees half a file, and after a power cut the name stands for the old content or for the new.
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ocensa_nb.errors import UserError

REPLACE_SECONDS = 1.0  # how long Windows may refuse to replace a file that another process has open
RETRY_SECONDS = 0.02
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION: "System Error Codes (0-499)", learn.microsoft.com
IN_USE = (5, 32, 33)
_GONE = "se perdió la conexión con el disco"
_REASONS = {
    errno.ENOSPC: "no queda espacio en el disco",
    errno.EDQUOT: "se acabó la cuota de disco",
    errno.EFBIG: "el archivo no cabe",
    errno.EACCES: "no hay permiso",
    errno.EPERM: "no hay permiso",
    errno.EROFS: "es de solo lectura",
    errno.ENOENT: "no existe",
    errno.ENOTDIR: "parte de la ruta es un archivo y no una carpeta",
    errno.EISDIR: "es una carpeta",
    errno.EEXIST: "ya existe un archivo con ese nombre",
    errno.ENAMETOOLONG: "el nombre es demasiado largo",
    errno.EIO: "el disco falla",
    errno.ENOTCONN: _GONE,
    errno.ESTALE: _GONE,
    errno.ETIMEDOUT: _GONE,
}


def reason(error: Exception) -> str:
    """Return in Spanish why the system refused."""
    return _REASONS.get(_number(error)) or getattr(error, "strerror", None) or str(error)


def _number(error: Exception) -> int | None:
    """Return the system's number of an error; safetensors and tokenizers say it in their text alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found.group(1)) if found else None


def plain_path(value: str | Path) -> Path:
    """Return a path; raises `UserError` for one too long, or with a NUL, a newline or another control character."""
    if any(ord(character) < 32 or ord(character) == 127 for character in str(value)):
        raise UserError(f"La ruta {str(value)!r} tiene caracteres de control (saltos de línea o nulos). Quítelos.")
    if not str(value).isprintable() and any(0xD800 <= ord(character) < 0xE000 for character in str(value)):
        raise UserError(f"La ruta {str(value)!r} tiene caracteres que no son UTF-8. Cambie ese nombre.")
    try:
        Path(value).exists()  # a name too long to be asked about
    except OSError as error:
        raise UserError(f"La ruta «{str(value)[:80]}…» no vale: {reason(error)}.") from error
    return Path(value)


def free_path(value: str | Path) -> Path:
    """Return a path; raises `UserError` where something is there already, or it cannot be one."""
    path = plain_path(value)
    if path.exists():
        raise UserError(f"Ya existe «{path}», y no se sobrescribe nada. Elija otro nombre en out.")
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, for a file or a folder, which takes its place when the block ends well.

    The folder it is in is made where there is none; a folder that stands at `path` is removed for the new one. Raises
    `UserError` where the disk refuses; what stood at `path` is then as it was.
    """
    fresh = path.with_name(f".tmp-{path.name}")  # the suffix stays: some writers go by it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(fresh)
        yield fresh
        for file in sorted(fresh.rglob("*")) if fresh.is_dir() else [fresh]:
            _sync(file)
        if fresh.is_dir():
            _sync(fresh)
            remove(path)
        replace(fresh, path)
        _sync(path.parent)
    except Exception as error:
        if not isinstance(error, OSError) and _number(error) is None:
            raise
        raise UserError(f"No se puede escribir «{path}»: {reason(error)}. Lo que ya había sigue intacto.") from error
    finally:
        with contextlib.suppress(OSError):
            remove(fresh)


@contextlib.contextmanager
def overwriting(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write it in place from its start; on success cut the rest off and force it to the disk.

    A new file appears whole or not at all. One that was there is damaged if the block fails or the machine dies, so
    readers must verify it. Raises `UserError` if the disk refuses.
    """
    if not path.is_file():
        with replacing(path) as fresh, open(fresh, "wb") as file:
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
    """Rename a file or a folder over another, and retry for `REPLACE_SECONDS` if Windows refuses.

    On Windows a file cannot be replaced while an antivirus, a search index or a reader has it open, which is soon over.
    On other systems a `PermissionError` is final: it has no `winerror`, and is raised at once.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE or time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_SECONDS)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; raises `UserError` where the disk refuses."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


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
    if path.is_file() and not path.is_symlink():
        with contextlib.suppress(OSError):  # a file that cannot be written can still be removed
            os.truncate(path, 0)
