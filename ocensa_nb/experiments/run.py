"""Run the cases of a grid in several processes, resume what was interrupted, and report."""

import contextlib
import json
import logging
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ocensa_nb.config import RECIPES
from ocensa_nb.errors import AskedToStopError, UserError, duration
from ocensa_nb.experiments.case import (
    CASES,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    STATES,
    Case,
    described,
    end,
    failure,
    read_checked,
    record,
    reread,
)
from ocensa_nb.experiments.execute import PATIENCE_SECONDS, CaseProcess
from ocensa_nb.experiments.grid import expand, read_grid
from ocensa_nb.experiments.prepare import prepare
from ocensa_nb.experiments.results import GRID, Results, counts, results_of, summary
from ocensa_nb.files.atomic import is_temporary, owner, write_text
from ocensa_nb.files.lock import LOCK, lock_folder
from ocensa_nb.paths import plain_path, reason
from ocensa_nb.runs import manifest
from ocensa_nb.runs.run import LAST, make_folder
from ocensa_nb.runtime.machine import chosen_recipe, cores, physical_cores, visible_gpus
from ocensa_nb.runtime.process import StopRequest, defer_signals

if TYPE_CHECKING:
    from ocensa_nb.experiments.dask import DaskJob, DaskPool

    Job = CaseProcess | DaskJob
    Pool = LocalPool | DaskPool  # noqa: F821

logger = logging.getLogger(__name__)

NOTICES = ("data", "corrections", "evaluation_data")  # the files of a case that a worker reads
MOST_JOBS = 256
UNFINISHED = (FAILED, INTERRUPTED)  # interrupted by something else: a stop of the grid raises
POLL_SECONDS = 0.2
STOP_SECONDS = PATIENCE_SECONDS + 30  # a case kills its own kernel before
RECIPE = "recipe.json"


