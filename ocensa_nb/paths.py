"""Paths: of the project's files, in a checkout or installed; of the user, validated; of a mounted Google Drive."""

import errno
import os
import re
from pathlib import Path

from ocensa_nb.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE.parent  # of the checkout, or where the package is installed
REQUIREMENTS = ROOT / "requirements.txt"  # of a checkout
IS_CHECKOUT = not (_PACKAGE / "notebooks").is_dir()  # the wheel has the notebooks and the samples inside the package
NOTEBOOKS = (ROOT if IS_CHECKOUT else _PACKAGE) / "notebooks"
SAMPLES = ROOT / "data" if IS_CHECKOUT else _PACKAGE / "samples"
SAMPLE_DATA = SAMPLES / "synthetic_training_data.csv"
NEW_NOTICES = SAMPLES / "example_iw69.csv"  # in the format of an export of SAP, with labels to compare with
RUNS = Path("runs")
TAKEN = "Ya existe «{path}», y no se sobrescribe nada. Elija otro nombre en out."
DRIVE = Path("/content/drive")  # where Colab's own notebooks mount it
MOUNTS = Path("/proc/self/mounts")
FILE_SYSTEM = "fuse.drive"  # google.colab.drive looks for this type to tell whether a Drive is mounted
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


def working_folder() -> Path:
    """Return the folder of a session: the checkout if it can be written to, otherwise the current folder."""
    return ROOT if IS_CHECKOUT and os.access(ROOT, os.W_OK) else Path.cwd()


def reason(error: Exception) -> str:
    return _REASONS.get(error_number(error)) or getattr(error, "strerror", None) or str(error)


def error_number(error: Exception) -> int | None:
    """Return the errno of an error, or None; safetensors and tokenizers give it only in their message."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"os error (\d+)", str(error))
    return int(number.group(1)) if number else None


def meant(path: str) -> str:
    """Return a path without the quotes and spaces that were pasted with it, and with `~` and `file://` resolved."""
    path = path.strip()
    if len(path) > 1 and path[0] == path[-1] and path[0] in "\"'":  # «Copiar como ruta de acceso» of Windows
        path = path[1:-1].strip()
    if path.lower().startswith("file://"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname  # takes 30 ms to import

        path = url2pathname(urlsplit(path).path)
    return os.path.expanduser(path)


def plain_path(value: str | Path) -> Path:
    """Return the path that is `meant`; raises `UserError` if it is too long, not UTF-8, or has control characters."""
    value = meant(str(value))
    if any(ord(character) < 32 or ord(character) == 127 for character in str(value)):
        raise UserError(f"La ruta {str(value)!r} tiene caracteres de control (saltos de línea o nulos). Quítelos.")
    if not str(value).isprintable() and any(0xD800 <= ord(character) < 0xE000 for character in str(value)):
        raise UserError(f"La ruta {str(value)!r} tiene caracteres que no son UTF-8. Cambie ese nombre.")
    try:
        Path(value).exists()  # raises for a name that is too long
    except OSError as error:
        raise UserError(f"La ruta «{str(value)[:80]}…» no es válida: {reason(error)}.") from error
    return Path(value)


def free_path(value: str | Path) -> Path:
    """Return a path that does not exist; raises `UserError` if it exists, even as a broken link, or is not valid."""
    path = plain_path(value)
    if os.path.lexists(path):
        raise UserError(TAKEN.format(path=path))
    return path


def is_on_drive(path: Path) -> bool:
    """Return whether a path is on a mounted Google Drive, which uploads a complete file after each write to it."""
    path = path.resolve()
    return any(path.is_relative_to(mount) for mount in (DRIVE.resolve(), *_mounts()))


def _mounts() -> list[Path]:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    # proc_mounts(5): device, mount point, type, options; a space in a mount point is written as \040
    return [Path(field[1].replace("\\040", " ")) for field in fields if len(field) > 2 and field[2] == FILE_SYSTEM]
