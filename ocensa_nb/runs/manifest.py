"""`RUN/manifest.json`: the size and SHA-256 of every file that affects a result; a run that has one is finished."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import write_text
from ocensa_nb.files.verify import LARGEST_JSON, compute, first_mismatch, read_regular
from ocensa_nb.paths import reason

CONFIG, LABELS, METRICS, HISTORY = "config.json", "labels.json", "metrics.json", "history.jsonl"
ENCODER, HEADS, LAST, MANIFEST = "encoder", "heads.safetensors", "last", "manifest.json"
LINEAR = "linear"  # the linear model and the blend
SPLITS = "splits.safetensors"
RESULTS = (CONFIG, LABELS, METRICS, HISTORY, HEADS, ENCODER, LINEAR, SPLITS)
CORRECTIONS = "corrections.csv"  # only in runs trained with corrections


def write(run: Path) -> None:
    try:
        text = _render(compute(run, _results(run)))
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    write_text(run / MANIFEST, text)


def verify(run: Path) -> None:
    """Verify the files of a finished run; raises `UserError`, which names the file that changed or is missing."""
    if not is_finished(run):
        raise UserError(
            f"A «{run}» le falta {MANIFEST}, con el que se comprueba que sus archivos son los que se guardaron. "
            "Recupere una copia de la carpeta o vuelva a entrenar."
        )
    checksums = _read(run / MANIFEST)
    try:
        name = first_mismatch(run, _results(run), checksums)
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    if name:
        raise UserError(
            f"El archivo {name} de «{run}» no es el que se guardó al entrenar (otro tamaño u otro SHA-256): está "
            "dañado o alguien lo cambió. Recupere una copia de la carpeta o vuelva a entrenar."
        )


def is_finished(run: Path) -> bool:
    return (run / MANIFEST).exists()


def checksum(value: Any) -> str:
    """Return the SHA-256 of a JSON value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _results(run: Path) -> tuple[str, ...]:
    return (*RESULTS, CORRECTIONS) if (run / CORRECTIONS).exists() else RESULTS


def _render(checksums: Mapping[str, Any]) -> str:
    # The checksum of itself, so that a damaged manifest is not reported as a damaged file of the run.
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
