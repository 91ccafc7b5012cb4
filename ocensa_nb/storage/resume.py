"""Whose a run folder is: a new one, or one of the same training that was cut off; and nobody else's meanwhile."""

import contextlib
import dataclasses
import errno
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ocensa_nb.config import PRECISIONS, TrainConfig
from ocensa_nb.errors import UserError
from ocensa_nb.files.heartbeat_lock import HeartbeatLock
from ocensa_nb.files.temporary import is_temporary
from ocensa_nb.paths import RUNS, reason
from ocensa_nb.storage.manifest import is_finished
from ocensa_nb.storage.run_folder import (
    CONFIG,
    FORMAT,
    HEARTBEAT,
    LABELS,
    LAST,
    LOCK,
    Run,
    finished,
    next_folder,
    read_config,
)
from ocensa_nb.storage.run_folder import make_folder as make

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
# A soft lock outlives its machine. filelock 3.32 made the fallback to one a parameter.
NO_FALLBACK = {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock).parameters else {}

Lock = BaseFileLock | HeartbeatLock


@contextlib.contextmanager
def acquire_run(
    config: TrainConfig, metadata: Mapping[str, Any], classes: Mapping[str, list[str]], root: Path = RUNS
) -> Iterator[Run]:
    """Hold, inside this context, the folder of a training: `config.out`, or a numbered one in `root`.

    With `config.resume` "auto", a folder of the very same training that was cut off is gone on with. The system lets
    the lock go with the process, however it ends. Raises `UserError` where another process holds the folder, where it
    holds anything else (a run is never written over), or where the disk refuses.
    """
    metadata = {"format": FORMAT, "config": config.to_dict(), "fingerprint": config.fingerprint(), **metadata}
    path, lock = _hold(Path(config.out)) if config.out else _hold_numbered(config, metadata, root)
    try:
        run = _open(path, config, metadata, {head: list(names) for head, names in classes.items()})
        yield dataclasses.replace(run, check_held=lambda: _check_held(path, lock))
    finally:
        lock.release()


def _check_held(path: Path, lock: Lock) -> None:
    """Raise `UserError` if another process has taken a run folder over, or it was deleted or moved."""
    if isinstance(lock, HeartbeatLock):
        lock.check()
    try:
        (path / CONFIG).stat()
    except FileNotFoundError as error:
        raise UserError(
            f"La carpeta de la corrida, «{path}», se borró o se movió mientras se entrenaba, y con ella el punto de "
            "control: no hay de dónde continuar. Si la movió, devuélvala a su lugar y ejecute lo mismo otra vez; si "
            "no, ejecute lo mismo y empieza de nuevo."
        ) from error
    except OSError:
        return  # a disk that fails for a moment proves nothing


def reject_finished(config: TrainConfig) -> None:
    """Raise `UserError`, before anything is read, where `config.out` holds what a training would not go on with."""
    if config.out and Path(config.out).is_dir():
        _refuse_others(Path(config.out))


def resolve_run_dir(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> Path:
    """Return where a training of the config would go: `config.out`, its newest cut-off run in `root`, or a new number.

    For whoever needs to know before the training does, which is told to go there.
    """
    if config.out:
        return Path(config.out)
    cut_off = _interrupted_runs(root) if config.resume == "auto" else []
    mine = (path for path in cut_off if _is_of(path, config, data_fingerprint))
    return next(mine, None) or next_folder(root)


def will_resume(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> bool:
    """Tell whether a training of the config would go on from where one was cut off."""
    path = resolve_run_dir(config, data_fingerprint, root)
    return config.resume == "auto" and _is_interrupted(path) and _is_of(path, config, data_fingerprint)


def find_finished(config: TrainConfig, data_fingerprint: str, root: Path = RUNS) -> Path | None:
    """Return the finished run of the config on these notices: `config.out`, or the newest in `root`; None for none."""
    places = [Path(config.out)] if config.out else list(reversed(finished(root)))
    mine = (path for path in places if not _is_interrupted(path) and _is_of(path, config, data_fingerprint))
    return next(mine, None)


def _is_of(path: Path, config: TrainConfig, data_fingerprint: str) -> bool:
    """Tell whether the run of a folder is of a config on these notices; one that is damaged is not."""
    with contextlib.suppress(UserError, LookupError, TypeError):
        kept = read_config(path)
        return (kept["fingerprint"], kept["data"]["fingerprint"]) == (config.fingerprint(), data_fingerprint)
    return False


def _open(path: Path, config: TrainConfig, metadata: dict[str, Any], classes: dict[str, list[str]]) -> Run:
    """Return the run of a folder that is held: written new, or as it was left."""
    if (path / CONFIG).exists():
        if config.resume == "never":
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar. Con resume = 'auto' continúa; para empezar otra, "
                "elija otro nombre en out."
            )
        kept = read_config(path)
        if different := _differences(config, metadata, kept):
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar que no es esta: {'; '.join(different)}. Para "
                "continuarla use lo de entonces; para empezar otra, elija otro nombre en out."
            )
        _keep_precision(metadata, kept)
        if moved := _moves(metadata, kept):
            print(f"La corrida empezó con {moved}: continúa bien, pero no quedará igual bit a bit.", flush=True)
    run = Run(path, metadata, classes)
    if not run.is_finished():
        run.write_config()
        run.write_json(LABELS, classes)
    return run


