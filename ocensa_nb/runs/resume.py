"""Lock a run folder; start a new run or resume an interrupted one, in one process or several."""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import is_temporary
from ocensa_nb.files.lock import HEARTBEAT, LOCK, HeartbeatLock, Lock, lock_folder
from ocensa_nb.paths import RUNS, reason
from ocensa_nb.runs.manifest import is_finished
from ocensa_nb.runs.run import (
    CONFIG,
    FORMAT,
    LABELS,
    LAST,
    Run,
    finished,
    make_folder,
    new_folder,
    next_folder,
    read_metadata,
)
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.distributed import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FollowedRun(Run):
    """A run that another process writes, perhaps on a disk that is not visible here: every write does nothing."""

    finished: bool = False

    def is_finished(self) -> bool:
        return self.finished

    def tidy(self) -> None: ...
    def append_history(self, lines: Iterable[Mapping[str, Any]]) -> None: ...
    def cut_history(self, length: int, sha256: str = "") -> None: ...


@contextlib.contextmanager
def acquire_run(
    world: World, config: TrainConfig, metadata: Mapping[str, Any], classes: Mapping[str, list[str]], root: Path = RUNS
) -> Iterator[Run]:
    """Lock the folder of a run inside the block, in the first process; yield the run, new or to be resumed.

    The folder is `config.out`, or a numbered one in `root`. If `config.resume` is "auto", an interrupted run with the
    same fingerprint is resumed. The lock is released when the process ends, for any reason.

    Parameters
    ----------
    world
        The processes that train together; all but the first get a `FollowedRun` with the same path and metadata.
    metadata
        What config.json says of the data, the inputs and the device.
    classes
        Class names per head.

    Raises
    ------
    UserError
        In all processes, if the folder cannot be locked or written, or has another run.
    """
    with contextlib.ExitStack() as stack:
        runs: list[Run] = []

        def open_locked() -> tuple[Path, dict[str, Any], bool]:
            now = {
                "format": FORMAT,
                "config": config.to_dict(),
                "fingerprint": config.fingerprint(),
                **metadata,
                "versions": machine.versions(),
                "hardware": machine.hardware().to_dict(),
            }
            path, lock = _hold(Path(config.out)) if config.out else _hold_numbered(config, now, root)
            stack.callback(lock.release)
            run = _open(path, config, now, {head: list(names) for head, names in classes.items()})
            runs.append(dataclasses.replace(run, check_held=lambda: _check_held(path, lock)))
            return path, run.metadata, run.is_finished()

        path, shared, finished = world.on_first(open_locked)
        yield runs[0] if runs else FollowedRun(path, shared, dict(classes), finished=finished)


def _check_held(path: Path, lock: Lock) -> None:
    """Raise `UserError` if another process has taken a run folder over, or it was deleted or moved."""
    if isinstance(lock, HeartbeatLock):
        lock.check()
    try:
        (path / CONFIG).stat()
    except FileNotFoundError as error:
        raise UserError(
            f"La carpeta de la corrida, «{path}», se borró o se movió mientras se entrenaba, y con ella el "
            "checkpoint: no hay desde dónde continuar. Si la movió, devuélvala a su lugar y ejecute lo mismo otra vez; "
            "si no, al ejecutar lo mismo se empieza de nuevo."
        ) from error
    except OSError:
        return  # a temporary disk error does not prove that the folder is gone


def reject_finished(config: TrainConfig) -> None:
    """Raise `UserError` if `config.out` has other content than an interrupted run; called before data is read."""
    if config.out and Path(config.out).is_dir():
        _refuse_others(Path(config.out))


