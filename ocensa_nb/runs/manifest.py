"""The names of a run's files, and the checksums that tell whether they are those that were written.

`RUN/manifest.json` has the size and SHA-256 of every file that affects a result; a run that has one is finished.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import write_json
from ocensa_nb.files.verify import compute, first_mismatch, read_json
from ocensa_nb.paths import reason

CONFIG, LABELS, METRICS, HISTORY = "config.json", "labels.json", "metrics.json", "history.jsonl"
ENCODER, HEADS, LAST, MANIFEST = "encoder", "heads.safetensors", "last", "manifest.json"
LINEAR = "linear"  # the linear model and the blend
SPLITS = "splits.safetensors"
RESULTS = (CONFIG, LABELS, METRICS, HISTORY, HEADS, ENCODER, LINEAR, SPLITS)
CORRECTIONS = "corrections.csv"  # only in runs trained with corrections
CHECKSUM = "sha256"  # of the rest of config.json and manifest.json, which no manifest has


def write(run: Path) -> None:
    try:
        checksums = compute(run, _results(run))
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    write_json(run / MANIFEST, sealed({"files": checksums}))


def verify(run: Path) -> None:
    """Verify the files of a finished run; raises `UserError`, which names the file that changed or is missing."""
    checksums = read_sealed(run / MANIFEST).get("files")
    try:
        name = first_mismatch(run, _results(run), checksums if isinstance(checksums, dict) else {})
    except OSError as error:
        raise UserError(f"No se puede leer «{run}»: {reason(error)}.") from error
    if name:
        raise UserError(
            f"El archivo {name} de «{run}» falta o no es el que se guardó al entrenar (otro tamaño u otro SHA-256): "
            "está dañado o alguien lo cambió. Recupere una copia de la carpeta o vuelva a entrenar."
        )


def is_finished(run: Path) -> bool:
    return (run / MANIFEST).exists()


def _results(run: Path) -> tuple[str, ...]:
    return (*RESULTS, CORRECTIONS) if (run / CORRECTIONS).exists() else RESULTS


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, CHECKSUM: _checksum(content)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that has its own checksum; raises `UserError` if it is missing or damaged."""
    content = read_json(path)
    if not isinstance(content, dict) or content.pop(CHECKSUM, None) != _checksum(content):
        raise UserError(
            f"El archivo «{path}» está dañado: no es el que se guardó. Recupere una copia de la carpeta, o entrene en "
            "otra (otro nombre en out)."
        )
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