def run_grid(
    grid: str | Path | Mapping[str, Any], out: str | Path, jobs: int = 0, backend: str = "local", scheduler: str = ""
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
        Cases at the same time on this machine, which divide its cores and GPUs; 0 for one per GPU, or one.
    backend, scheduler
        `local`; or `dask` for one case per worker of the cluster at an address such as `tcp://10.0.0.1:8786`.

    Returns
    -------
    dict
        `out`, `cases` (number per status), `failed` (name, title, seed and error of each failed or interrupted case),
        `dropped` (names of the cases that are not in the grid), `seconds`, `saved_seconds`, `results` and `report`.

    Raises
    ------
    UserError
        If the grid or an argument is not valid, before anything runs; if another process runs the same folder.
    AskedToStopError
        If it was asked to stop; the running cases have saved a checkpoint.
    """
    started = time.perf_counter()
    if not isinstance(jobs, int) or isinstance(jobs, bool) or not 0 <= jobs <= MOST_JOBS:
        raise UserError(f"jobs = {jobs!r}: debe ser un número entero, de 0 (uno por GPU) a {MOST_JOBS}.")
    content, text = (grid, "") if isinstance(grid, Mapping) else read_grid(grid)
    folder = check_folder(out)
    auto = auto_recipe(folder)
    specs = expand(content, auto)
    if isinstance(grid, Mapping):
        plain = json.loads(json.dumps(grid, default=str))  # NumPy's numbers are not YAML's
        text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)
    with _pool(folder, jobs, backend, scheduler) as pool, opened(folder, text, auto):
        cases, dropped = prepare(folder, specs)
        to_run = [case for case in cases if case.status == PENDING]
        pool.require_seen(case.content["files"][name] for case in to_run for name in NOTICES)
        kept = len(specs) - len(to_run)
        logger.info(f"{len(specs)} casos en «{folder}»: {len(to_run)} por ejecutar, {kept} de antes.")
        if dropped:
            names = ", ".join(case.name for case in dropped)
            logger.warning(
                f"Ya no están en la cuadrícula, y no cuentan en los resultados (sus carpetas siguen ahí): {names}."
            )
        runner = GridRunner(folder, pool, cases, {spec.name: spec.features for spec in specs})
        try:
            runner.run()
        finally:
            results = results_of(folder, [*map(reread, runner.cases.values()), *dropped])
            written = _write_report(results)
    logger.info(f"{summary(results)} Tardó {duration(time.perf_counter() - started)}.")
    failed = [case for case in results.cases if case.status in UNFINISHED]
    return {
        "out": str(folder),
        "cases": {status: sum(case.status == status for case in results.cases) for status in (FINISHED, *UNFINISHED)},
        "failed": [{"name": c.name, "title": c.title, "seed": c.seed, "error": c.content.get("error")} for c in failed],
        "dropped": [case.name for case in dropped],
        "seconds": time.perf_counter() - started,
        "saved_seconds": results.saved_seconds,
        **written,
    }


def failures(result: Mapping[str, Any]) -> str:
    """Return the summary, in Spanish, of the failed cases in the result of `run_grid`; "" if there are none."""
    if not (failed := result["failed"]):
        return ""
    said = [described(case["error"]).rstrip(".") or STATES[INTERRUPTED] for case in failed]
    lines = [f"  {case['title']} · semilla {case['seed']}: {error}" for case, error in zip(failed, said, strict=True)]
    what = "Falló 1 caso; para repetirlo" if len(failed) == 1 else f"Fallaron {len(failed)} casos; para repetirlos"
    return "\n".join([f"{what}, ejecute lo mismo otra vez:", *lines])


def _pool(folder: Path, jobs: int, backend: str, scheduler: str) -> contextlib.AbstractContextManager["Pool"]:
    if backend == "dask":
        from ocensa_nb.experiments.dask import dask_pool

        return dask_pool(folder, scheduler)
    if backend != "local":
        raise UserError(f"backend = {backend!r}: debe ser local o dask.")
    if scheduler:
        raise UserError(f"scheduler = {scheduler}: solo se usa con backend = dask.")
    return contextlib.nullcontext(LocalPool(jobs))


def _write_report(results: Results) -> dict[str, str]:
    from ocensa_nb.experiments.report import write_report, write_results

    written = {}
    for name, write in (("results", write_results), ("report", write_report)):
        try:
            written[name] = str(write(results))
        except UserError as error:  # the cases themselves are done; and a stop has its own message
            logger.warning(f"{error}")
        else:
            logger.info(f"Escrito: {written[name]}")
    return written


def check_folder(out: str | Path) -> Path:
    """Return the path of an experiment folder, new or existing; raises `UserError` if it has other content."""
    path = plain_path(out)
    if not str(out):
        raise UserError("Falta out: la carpeta de los experimentos.")
    if path.exists() and not path.is_dir():
        raise UserError(f"«{path}» es un archivo, y no se sobrescribe nada. Elija otro nombre en out.")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    foreign = [name for name in names if not is_temporary(name) and not name.startswith(LOCK)]
    if foreign and not (path / GRID).exists():
        raise UserError(
            f"La carpeta «{path}» no está vacía ni es de experimentos, y no se sobrescribe. Elija otro nombre en out."
        )
    return path.absolute()


def auto_recipe(out: Path) -> str:
    """Return what `recipe: auto` stands for in a folder: as when it was created, on whatever machine that was."""
    if not (out / RECIPE).exists():
        return chosen_recipe("auto")
    # a list is in no tuple of names
    return read_checked(out / RECIPE, {"auto": lambda name: name in tuple(RECIPES)})["auto"]


@contextlib.contextmanager
def opened(out: Path, grid: str, auto: str) -> Iterator[None]:
    """Create and lock an experiment folder inside the block; write the grid and its recipe."""
    make_folder(out)
    lock = lock_folder(out)
    if lock is None:
        raise UserError(
            f"Otro proceso está ejecutando los casos de «{out}». Espere a que termine, o elija otro nombre en out."
        )
    try:
        write_text(out / GRID, grid)
        write_text(out / RECIPE, json.dumps({"auto": auto}) + "\n")
        make_folder(out / CASES)
        yield
    finally:
        lock.release()


class LocalPool:
    """Processes of this machine, which share its cores, its GPUs and its cache of frozen features."""

    shares_cache = True

    def __init__(self, jobs: int) -> None:
        self._gpus = visible_gpus() or [""]
        self.slots = jobs or len(self._gpus)
        self._threads = max(1, cores() // self.slots) if self.slots > 1 else None
        self._started: list[tuple[str, CaseProcess]] = []

    def require_seen(self, files: Iterable[str]) -> None:
        """Do nothing: this machine has read the files."""

    def share(self, case: Case) -> dict[str, int]:
        """Return what a case that starts to train now gets of the machine."""
        trains = case.owns_run and not manifest.is_finished(case.run)
        return {"jobs": self.slots, "threads": self._threads or physical_cores()} if trains else {}

    def start(self, case: Case) -> CaseProcess:
        running = [gpu for gpu, process in self._started if not process.is_done()]
        gpu = min(self._gpus, key=running.count)
        self._started.append((gpu, CaseProcess(case.folder, self._threads, gpu)))
        return self._started[-1][1]


class GridRunner:
    """Start cases as slots become free, follow them, and stop them on request."""

    def __init__(self, out: Path, pool: "Pool", cases: Sequence[Case], features: Mapping[str, str]) -> None:
        # `features` has, per case, the key of the frozen features that it shares with others; "" for none.
        self._out, self._pool, self._features = out, pool, features
        self.cases = {case.name: case for case in cases}  # as they are now
        self._running: dict[str, Job] = {}

    def run(self) -> None:
        """Run the pending cases, in order, until all have ended; raises `AskedToStopError` if it was asked to stop."""
        waiting = [case.name for case in self.cases.values() if case.status == PENDING]
        try:
            with defer_signals(announce=False) as asked:
                while waiting or self._running:
                    self._collect()
                    while (name := self._next(waiting)) is not None:
                        waiting.remove(name)
                        self._start(name)
                    if asked.signal:
                        self._stop(asked)
                    time.sleep(POLL_SECONDS)
        finally:  # after an error, such as a second Ctrl+C
            for job in self._running.values():
                if not job.is_done():
                    job.kill()

    def _next(self, waiting: list[str]) -> str | None:
        """Return the first case that need not wait for its trainer, or for features that another case computes."""
        if not waiting or len(self._running) >= self._pool.slots:
            return None
        building = {self._features[name] for name in self._running if not self._has_features(name)} - {""}
        names = set(waiting)
        for name in waiting:
            case = self.cases[name]
            if case.status == FAILED or manifest.is_finished(case.run):
                return name
            if case.owns_run:
                if not (self._pool.shares_cache and self._features[name] in building):
                    return name
            elif case.content["trainer"] not in names | self._running.keys():
                return name  # the training failed: then this one fails with a message
        return None

    def _has_features(self, name: str) -> bool:
        """Return whether a running case has stored its frozen features: the first checkpoint comes after them."""
        run = self.cases[name].run
        return (run / LAST).exists() or manifest.is_finished(run)

    def _start(self, name: str) -> None:
        case = reread(self.cases[name])
        if case.status == PENDING:
            share = self._pool.share(case)
            case = record(case, status=RUNNING, process=owner(), started=None, error=None, **share)
        if case.status == RUNNING:
            try:
                self._running[name] = self._pool.start(case)
            except OSError as error:
                case = record(case, **failure(f"No se puede iniciar el caso en «{case.folder}»: {reason(error)}."))
        self.cases[name] = case
        self._announce(name)

    def _collect(self) -> None:
        for name, job in list(self._running.items()):
            if job.is_done():
                self._end(name, failure(job.problem()))

    def _end(self, name: str, changes: Mapping[str, Any]) -> None:
        """Announce that a case has ended; `changes` are those of one that could not say how."""
        del self._running[name]
        self.cases[name] = end(self.cases[name], **changes)
        self._announce(name)

    def _stop(self, asked: StopRequest) -> None:
        logger.info("Se detiene: cada caso en marcha termina su paso y guarda el avance…")
        for job in self._running.values():
            job.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while any(not job.is_done() for job in self._running.values()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for name, job in list(self._running.items()):
            if not job.is_done():
                job.kill()
            self._end(name, {"status": INTERRUPTED, "process": None})
        raise AskedToStopError(
            f"Detenido. Lo terminado y el avance quedaron en «{self._out}». Para continuar, ejecute lo mismo otra vez.",
            asked.signal,
        )

    def _announce(self, name: str) -> None:
        self.cases = {other: reread(case) for other, case in self.cases.items()}
        logger.info(progress(self.cases[name], list(self.cases.values()), self._pool.slots))


def progress(case: Case, cases: Sequence[Case], slots: int) -> str:
    done = sum(other.status in (FINISHED, FAILED, INTERRUPTED) for other in cases)
    what = STATES[case.status]
    if case.status in (FINISHED, INTERRUPTED):
        what += f" en {duration(case.took or 0.0)}"
    elif case.status == FAILED:
        what += f": {case.error.rstrip('.')}"
    left = seconds_left(cases, slots)
    end = f"; faltan unos {duration(left)}" if left and left >= 1 else ""
    return f"[{done}/{len(cases)}] {case.title} · semilla {case.seed}: {what}. {counts(cases)}{end}."


def seconds_left(cases: Sequence[Case], slots: int) -> float | None:
    """Return the estimated seconds until all cases have ended; None until one has finished."""
    took = {True: [], False: []}  # with a training, and without
    for case in cases:
        if case.status == FINISHED and case.took:
            took[case.owns_run].append(case.took)
    if not any(took.values()):
        return None
    left = [case for case in cases if case.status in (PENDING, RUNNING)]
    expected = [statistics.fmean(took[case.owns_run] or [*took[True], *took[False]]) for case in left]
    total = sum(max(0.0, mean - (case.took or 0.0)) for case, mean in zip(left, expected, strict=True))
    return total / max(1, min(slots, len(left)))