def resolve_run_dir(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> Path:
    """Return the folder that a training would use, for callers that need it before the training starts."""
    if config.out:
        return Path(config.out)
    interrupted = _interrupted_runs(root) if config.resume == "auto" else []
    same = (path for path in interrupted if _is_of(path, config, data_fingerprint))
    return next(same, None) or next_folder(root)


def will_resume(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> bool:
    path = resolve_run_dir(config, data_fingerprint, root)
    return config.resume == "auto" and _is_interrupted(path) and _is_of(path, config, data_fingerprint)


def find_finished(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> Path | None:
    """Return the finished run of a config and data: `config.out`, or the newest in `root`."""
    folders = [Path(config.out)] if config.out else list(reversed(finished(root)))
    same = (path for path in folders if not _is_interrupted(path) and _is_of(path, config, data_fingerprint))
    return next(same, None)


def _is_of(path: Path, config: TrainConfig, data_fingerprint: str) -> bool:
    with contextlib.suppress(UserError):
        saved = read_metadata(path)
        return (saved["fingerprint"], saved["data"]["fingerprint"]) == (config.fingerprint(), data_fingerprint)
    return False


def _open(path: Path, config: TrainConfig, metadata: dict[str, Any], classes: dict[str, list[str]]) -> Run:
    if (path / CONFIG).exists():
        if config.resume == "never":
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar. Con resume = 'auto' continúa; para empezar otra, "
                "elija otro nombre en out."
            )
        saved = read_metadata(path)
        if different := _differences(config, metadata, saved):
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar que no es esta: {'; '.join(different)}. Para "
                "continuarla use lo mismo que entonces; para empezar otra, elija otro nombre en out."
            )
        _keep_precision(metadata, saved)
        if moved := _moves(metadata, saved):
            logger.warning(
                f"La corrida empezó con {moved}: puede continuar, pero el resultado no será idéntico bit a bit."
            )
    run = Run(path, metadata, classes)
    if not run.is_finished():
        run.write_config()
        run.write_json(LABELS, classes)
    return run


def _hold(path: Path) -> tuple[Path, Lock]:
    make_folder(path)
    _refuse_others(path)
    lock = lock_folder(path)
    if lock is None:
        raise UserError(
            f"Otro proceso está entrenando en la carpeta «{path}». Espere a que termine, o elija otro nombre en out."
        )
    try:
        _refuse_others(path)  # the previous holder may have finished the run just now
    except UserError:
        lock.release()
        raise
    return path, lock


def _hold_numbered(config: TrainConfig, metadata: Mapping[str, Any], root: Path) -> tuple[Path, Lock]:
    for path in _interrupted_runs(root) if config.resume == "auto" else []:
        if _resumes(path, config, metadata) and (lock := lock_folder(path)):
            if _is_interrupted(path):  # another process may have finished it meanwhile
                return path, lock
            lock.release()
    return _hold(new_folder(root))


def _resumes(path: Path, config: TrainConfig, metadata: Mapping[str, Any]) -> bool:
    with contextlib.suppress(UserError):
        return not _differences(config, metadata, read_metadata(path))
    return False


def _interrupted_runs(root: Path) -> list[Path]:
    times = {}
    for file in root.glob(f"*/{CONFIG}"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            times[file.parent] = file.stat().st_mtime
    return sorted(filter(_is_interrupted, times), key=times.__getitem__, reverse=True)


def _is_interrupted(path: Path) -> bool:
    return not is_finished(path) or (path / LAST).exists()


def _refuse_others(path: Path) -> None:
    try:
        names = {entry.name for entry in path.iterdir() if not _is_left_by_acquire(entry)}
    except OSError as error:
        raise UserError(f"No se puede leer la carpeta «{path}»: {reason(error)}. Elija otro nombre en out.") from error
    if CONFIG in names and not _is_interrupted(path):
        raise UserError(
            f"La carpeta «{path}» ya contiene otra corrida, terminada, y no se sobrescribe nada. Para verla, "
            f"evaluate --run {path}; para entrenar otra, elija otro nombre en out."
        )
    if names and CONFIG not in names:
        raise UserError(f"La carpeta «{path}» no está vacía, y no se sobrescribe nada. Elija otro nombre en out.")


def _is_left_by_acquire(entry: Path) -> bool:
    """Return whether an entry is a lock or temporary folder that a training creates first; our lock files are empty."""
    if entry.name == LOCK:
        return entry.is_file() and not entry.is_symlink() and not entry.stat().st_size
    return is_temporary(entry.name) or re.fullmatch(rf"{re.escape(HEARTBEAT)}(-\w+)?", entry.name) is not None


def _differences(config: TrainConfig, metadata: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Return, in Spanish, how this training differs from the saved one."""
    if different := config.differences(saved["config"]):
        return different
    if saved["data"]["fingerprint"] != metadata["data"]["fingerprint"]:
        paths = f"{saved['data']['path']} entonces, {metadata['data']['path']} ahora"
        return [f"los avisos no son los mismos ({paths})"]
    if saved["inputs"] != metadata["inputs"]:
        return [f"el codificador «{config.model}» o su tokenizador han cambiado"]
    return []


def _keep_precision(metadata: dict[str, Any], saved: Mapping[str, Any]) -> None:
    """Reuse the saved precision if the device is the same: `auto` measures, and might choose another one now."""
    if all(_machine(metadata)[name] == _machine(saved)[name] for name in ("dispositivo", "GPU")):
        metadata["precision"] = saved["precision"]


def _machine(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that affect the last bits of a result, by their Spanish names."""
    hardware = metadata["hardware"]
    return {
        "dispositivo": metadata["device"],
        "GPU": hardware["gpu"] or "ninguna",
        "sistema": hardware["system"],
        "núcleos": hardware["cores"],
        "formato numérico": metadata["precision"],
        **metadata["versions"],
    }


def _moves(metadata: Mapping[str, Any], saved: Mapping[str, Any]) -> str:
    before, now = _machine(saved), _machine(metadata)
    return ", ".join(
        f"{name} {before.get(name)} (ahora {value})" for name, value in now.items() if before.get(name) != value
    )
