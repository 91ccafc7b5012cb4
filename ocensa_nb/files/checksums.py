"""The size and SHA-256 of files, noted when they are written and compared before they are believed."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocensa_nb.files.regular import open_regular

CHUNK_BYTES = 2**24


def seal(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the size in bytes and the SHA-256 of some files of a folder, and of every file of its folders so named."""
    return {name: _sealed(file) for name, file in _files(folder, names)}


def broken_seal(folder: Path, names: Sequence[str], seals: Mapping[str, Any]) -> str:
    """Return the first name whose file is not as it was sealed, was never sealed, or is gone; or an empty text."""
    found = dict(_files(folder, names))
    for name in sorted({*found, *seals}):
        if name not in found or name not in seals or not _matches(found[name], seals[name]):
            return name
    return ""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_of_the_system(file: Path) -> bool:
    """Tell whether a file is one that Windows, macOS or a synchronised disk leaves in any folder."""
    return file.name.startswith(".") or file.name.lower() in ("desktop.ini", "thumbs.db")


def _matches(file: Path, seal: Any) -> bool:
    """Return whether a file is as it was sealed; one of another size is not read."""
    size = seal.get("bytes") if isinstance(seal, dict) else None
    return file.stat().st_size == size and _sealed(file) == seal


def _sealed(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def _files(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for name in names:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not _is_of_the_system(file):
                yield file.relative_to(folder).as_posix(), file
