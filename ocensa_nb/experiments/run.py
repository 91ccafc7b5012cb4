"""Run the cases of a grid in several processes, resume what was interrupted, and report."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import experiment_folder
from ocensa_nb.experiments.case import CaseState, read_cases
from ocensa_nb.experiments.case_files import FAILED, FINISHED, INTERRUPTED
from ocensa_nb.experiments.grid import Grid
from ocensa_nb.experiments.grid_file import read_grid_file
from ocensa_nb.experiments.progress import counts, describe_error, saved_seconds
from ocensa_nb.experiments.scheduling import LocalPool, OnChange, Pool, Runner
from ocensa_nb.paths import plain_path
from ocensa_nb.runtime.timing import duration

logger = logging.getLogger(__name__)

MOST_JOBS = 256
UNFINISHED = (FAILED, INTERRUPTED)  # interrupted by something else: a stop of the grid raises


def run_grid(
    grid: str | Path | Mapping[str, Any],
    out: str | Path,
    jobs: int = 1,
    backend: str = "local",
    scheduler: str = "",
    on_change: OnChange | None = None,
) -> dict[str, Any]:
    """Run the cases of a grid, each as notebooks 03 and 04 in a separate folder, and write the report.

    The same call again keeps the finished cases, resumes interrupted ones from their checkpoints and repeats failed
    ones. A case that fails does not stop the others.

    Parameters
    ----------
    grid
        Path of a GRID.yaml, or its content.
    out
        A new folder, or one of an earlier call.
    jobs
        Cases at the same time on this machine, which divide its cores.
    backend
        `local`, or `dask` for a cluster of dask.distributed, with one case per worker.
    scheduler
        Address of the scheduler of dask, such as `tcp://10.0.0.1:8786`.
    on_change
        Called with the states of all cases at each change.

    Returns
    -------
    dict
        `out`, `cases` (number per status), `failed` (name, title, seed and error of each; also of a case that something
        else interrupted), `dropped` (names of the cases in the folder that are not in the grid), `seconds`,
        `saved_seconds`, `results` and `report`.

    Raises
    ------
    UserError
        If the grid or an argument is not valid, before anything runs; if another process runs the same folder.
    AskedToStopError
        If it was asked to stop; the running cases have saved a checkpoint.
    """
    started = time.perf_counter()
    if not isinstance(jobs, int) or isinstance(jobs, bool) or not 1 <= jobs <= MOST_JOBS:
        raise UserError(f"jobs = {jobs!r}: debe ser un número entero, de 1 a {MOST_JOBS}.")
    given = grid if isinstance(grid, Mapping) else read_grid_file(grid)
    parsed = Grid.parse(given)
    folder = experiment_folder.check_folder(out)
    auto = experiment_folder.auto_recipe(folder)
    cases = parsed.expand(auto)
    if isinstance(grid, Mapping):
        plain = json.loads(json.dumps(grid, default=str))  # NumPy's numbers are not YAML's
        text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)
    else:
        text = plain_path(grid).read_text(encoding="utf-8-sig")
    with _pool(folder, jobs, backend, scheduler) as pool, experiment_folder.opened(folder, text, auto):
        to_run, dropped = experiment_folder.prepare(folder, cases)
        _announce(folder, len(cases), to_run, dropped)
        try:
            Runner(folder, [case.name for case in cases], pool, on_change).run(to_run, _features(cases))
        finally:
            written = _write_report(folder)
    states = read_cases(folder)
    saved = saved_seconds(states)
    if saved >= 1:
        logger.info(f"Compartir las capas congeladas entre casos ahorró {duration(saved)}.")
    logger.info(f"{counts(states)}, en {duration(time.perf_counter() - started)}.")
    failed = [case for case in states if case.status in UNFINISHED]
    return {
        "out": str(folder),
        "cases": {status: sum(case.status == status for case in states) for status in (FINISHED, *UNFINISHED)},
        "failed": [{"name": c.name, "title": c.title, "seed": c.seed, "error": c.error} for c in failed],
        "dropped": [case.name for case in dropped],
        "seconds": time.perf_counter() - started,
        "saved_seconds": saved,
        **written,
    }


def failures(result: Mapping[str, Any]) -> str:
    """Return the summary, in Spanish, of the failed cases in the result of `run_grid`; "" if there are none."""
    failed = [case for case in read_cases(result["out"]) if case.status in UNFINISHED]
    if not failed:
        return ""
    lines = [f"  {case.title} · semilla {case.seed}: {describe_error(case)}" for case in failed]
    what = "Falló 1 caso; para repetirlo" if len(failed) == 1 else f"Fallaron {len(failed)} casos; para repetirlos"
    return "\n".join([f"{what}, ejecute lo mismo otra vez:", *lines])


def _features(cases: list[Any]) -> dict[str, str]:
    return {case.name: case.features for case in cases}


def _pool(folder: Path, jobs: int, backend: str, scheduler: str) -> contextlib.AbstractContextManager[Pool]:
    """Return the pool of a backend; raises `UserError` if it is not available."""
    if backend == "dask":
        from ocensa_nb.experiments.dask import dask_pool

        return dask_pool(folder, scheduler)
    if backend != "local":
        raise UserError(f"backend = {backend!r}: debe ser local o dask.")
    if scheduler:
        raise UserError(f"scheduler = {scheduler}: solo se usa con backend = dask.")
    return contextlib.nullcontext(LocalPool(jobs))


def _announce(folder: Path, count: int, to_run: list[CaseState], dropped: list[CaseState]) -> None:
    logger.info(f"{count} casos en «{folder}»: {len(to_run)} por ejecutar, {count - len(to_run)} de antes.")
    if dropped:
        names = ", ".join(case.name for case in dropped)
        logger.warning(
            f"Ya no están en la cuadrícula, y no cuentan en los resultados (sus carpetas siguen ahí): {names}."
        )


def _write_report(folder: Path) -> dict[str, str]:
    """Write results.csv and report.html of what there is; return their paths."""
    from ocensa_nb.experiments.report import write_report
    from ocensa_nb.experiments.results import write_results

    written = {}
    for name, write in (("results", write_results), ("report", write_report)):
        try:
            written[name] = str(write(folder))
        except UserError as error:  # the cases themselves are done; and a stop has its own message
            logger.warning(f"{error}")
        else:
            logger.info(f"Escrito: {written[name]}")
    return written
