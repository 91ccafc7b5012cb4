"""`RUN/manifest.json`: the size and SHA-256 of every file of a run that affects a result.

It is the last file of a run to be written. It includes a checksum of its own, so that a damaged manifest is not
reported as a damaged file of the run. Earlier versions stored the checksums of some files in config.json.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import write_text
from ocensa_nb.files.regular import LARGEST_JSON, read_regular
from ocensa_nb.files.verify import compute, first_mismatch
from ocensa_nb.paths import reason

logger = logging.getLogger(__name__)

CONFIG, LABELS, METRICS, HISTORY = "config.json", "labels.json", "metrics.json", "history.jsonl"
ENCODER, HEADS, LAST, MANIFEST = "encoder", "heads.safetensors", "last", "manifest.json"
LINEAR = "linear"  # the simple model and the blend; runs of earlier versions have none
RESULTS = (CONFIG, LABELS, METRICS, HISTORY, HEADS, ENCODER)
CORRECTIONS = "corrections.csv"
OPTIONAL = (LINEAR, CORRECTIONS)  # what only some runs have
EARLIER = (LABELS, HEADS, ENCODER)  # the files covered by the checksums of earlier versions


def write(run: Path) -> None:
    """Write the manifest of a run; raises `UserError` if a file cannot be read or written."""
    try:
        text = _render(compute(run, _results(run)))
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    write_text(run / MANIFEST, text)


def verify(run: Path) -> None:
    """Verify the files of a finished run against its manifest.

    For a run of an earlier version, only the files in `EARLIER` are verified, and a note is printed.

    Raises
    ------
    UserError
        If a file was changed, is missing or cannot be read; the message names the file.
    """
    if (run / MANIFEST).exists():
        _verify(run, _results(run), _read(run / MANIFEST))
        return
    if not (checksums := _earlier_checksums(run)):
        raise UserError(
            f"A «{run}» le falta {MANIFEST}, con el que se comprueba que sus archivos son los que se guardaron. "
            "Recupere una copia de la carpeta o vuelva a entrenar."
        )
    logger.info(
        f"La corrida «{run}» es de una versión anterior, sin {MANIFEST}: se comprueban sus pesos y sus etiquetas, pero "
        f"no {CONFIG}, {METRICS} ni {HISTORY}."
    )
    _verify(run, EARLIER, checksums)


def is_finished(run: Path) -> bool:
    """Return whether a run is finished: it has a manifest or, if an earlier version wrote it, metrics.

    A run with metrics and a checkpoint but neither manifest nor checksums was interrupted before its manifest.
    """
    if (run / MANIFEST).exists() or not (run / METRICS).exists():
        return (run / MANIFEST).exists()
    return not (run / LAST).exists() or bool(_earlier_checksums(run))


def checksum(value: Any) -> str:
    """Return the SHA-256 of a JSON value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _results(run: Path) -> tuple[str, ...]:
    """Return the names of the files that the manifest of a run covers."""
    return (*RESULTS, *(name for name in OPTIONAL if (run / name).exists()))


def _verify(run: Path, names: tuple[str, ...], checksums: Mapping[str, Any]) -> None:
    try:
        name = first_mismatch(run, names, checksums)
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    if name:
        raise UserError(
            f"El archivo {name} de «{run}» no es el que se guardó al entrenar (otro tamaño u otro SHA-256): está "
            "dañado o alguien lo cambió. Recupere una copia de la carpeta o vuelva a entrenar."
        )


def _render(checksums: Mapping[str, Any]) -> str:
    return json.dumps({"files": checksums, "sha256": checksum(checksums)}, indent=2) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path, LARGEST_JSON).decode()
        checksums = json.loads(text)["files"]
        intact = isinstance(checksums, dict) and text == _render(checksums)
    except OSError as error:
        raise UserError(f"No se puede leer «{path}»: {reason(error)}.") from error
    except (ValueError, LookupError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise UserError(
            f"El archivo «{path}» está dañado: sin él no se puede comprobar la corrida. Recupere una copia de la "
            "carpeta o vuelva a entrenar."
        )
    return checksums


def _earlier_checksums(run: Path) -> dict[str, Any]:
    """Return the checksums that an earlier version stored in config.json; {} if there are none."""
    try:
        checksums = json.loads(read_regular(run / CONFIG, LARGEST_JSON))["files"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return checksums if isinstance(checksums, dict) else {}
