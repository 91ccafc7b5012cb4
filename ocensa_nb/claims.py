"""Whose a run folder is: a new one, or one of the same training that was cut off; and nobody else's meanwhile."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import UserError
from ocensa_nb.runs import CONFIG, FORMAT, HISTORY, LABELS, LAST, LOCK, METRICS, RUNS, Run, next_folder, read_json
from ocensa_nb.runs import make_folder as make


@contextlib.contextmanager
def claim(
    config: TrainConfig, facts: Mapping[str, Any], classes: Mapping[str, list[str]], root: Path = RUNS
) -> Iterator[Run]:
    """Hold, inside this context, the folder of a training: `config.out`, or a numbered one in `root`.

    With `config.resume` "auto", a folder of the very same training that was cut off is gone on with. The system lets
    the lock go with the process, however it ends. Raises `UserError` where another process holds the folder, where it
    holds anything else (a run is never written over), or where the disk refuses.
    """
    facts = {"format": FORMAT, "config": config.to_dict(), "fingerprint": config.fingerprint(), **facts}
    path, lock = _hold(Path(config.out)) if config.out else _hold_numbered(config, facts, root)
    try:
        yield _open(path, config, facts, {head: list(names) for head, names in classes.items()})
    finally:
        lock.release()


def _open(path: Path, config: TrainConfig, facts: dict[str, Any], classes: dict[str, list[str]]) -> Run:
    """Return the run of a folder that is held: written new, or as it was left."""
    if (path / CONFIG).exists():
        if config.resume == "never":
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar. Con resume = 'auto' continúa; para empezar otra, "
                "elija otro nombre en out."
            )
        kept = read_json(path / CONFIG)
        if different := _differences(config, facts, kept):
            raise UserError(
                f"La carpeta «{path}» tiene una corrida sin terminar que no es esta: {'; '.join(different)}. Para "
                "continuarla use lo de entonces; para empezar otra, elija otro nombre en out."
            )
        if moved := _moves(facts, kept):
            print(f"La corrida empezó con {moved}: continúa bien, pero no quedará igual bit a bit.", flush=True)
        if kept["device"] == facts["device"]:
            facts["precision"] = kept["precision"]  # `auto` measures, and might choose another now
        if not (path / LAST).exists():
            (path / HISTORY).unlink(missing_ok=True)  # nothing was kept, and it begins anew
    run = Run(path, facts, classes)
    if not run.is_finished():
        run.write_json(CONFIG, facts)
        run.write_json(LABELS, classes)
    return run


def _hold(path: Path) -> tuple[Path, BaseFileLock]:
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


def _hold_numbered(config: TrainConfig, facts: Mapping[str, Any], root: Path) -> tuple[Path, BaseFileLock]:
    """Hold the newest folder of this very training that was cut off, or else the next free number."""
    if config.resume == "auto":
        cut_off = [file.parent for file in root.glob(f"*/{CONFIG}") if _is_cut_off(file.parent)]
        for path in sorted(cut_off, key=lambda path: (path / CONFIG).stat().st_mtime, reverse=True):
            with contextlib.suppress(UserError):  # a damaged one is not this one
                if not _differences(config, facts, read_json(path / CONFIG)) and (lock := _lock(path)):
                    return path, lock
    return _hold(make(next_folder(root), new=True))


def _is_cut_off(path: Path) -> bool:
    return not (path / METRICS).exists() or (path / LAST).exists()


def _refuse_others(path: Path) -> None:
    """Raise `UserError` for a folder that holds anything but a run that was cut off."""
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".tmp-")} - {LOCK}
    if CONFIG in names and not _is_cut_off(path):
        raise UserError(f"La carpeta «{path}» ya contiene otra corrida, y no se sobrescribe nada. Elija otro out.")
    if names and CONFIG not in names:
        raise UserError(f"La carpeta «{path}» no está vacía, y no se sobrescribe nada. Elija otro nombre en out.")


def _lock(path: Path) -> BaseFileLock | None:
    """Return the lock of a folder, held, or None where another has it; a network disk may know no locks."""
    try:
        lock = FileLock(path / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except (NotImplementedError, OSError):
        return SoftFileLock(path / LOCK)  # not acquired: releasing it does nothing
    return lock


def _differences(config: TrainConfig, facts: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """Say in Spanish what makes this training another than the one kept; raises `UserError` where that is damaged."""
    try:
        found = config.differences(kept["config"])
        if kept["data"]["fingerprint"] != facts["data"]["fingerprint"]:
            found.append(
                f"los avisos no son los mismos ({kept['data']['path']} entonces, {facts['data']['path']} ahora)"
            )
        elif kept["inputs"] != facts["inputs"]:
            found.append(f"el codificador «{config.model}» o su tokenizador han cambiado")
        if kept["format"] != facts["format"]:
            found.append("la guardó otra versión de este programa")
        return found
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"La corrida sin terminar de la carpeta está dañada ({CONFIG}). Elija otro out.") from error


def _moves(facts: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """Say what of the machine has changed since, in the words of `config.json`, or nothing."""
    before = {"device": kept["device"], **kept["versions"]}
    now = {"device": facts["device"], **facts["versions"]}
    return ", ".join(
        f"{name} {before.get(name)} (ahora {value})" for name, value in now.items() if before.get(name) != value
    )