def _hold(path: Path) -> tuple[Path, Lock]:
    make(path)
    _refuse_others(path)
    lock = _lock(path)
    if lock is None:
        raise UserError(
            f"Otro proceso está entrenando en la carpeta «{path}». Espere a que termine, o elija otro nombre en out."
        )
    try:
        _refuse_others(path)  # the one who held it before may just have finished
    except UserError:
        lock.release()
        raise
    return path, lock


def _hold_numbered(config: TrainConfig, metadata: Mapping[str, Any], root: Path) -> tuple[Path, Lock]:
    """Hold the newest folder of this very training that was cut off, or else the next free number."""
    if config.resume == "auto":
        for path in _interrupted_runs(root):
            if _resumes(path, config, metadata) and (lock := _lock(path)):
                if _is_interrupted(path):  # and not finished by another process meanwhile
                    return path, lock
                lock.release()
    return _hold(make(next_folder(root), new=True))


def _resumes(path: Path, config: TrainConfig, metadata: Mapping[str, Any]) -> bool:
    """Return whether an interrupted run is of this very training; a damaged one is not."""
    with contextlib.suppress(UserError):
        return not _differences(config, metadata, read_config(path))
    return False


def _interrupted_runs(root: Path) -> list[Path]:
    """Return the runs of a folder that were cut off, newest first."""
    cut_off = [file.parent for file in root.glob(f"*/{CONFIG}") if _is_interrupted(file.parent)]
    return sorted(cut_off, key=_written, reverse=True)


def _written(path: Path) -> float:
    """Return when a run's config was last written, in seconds; 0 where that cannot be told."""
    try:
        return (path / CONFIG).stat().st_mtime
    except OSError:
        return 0.0


def _is_interrupted(path: Path) -> bool:
    return not is_finished(path) or (path / LAST).exists()


def _refuse_others(path: Path) -> None:
    """Raise `UserError` for a folder that holds anything but a run that was cut off."""
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
    """Return whether a training that has written nothing yet leaves such a file or folder; a lock of ours is empty."""
    if entry.name == LOCK:
        return entry.is_file() and not entry.is_symlink() and not entry.stat().st_size
    return is_temporary(entry.name) or re.fullmatch(rf"{re.escape(HEARTBEAT)}(-\w+)?", entry.name) is not None


def _lock(path: Path) -> Lock | None:
    """Return the held lock of a folder, or None if another process holds it.

    Raises
    ------
    UserError
        If the disk refuses, or has no file locks and a live process holds the folder.
    """
    lock = FileLock(path / LOCK, **NO_FALLBACK)
    heartbeat = HeartbeatLock(path / HEARTBEAT)
    try:
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # Windows denies a file that another has open
            if not isinstance(lock, SoftFileLock):
                return None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
        else:
            if not isinstance(lock, SoftFileLock):
                return lock
            lock.release()  # filelock 3.21 to 3.31 becomes a soft lock on such a disk, unasked
        heartbeat.acquire()
    except OSError as error:
        raise UserError(f"No se puede escribir en «{path}»: {reason(error)}. Elija otro nombre en out.") from error
    print(f"El disco de «{path}» no tiene bloqueos: la carpeta se reserva con un archivo que se renueva cada minuto.")
    return heartbeat


def _differences(config: TrainConfig, metadata: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """Say in Spanish what makes this training another than the one kept; raises `UserError` where that is damaged."""
    try:
        _machine(kept)  # raises, as what follows does, if a part is missing
        if kept["precision"] not in PRECISIONS:
            raise TypeError("precision")
        found = config.differences(kept["config"])
        if not found and kept["data"]["fingerprint"] != metadata["data"]["fingerprint"]:
            found.append(
                f"los avisos no son los mismos ({kept['data']['path']} entonces, {metadata['data']['path']} ahora)"
            )
        elif not found and kept["inputs"] != metadata["inputs"]:
            found.append(f"el codificador «{config.model}» o su tokenizador han cambiado")
        if kept["format"] != metadata["format"]:
            found.append("la guardó otra versión de este programa")
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"La corrida sin terminar de la carpeta está dañada ({CONFIG}). Elija otro nombre en out."
        ) from error


def _keep_precision(metadata: dict[str, Any], kept: Mapping[str, Any]) -> None:
    """Take the precision of then on the device of then: `auto` measures, and might choose another now."""
    if all(_machine(metadata)[name] == _machine(kept)[name] for name in ("dispositivo", "GPU")):
        metadata["precision"] = kept["precision"]


def _machine(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the last bits of a result hang on, by its Spanish name."""
    hardware = metadata["hardware"]
    return {
        "dispositivo": metadata["device"],
        "GPU": hardware["gpu"] or "ninguna",
        "sistema": hardware["system"],
        "núcleos": hardware["cores"],
        "precisión": metadata["precision"],
        **metadata["versions"],
    }


def _moves(metadata: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """Say in Spanish what has changed of the machine since, or nothing."""
    before, now = _machine(kept), _machine(metadata)
    return ", ".join(
        f"{name} {before.get(name)} (ahora {value})" for name, value in now.items() if before.get(name) != value
    )
