"""The run folder: atomic writes, and reads that are verified."""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from ocensa_nb.config import PRECISIONS, TrainConfig
from ocensa_nb.errors import CONTROL, UserError, clipped
from ocensa_nb.files.atomic import is_temporary, remove, temporary_folder, write_json
from ocensa_nb.files.lock import LOCK
from ocensa_nb.files.verify import open_regular, read_json, read_regular
from ocensa_nb.paths import RUNS, free_path, plain_path, reason
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import CONFIG, HISTORY, LABELS, LAST, MANIFEST, METRICS

logger = logging.getLogger(__name__)

GIF = "training.gif"
FORMAT = 8  # of runs and checkpoints; another one is refused
LARGEST_HISTORY = 2**30  # bytes: some five million steps
# What the package reads of the JSON files of a run; see `fits`.
METADATA = {
    **{"config": dict, "fingerprint": str, "inputs": dict, "precision": str, "device": str, "versions": {str: str}},
    "hardware": {"gpu": str, "system": str, "cores": int},
    "data": {
        **{"path": str, "fingerprint": str, "columns": {str: str}, "filled": {str: float}, "values": {str: [str]}},
        **{"merged": {str: {str: str}}, "class_rows": {str: [int]}, "split": {str: int}, "fields": [str]},
    },
}
_VERDICT = {"status": str, "target": float, "threshold": float | None, "sentence": str, "advice": str}
METRICS_SHAPE = {
    **{"best_epoch": int, "epochs": int, "val": {str: float}, "test": {str: float}},
    **{"sources": {str: str}, "comparison": dict, "verdict": {str: _VERDICT}, "warnings": [str]},
    "suggestion": {str: dict},
    "near_duplicates": {"share": float, "f1": {str: {"with": float, "without": float}}},
    "pairs": [[int]],  # classes of the first two labels that a training row has
    "familiar": float,
}


@dataclass(frozen=True)
class Run:
    """A run folder.

    `metadata` is the content of config.json, and `classes` has the class names per head. `check_held` is called before
    each write; it raises `UserError` if another process has taken the folder over, or it was deleted.
    """

    path: Path
    metadata: dict[str, Any]
    classes: dict[str, list[str]]
    check_held: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Open and verify a finished run.

        Raises
        ------
        UserError
            If the run does not exist, is not finished, is of another version, or does not match its manifest.
        """
        path = plain_path(path)
        if not path.is_dir():
            known = [str(run) for run in finished(path.parent)]
            near = f" En {path.parent} hay: {', '.join(known[-5:])}." if known else ""
            raise UserError(f"No existe la carpeta de corrida «{path}».{near} Entrene primero (cuaderno 03_train).")
        if not manifest.is_finished(path):
            how = "Repita el mismo entrenamiento: continúa donde quedó" if (path / LAST).exists() else "Entrene otra"
            raise UserError(f"«{path}» no es una corrida terminada: le falta {MANIFEST}. {how}.")
        metadata = read_metadata(path)
        manifest.verify(path)
        classes = read_json(path / LABELS)
        if not _are_classes(classes, metadata["data"]):
            raise UserError(f"El archivo {LABELS} de «{path}» está dañado. Vuelva a entrenar.")
        run = cls(path, metadata, classes)
        if list(run.config.heads) != list(classes):
            raise UserError(f"Las etiquetas de {LABELS} no son las de {CONFIG} en «{path}». Vuelva a entrenar.")
        _ = run.metrics  # damaged ones are refused now, before notices are scored
        return run

    @functools.cached_property
    def config(self) -> TrainConfig:
        """The config that the run was trained with; raises `UserError` if the saved one is not valid."""
        values = dict(self.metadata["config"])
        try:
            return TrainConfig().replace(**values).validate()
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"La configuración guardada en «{self.path}» está dañada: {error}.") from error

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """Validation and test metrics of the restored best epoch; raises `UserError` if they are damaged."""
        metrics = read_json(self.path / METRICS)
        if not fits(metrics, METRICS_SHAPE) or not metrics["verdict"].keys() >= self.classes.keys():
            raise UserError(f"El archivo «{self.path / METRICS}» está dañado. Vuelva a entrenar.")
        return metrics

    @functools.cached_property
    def class_rows(self) -> dict[str, np.ndarray]:
        """The training rows of each class, int64 (classes,), per label."""
        return {head: np.array(rows) for head, rows in self.metadata["data"]["class_rows"].items()}

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of the history up to the first damaged one; the last may be damaged after a crash."""
        lines: list[dict[str, Any]] = []
        if not (self.path / HISTORY).exists():
            return lines
        with self._history_on_disk():
            content = read_regular(self.path / HISTORY, LARGEST_HISTORY).decode(errors="replace")
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not isinstance(line, dict):
                break
            lines.append(line)
        return lines

    def append_history(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to the history, all or none; raises `UserError` if the file cannot be written."""
        self.check_held()
        with self._history_on_disk(), open_regular(self.path / HISTORY, "ab") as file:
            whole = file.tell()
            try:
                file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
                file.flush()
            except OSError:
                file.truncate(whole)
                raise

    def settle_history(self) -> tuple[int, str]:
        """Fsync the history; return its length in bytes and its SHA-256. Raises `UserError` if that fails."""
        with self._history_on_disk(), open_regular(self.path / HISTORY, "ab+") as file:
            os.fsync(file.fileno())
            file.seek(0)
            content = file.read()
        return len(content), hashlib.sha256(content).hexdigest()

    def cut_history(self, length: int, sha256: str = "") -> None:
        """Truncate the history to a length in bytes and a complete line; only print a note if its SHA-256 differs."""
        self.check_held()
        if (self.path / HISTORY).exists():
            with self._history_on_disk(), open_regular(self.path / HISTORY, "rb+") as file:
                whole = file.read(length)
                file.truncate(whole.rfind(b"\n") + 1)
            if sha256 and len(whole) == length and hashlib.sha256(whole).hexdigest() != sha256:
                logger.info(
                    f"El historial «{self.path / HISTORY}» está dañado: sus curvas pueden tener errores. El "
                    "entrenamiento continúa, porque no depende de él."
                )

    @contextlib.contextmanager
    def _history_on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"No se puede leer o escribir «{self.path / HISTORY}»: {reason(error)}. Cuando se pueda, repita el "
                "mismo entrenamiento: continúa desde el último checkpoint."
            ) from error

    def is_finished(self) -> bool:
        return manifest.is_finished(self.path)

    def finish(self, metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Write config, metrics and manifest of a finished training, then remove its checkpoints."""
        self.metadata.update(metadata)
        self.write_config()
        self.write_json(METRICS, metrics)
        self.check_held()
        manifest.write(self.path)
        self.tidy()

    def tidy(self) -> None:
        for name in (LAST, LOCK):
            with contextlib.suppress(OSError):  # Windows cannot remove an open file
                remove(self.path / name)

    def write_config(self) -> None:
        self.write_json(CONFIG, manifest.sealed(self.metadata))

    def write_json(self, name: str, value: Any) -> None:
        self.check_held()
        write_json(self.path / name, value)


def free_folder(out: str | Path) -> Path:
    """Return a new or empty folder; without `out`, the next free one in `runs`. `UserError` if it has content."""
    if not str(out):
        return new_folder(RUNS)
    path = plain_path(out)
    if not path.is_dir():
        make_folder(free_path(path).parent)
    elif any(not is_temporary(entry.name) for entry in make_folder(path).iterdir()):
        what = "ya contiene otra corrida" if (path / CONFIG).exists() else "no está vacía"
        raise UserError(f"La carpeta «{path}» {what}, y no se sobrescribe nada. Elija otro nombre en out.")
    return path


def new_folder(root: Path) -> Path:
    """Create the next numbered folder of a root; raises `UserError` if it cannot be written."""
    make_folder(root)
    while True:
        path = next_folder(root)
        with contextlib.suppress(FileExistsError):  # another process created it first
            path.mkdir()
            return path


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; raises `UserError` if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path):
            pass  # raises if the folder is not writable
    except OSError as error:
        raise UserError(f"No se puede escribir en «{path}»: {reason(error)}. Elija en out otra carpeta.") from error
    return path


