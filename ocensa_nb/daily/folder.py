"""Score a folder of exports, a result for each: those that exist are skipped, and a file that fails fails alone."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocensa_nb.daily.score import score
from ocensa_nb.errors import IncompleteError, UserError, listed, num
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.experiments.dask import dask_pool, wait_while_wanted
from ocensa_nb.files.notice_file import EXCEL_SUFFIXES, table_suffix
from ocensa_nb.files.write import SUFFIXES
from ocensa_nb.paths import plain_path
from ocensa_nb.runs.run import Run

logger = logging.getLogger(__name__)

READ = (".csv", ".txt", *EXCEL_SUFFIXES)


def score_folder(
    predictor: Predictor, data: Path, out: str | Path, scheduler: str = "", **settings: Any
) -> dict[str, Any]:
    """Score each CSV and XLSX of a folder to a file of the same name in another one.

    Parameters
    ----------
    scheduler
        The address of a scheduler of dask: its workers score a file each, in folders that all see. "": here.
    settings
        Those of `score`.

    Raises
    ------
    IncompleteError
        If a file could not be scored, after the others have been.
    UserError
        If the folder has no such file, or the results cannot be written.
    """
    data, out = data.resolve(), plain_path(out).resolve()  # as the workers of dask see them
    files = {path: out / _result_name(path) for path in sorted(data.iterdir()) if _is_table(path)}
    if not files:
        raise UserError(f"En la carpeta «{data}» no hay archivos {', '.join(READ)}.")
    if out.exists() and not out.is_dir():
        raise UserError(f"«{out}» es un archivo, y data es una carpeta. Indique en out una carpeta.")
    if out == data:
        raise UserError("data y out son la misma carpeta. Indique otra en out.")
    out.mkdir(parents=True, exist_ok=True)
    left = {path: result for path, result in files.items() if not result.exists()}
    if skipped := [path.name for path in files if path not in left]:
        logger.info(f"Ya tienen su resultado en «{out}», y se saltan: {num(len(skipped))} ({listed(skipped)}).")
    done, failed = {}, {}
    for number, (path, outcome) in enumerate(_outcomes(predictor, left, scheduler, settings), 1):
        if isinstance(outcome, UserError):
            failed[path.name] = str(outcome)
            logger.warning(f"{path.name}: {outcome}")
        else:
            done[path.name] = outcome
            logger.info(f"{path.name}: listo ({num(number)} de {num(len(left))}).")
    result = {"out": str(out), "files": done, "skipped": skipped, "failed": failed}
    if failed:
        raise IncompleteError(f"Sin resultado: {num(len(failed))} de {num(len(files))} ({listed(failed)}).", result)
    return result


def _outcomes(
    predictor: Predictor, files: dict[Path, Path], scheduler: str, settings: dict[str, Any]
) -> Iterator[tuple[Path, dict[str, Any] | UserError]]:
    """Yield each file with its result, or why there is none."""
    if scheduler and files:
        yield from _on_dask(predictor.run, files, scheduler, settings)
        return
    for path, result in files.items():
        try:
            yield path, score(predictor, path, result, **settings)
        except UserError as error:
            yield path, error


def _on_dask(
    run: Run, files: dict[Path, Path], scheduler: str, settings: dict[str, Any]
) -> Iterator[tuple[Path, dict[str, Any] | UserError]]:
    pairs = (settings.get("columns") or {}).items()
    words = ["--with", settings["source"], "--target", str(settings["target"])]
    words += ["--columns", *(word for pair in pairs for word in pair)] if pairs else []
    parent = next(iter(files.values())).parent
    with dask_pool(parent, scheduler) as pool:
        pool.require_seen([str(run.path / "config.json"), *map(str, files)])
        futures = {}
        for path, result in files.items():
            paths = {"--run": run.path.resolve(), "--data": path, "--out": result}
            command = ["predict", *(word for name, value in paths.items() for word in (name, str(value))), *words]
            text = f"from {__name__} import run_task; run_task({command!r}, {pool.token!r})"
            futures[pool.submit(text, path.name)] = path
        for future in pool.as_completed(futures):
            error = future.exception() if future.status == "error" else None
            yield futures[future], UserError(str(error)) if error else {"out": str(files[futures[future]])}


def run_task(command: list[str], token: str) -> None:
    """On a worker, run a command of this package; raises `UserError` with its message if it fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ocensa_nb", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_while_wanted(lambda: process.poll() is not None, process.terminate, token)
    if process.returncode:
        raise UserError(process.stderr.read().strip())


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in READ and not path.name.startswith((".", "~$"))


def _result_name(path: Path) -> str:
    return path.name if path.suffix in SUFFIXES else path.name + table_suffix(path)
