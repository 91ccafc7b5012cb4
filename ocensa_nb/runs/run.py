"""The run folder: atomic writes, and reads that are verified."""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import CONTROL, UserError, clipped
from ocensa_nb.files.atomic import is_temporary, remove, temporary_folder, write_text
from ocensa_nb.files.verify import LARGEST_JSON, open_regular, read_regular
from ocensa_nb.paths import RUNS, free_path, plain_path, reason
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import CONFIG, ENCODER, HEADS, HISTORY, LABELS, LAST, LINEAR, MANIFEST, METRICS

logger = logging.getLogger(__name__)

GIF, LOCK = "training.gif", ".lock"
HEARTBEAT = f"{LOCK}-heartbeat"  # replaces the lock on a disk without file locks
FORMAT = 3  # of runs and checkpoints; another one is refused
CHECKSUM = "sha256"  # of the rest of config.json: an unfinished run has no manifest
LARGEST_HISTORY = 2**30  # bytes: some five million steps


def _always_held() -> None:
    """Do nothing: the default `check_held` of a run that is not locked."""


@dataclass(frozen=True)
class Run:
    """A run folder.

    Parameters
    ----------
    path
        The folder.
    metadata
        The content of config.json: config, fingerprints, versions, hardware, seconds.
    classes
        Class names per head.
    check_held
        Called before each write; raises `UserError` if another process has taken the folder over, or it was deleted.
        Checkpoints are covered too: the history is part of their state, and is written before them.
    """

    path: Path
    metadata: dict[str, Any]
    classes: dict[str, list[str]]
    check_held: Callable[[], None] = field(default=_always_held, repr=False, compare=False)

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Open and verify a finished run.

        Parameters
        ----------
        path
            The run folder.

        Raises
        ------
        UserError
            If the folder does not exist, the run is not finished, or a file does not match the manifest.
        """
        path = plain_path(path)
        if not path.is_dir():
            known = [str(run) for run in finished(path.parent)]
            near = f" En {path.parent} hay: {', '.join(known[-5:])}." if known else ""
            raise UserError(f"No existe la carpeta de corrida «{path}».{near} Entrene primero (cuaderno 03_train).")
        for name in (CONFIG, LABELS, METRICS, HEADS, ENCODER, LINEAR):
            if not (path / name).exists():
                how = (
                    "Repita el mismo entrenamiento: continúa donde quedó" if (path / LAST).exists() else "Entrene otra"
                )
                raise UserError(f"«{path}» no es una corrida terminada: le falta {name}. {how}.")
        _require_format(path, read_json(path / CONFIG))
        manifest.verify(path)
        metadata, classes = read_config(path), read_json(path / LABELS)
        if not (_are_classes(classes) and _are_metadata(metadata, classes) and _are_metrics(read_json(path / METRICS))):
            raise UserError(f"Alguno de {CONFIG}, {LABELS} y {METRICS} de «{path}» está dañado. Vuelva a entrenar.")
        run = cls(path, metadata, classes)
        if list(run.config.heads) != list(classes):
            raise UserError(f"Las etiquetas de {LABELS} no son las de {CONFIG} en «{path}». Vuelva a entrenar.")
        return run

    @property
    def config(self) -> TrainConfig:
        """The config that the run was trained with; raises `UserError` if the saved one is not valid."""
        values = dict(self.metadata["config"])
        try:
            values["text_fields"] = tuple(values["text_fields"])
            return TrainConfig().replace(**values).validate()
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"La configuración guardada en «{self.path}» está dañada: {error}.") from error

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints, until the training ends."""
        return self.path / LAST

    @property
    def metrics(self) -> dict[str, Any]:
        """Validation and test metrics of the restored best epoch."""
        return read_json(self.path / METRICS)

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

    def settle_history(self) -> int:
        """Fsync the history and return its length in bytes; raises `UserError` if that fails."""
        with self._history_on_disk(), open_regular(self.path / HISTORY, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def history_sha256(self, length: int) -> str:
        """Return the SHA-256 of the first `length` bytes of the history."""
        with self._history_on_disk(), open_regular(self.path / HISTORY, "rb") as file:
            return hashlib.sha256(file.read(length)).hexdigest()

    def cut_history(self, length: int, sha256: str = "") -> None:
        """Truncate the history to a length, and to its last complete line.

        If the SHA-256 does not match, the lines stay and a warning is printed: no weight or metric depends on them.

        Parameters
        ----------
        length
            The length in bytes; a shorter history is only truncated to its last complete line.
        sha256
            The expected SHA-256 of the first `length` bytes; "" to skip the check.
        """
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
        """Return whether the run is finished; see `manifest.is_finished`."""
        return manifest.is_finished(self.path)

    def finish(self, metadata: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Write config, metrics and manifest of a finished training, then remove its checkpoints.

        A run that is interrupted before its manifest resumes from its last checkpoint and writes these files again.

        Parameters
        ----------
        metadata
            Entries to add to config.json.
        metrics
            The content of metrics.json.
        """
        self.metadata.update(metadata)
        self.write_config()
        self.write_json(METRICS, metrics)
        self.check_held()
        manifest.write(self.path)
        self.tidy()

    def tidy(self) -> None:
        """Remove the checkpoints and the lock file, which a finished run does not need."""
        for name in (LAST, LOCK):
            with contextlib.suppress(OSError):  # Windows cannot remove an open file
                remove(self.path / name)

    def write_config(self) -> None:
        """Write the metadata and its checksum to config.json."""
        self.write_json(CONFIG, self.metadata | {CHECKSUM: manifest.checksum(self.metadata)})

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, atomically."""
        self.check_held()
        write_text(self.path / name, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def free_folder(out: str | Path) -> Path:
    """Return a folder path for results: a path that does not exist or an empty folder, for `atomic.create_new`.

    Temporary folders of a dead process do not count as content.

    Parameters
    ----------
    out
        The folder; if empty, the next free one of `runs/run-001`, `runs/run-002`, ...

    Raises
    ------
    UserError
        If the path is a file or a folder with content, or cannot be written.
    """
    if not str(out):
        return make_folder(next_folder(RUNS), new=True)
    path = plain_path(out)
    if not path.is_dir():
        make_folder(free_path(path).parent)
    elif any(not is_temporary(entry.name) for entry in make_folder(path).iterdir()):
        what = "ya contiene otra corrida" if (path / CONFIG).exists() else "no está vacía"
        raise UserError(f"La carpeta «{path}» {what}, y no se sobrescribe nada. Elija otro nombre en out.")
    return path


def make_folder(path: Path, new: bool = False) -> Path:
    """Create a folder and check that it is writable.

    Parameters
    ----------
    path
        The folder; its parents are created too.
    new
        Whether it must not exist. If it does, the next free number in the same parent is used.

    Returns
    -------
    Path
        The folder that was created.

    Raises
    ------
    UserError
        If the folder cannot be created or written.
    """
    try:
        while True:
            try:
                path.mkdir(parents=True, exist_ok=not new)
                break
            except FileExistsError:
                if not new:
                    raise
                path = next_folder(path.parent)  # another process created it first
        with temporary_folder(path):
            pass  # raises if the folder is not writable
    except OSError as error:
        raise UserError(f"No se puede escribir en «{path}»: {reason(error)}. Elija en out otra carpeta.") from error
    return path


def next_folder(root: str | Path) -> Path:
    """Return the first of `root/run-001`, `run-002`, … that does not exist."""
    number = 1
    while (Path(root) / f"run-{number:03d}").exists():
        number += 1
    return Path(root) / f"run-{number:03d}"


def finished(root: str | Path = RUNS) -> list[Path]:
    """Return the finished runs of a folder, oldest first."""
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


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises `UserError` if it is missing or damaged."""
    try:
        value = json.loads(read_regular(path, LARGEST_JSON))
        # A lone surrogate or a non-finite number could not be written again.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"El archivo «{path}» falta o está dañado. Vuelva a entrenar o recupere una copia.") from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the metadata of a run; raises `UserError` if its config.json is missing, damaged or of another format."""
    metadata = read_json(path / CONFIG)
    _require_format(path, metadata)
    if not isinstance(metadata, dict) or metadata.pop(CHECKSUM, None) != manifest.checksum(metadata):
        raise UserError(
            f"El archivo «{path / CONFIG}» está dañado: no es el que se guardó. Recupere una copia de la carpeta, o "
            "entrene en otra (otro nombre en out)."
        )
    return metadata


def _require_format(path: Path, metadata: Any) -> None:
    """Raise `UserError` if another version of this program wrote a config.json."""
    written = metadata.get("format", FORMAT) if isinstance(metadata, dict) else FORMAT
    if written != FORMAT:
        raise UserError(
            f"«{path / CONFIG}» es de otra versión de este programa: la corrida tiene el formato {clipped(written)}, y "
            f"aquí se lee el {FORMAT}. Entrene otra vez, en otra carpeta (otro nombre en out)."
        )


def _are_metadata(metadata: Any, classes: Mapping[str, Any]) -> bool:
    """Return whether the content of config.json has the entries that the package reads."""
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(k), dict) for k in ("config", "data")):
        return False
    data = metadata["data"]
    columns = data.get("columns")
    texts = [metadata.get("precision"), data.get("path"), data.get("fingerprint")]
    if not isinstance(columns, dict) or not {"descripcion", *classes} <= set(columns):
        return False
    merged, rows = data.get("merged"), data.get("class_rows")
    if not isinstance(merged, dict) or not all(isinstance(into, dict) for into in merged.values()):
        return False
    if not isinstance(rows, dict) or not all(_are_counts(rows.get(head), names) for head, names in classes.items()):
        return False
    texts += [name for into in merged.values() for name in into.values()]
    return all(isinstance(text, str) for text in (*texts, *columns.values()))


def _are_counts(rows: Any, names: list[str]) -> bool:
    whole = isinstance(rows, list) and all(isinstance(count, int) and 0 <= count < 2**31 for count in rows)
    return whole and len(rows) == len(names)


def _are_metrics(metrics: Any) -> bool:
    """Return whether the content of metrics.json has the entries that the package reads."""
    return (
        isinstance(metrics, dict)
        and all(isinstance(metrics.get(name), int) for name in ("best_epoch", "epochs"))
        and all(isinstance(metrics.get(side), dict) for side in ("val", "test"))
        and all(isinstance(value, float) for side in ("val", "test") for value in metrics[side].values())
    )


def _are_classes(classes: Any) -> bool:
    """Return whether the content of labels.json is valid; head names are restricted because they become file names."""
    return isinstance(classes, dict) and all(
        re.fullmatch(r"[a-z][a-z0-9_]*", head)
        and isinstance(names, list)
        and len(names) > 1
        and all(isinstance(name, str) and not re.search(CONTROL, name) for name in names)
        and len(set(names)) == len(names)
        for head, names in classes.items()
    )