def next_folder(root: str | Path) -> Path:
    """Return the first of `root/run-001`, `run-002`, … that does not exist."""
    paths = (Path(root) / f"run-{number:03d}" for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def finished(root: str | Path = RUNS) -> list[Path]:
    manifests = Path(root).glob(f"*/{MANIFEST}")
    return [file.parent for file in sorted(manifests, key=lambda file: file.stat().st_mtime)]


def latest(root: str | Path = RUNS) -> Path:
    """Return the newest finished run; raises `UserError` if there is none."""
    runs = finished(root)
    if not runs:
        raise UserError(
            f"Todavía no hay ninguna corrida terminada en «{root}». Entrene primero con el cuaderno 03_train."
        )
    return runs[-1]


def read_config(path: Path) -> dict[str, Any]:
    """Return the metadata of a run; raises `UserError` if its config.json is missing, damaged or of another format."""
    metadata = read_json(path / CONFIG)
    written = metadata.get("format", FORMAT) if isinstance(metadata, dict) else FORMAT
    if written != FORMAT:
        raise UserError(
            f"«{path / CONFIG}» es de otra versión de este programa: la corrida tiene el formato {clipped(written)}, y "
            f"aquí se lee el {FORMAT}. Entrene otra vez, en otra carpeta (otro nombre en out)."
        )
    return manifest.read_sealed(path / CONFIG)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a run with all that the package reads of it; raises `UserError` as `read_config` does."""
    metadata = read_config(path)
    if not fits(metadata, METADATA) or metadata["precision"] not in PRECISIONS:
        raise UserError(f"El archivo «{path / CONFIG}» está dañado. Entrene en otra carpeta (otro nombre en out).")
    return metadata


def _are_classes(classes: Any, data: Mapping[str, Any]) -> bool:
    """Return whether labels.json has the class names of each head that was trained on some data."""
    if not fits(classes, {str: [str]}) or not {"descripcion", *classes} <= set(data["columns"]):
        return False
    return all(
        re.fullmatch(r"[a-z][a-z0-9_]*", head)  # the names of heads become file names
        and len(names) > 1
        and len(set(names)) == len(names) == len(data["class_rows"].get(head, []))
        and all(0 <= count < 2**31 for count in data["class_rows"][head])
        and not any(re.search(CONTROL, name) for name in names)
        for head, names in classes.items()
    )


def fits(value: Any, shape: Any) -> bool:
    """Return whether a JSON value has a shape.

    A shape is a type, a function that says whether a value has it, a list of a shape, shapes by key, or one for all
    text keys.
    """
    if isinstance(shape, FunctionType):
        return shape(value)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if not isinstance(shape, dict):
        return isinstance(value, shape)
    if not isinstance(value, dict):
        return False
    if str in shape:
        return all(fits(item, shape[str]) for item in value.values())
    return all(key in value and fits(value[key], inner) for key, inner in shape.items())
