"""Run the cases of a grid on a cluster of dask.distributed: one task per case, one case per worker at a time.

All machines must see the experiment folder and the files of the grid by the same paths. If a worker dies, dask runs
its task on another one, where it resumes from the checkpoint.
"""

import contextlib
import logging
import os
import pkgutil
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import UserError, clipped, listed
from ocensa_nb.experiments.case import Case, end, failure, read_case, record
from ocensa_nb.experiments.execute import CaseProcess

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

LACKING = (
    "A workers de dask{workers} les falta el paquete ocensa_nb, o uno que necesita. Instálelo en sus máquinas "
    "(pip install CARPETA_DEL_PROYECTO), o inícielos con PYTHONPATH = esa carpeta."
)
CONNECT_SECONDS = 10
WORKER_SECONDS = 10  # how long to wait for the first worker
POLL_SECONDS = 0.5
WHERE_SECONDS = 2.0  # between two questions to the scheduler
RETRIES = 2  # of a task that raises; dask counts deaths of workers by itself (`allowed-failures`)
_one_case = threading.Lock()  # a worker with several threads would run several tasks


@contextlib.contextmanager
def dask_pool(out: Path, scheduler: str) -> Iterator["DaskPool"]:
    """Connect to a scheduler inside the block; yield the pool of its workers."""
    host, port = _parsed(scheduler)
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            "Falta dask.distributed. Instálelo aquí y en cada máquina del clúster: pip install distributed"
        ) from error
    try:
        # A client that does not connect prints errors of its threads; so none is created if nobody listens.
        socket.create_connection((host, port), CONNECT_SECONDS).close()
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
        raise UserError(
            f"El scheduler de dask, «{scheduler}», no responde. Inícielo (dask scheduler) o revise la dirección."
        ) from error
    pool = DaskPool(client, out)
    try:
        pool.wait_for_workers(scheduler)
        yield pool
    finally:
        pool.close()


def _parsed(scheduler: str) -> tuple[str, int]:
    """Return the host and the port of an address; raises `UserError` if it is not one."""
    parts = re.fullmatch(r"(?:(?:tcp|tls|wss?)://)?([\w.-]+|\[[\da-fA-F:.]+\]):(\d{1,5})/?", scheduler)
    if parts is None or not 0 < int(parts[2]) < 2**16:
        raise UserError(
            f"scheduler = «{clipped(scheduler)}»: con backend = dask debe ser la dirección de su scheduler, con su "
            "máquina y su puerto, p. ej. tcp://10.0.0.1:8786."
        )
    return parts[1].strip("[]"), int(parts[2])


class DaskPool:
    """The workers of a scheduler."""

    shares_cache = False  # a worker on another machine has its own cache of frozen features

    def __init__(self, client: "Client", out: Path) -> None:
        self._client, self._out = client, out
        self.token = f".ocensa-{uuid.uuid4().hex}"  # of the event that stops all tasks, and of the marker file
        self._processing: dict[str, Any] = {}
        self._asked_at = float("-inf")

    @property
    def slots(self) -> int:
        """How many workers there are now; one if none, so that a case waits for the next worker."""
        return max(1, len(self.workers()))

    def wait_for_workers(self, scheduler: str) -> None:
        deadline = time.monotonic() + WORKER_SECONDS
        while not self._call(self._client.nthreads):
            if time.monotonic() > deadline:
                raise UserError(f"El scheduler «{scheduler}» no tiene workers. Inicie alguno: dask worker {scheduler}")
            time.sleep(POLL_SECONDS)

    def require_seen(self, files: Iterable[str]) -> None:
        """Raise `UserError` if a worker lacks this package, or does not see the folder of the results or the files."""
        found = self._ask(pkgutil.resolve_name, f"{__name__}:RETRIES")
        if lacking := [worker for worker, value in found.items() if value != RETRIES]:
            raise UserError(LACKING.format(workers=f" ({listed(lacking)})"))
        marker = self._out / self.token
        marker.touch()
        try:
            for path in {str(marker), *files} - {""}:
                sizes = self._ask(os.path.getsize, path)
                if blind := [worker for worker, size in sizes.items() if size != os.path.getsize(path)]:
                    raise UserError(
                        f"Estos workers de dask no ven la carpeta «{Path(path).parent}»: {listed(blind)}. Ponga out y "
                        "los avisos en un disco que todas las máquinas vean con la misma ruta."
                    )
        finally:
            marker.unlink(missing_ok=True)

    def share(self, case: Case) -> dict[str, int]:
        return {"jobs": self.slots}

    def start(self, case: Case) -> "DaskJob":
        """Submit the task of a case to a worker without tasks, if there is one."""
        self._asked_at = float("-inf")  # what was submitted just now counts
        text = f"from {__name__} import run_task; run_task({str(case.folder)!r}, {self.token!r})"
        workers = [address for address, keys in self.workers().items() if not keys] or None
        return DaskJob(self, self.submit(text, case.name, RETRIES, workers), case)

    def submit(self, text: str, name: str, retries: int = 0, workers: Sequence[str] | None = None) -> "Future":
        """Submit a task: Python to execute, of which the scheduler, which may lack this package, imports nothing."""
        return self._call(
            self._client.submit,
            exec,
            text,
            {},
            key=f"{name}-{uuid.uuid4().hex[:8]}",
            pure=False,
            retries=retries,
            workers=workers,
            allow_other_workers=bool(workers),  # if these die
        )

    def as_completed(self, futures: Iterable["Future"]) -> Iterator["Future"]:
        from distributed import as_completed

        return as_completed(list(futures), loop=self._client.loop)

    def workers(self) -> dict[str, Any]:
        """Return the keys of the tasks of each worker, by address; not older than `WHERE_SECONDS`."""
        if time.monotonic() > self._asked_at + WHERE_SECONDS:
            self._processing = self._call(self._client.processing)
            self._asked_at = time.monotonic()
        return self._processing

    def stop(self) -> None:
        from distributed import Event

        self._call(Event(self.token, client=self._client).set)

    def close(self) -> None:
        """Disconnect; dask cancels the tasks that are still running, and they stop."""
        self._client.close(timeout=CONNECT_SECONDS)

    def _ask(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Return what a function of the standard library, or its exception, is on each worker."""
        return self._call(self._client.run, function, *args, on_error="return")

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call the client; raises `UserError` if the scheduler or a worker does not answer."""
        try:
            return function(*args, **options)
        except Exception as error:  # distributed raises its own exceptions, and those of its transport
            raise UserError(
                f"El clúster de dask no responde ({type(error).__name__}). Cuando vuelva, ejecute lo mismo otra vez."
            ) from error


class DaskJob:
    """A task that was submitted."""

    def __init__(self, pool: DaskPool, future: "Future", case: Case) -> None:
        self._pool, self._future, self._case = pool, future, case
        self._worker = ""

    def is_done(self) -> bool:
        """Return whether the task has ended; log where it resumes if its worker was lost."""
        if self._future.done():
            return True
        workers = self._pool.workers()
        worker = next((address for address, keys in workers.items() if str(self._future.key) in map(str, keys)), "")
        if worker and self._worker and worker != self._worker and self._worker not in workers:  # else only moved
            what = f"{self._case.title} · semilla {self._case.seed}"
            logger.warning(f"{what}: se perdió el worker {self._worker}; sigue en {worker}.")
        self._worker = worker or self._worker
        return False

    def problem(self) -> str:
        error = self._future.exception() if self._future.status == "error" else None
        if type(error).__name__ == "KilledWorker":
            return "Los workers de dask que ejecutaban el caso murieron una y otra vez; suele ser falta de memoria."
        if isinstance(error, ModuleNotFoundError):  # of a worker that came later
            return LACKING.format(workers="")
        return f"La tarea de dask terminó mal ({self._future.status}): {type(error).__name__}: {error}"

    def stop(self) -> None:
        self._pool.stop()

    def kill(self) -> None:
        """Cancel the task; its worker notices and stops the process."""
        with contextlib.suppress(Exception):  # the scheduler may be gone, and the case is lost anyway
            self._future.cancel()


def run_task(folder: str, token: str) -> None:
    """On a worker, run the process of a case; stop it on request, or if dask no longer wants the task."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    with _one_case:
        case = record(read_case(Path(folder)), threads=threads)
        process = CaseProcess(case.folder, threads)
        wait_while_wanted(process.is_done, process.stop, token)
        end(case, **failure(process.problem()))


def wait_while_wanted(is_done: Callable[[], bool], stop: Callable[[], Any], token: str) -> None:
    """On a worker, wait for a process; stop it on request, or if dask no longer wants the task."""
    from distributed import Event, get_worker

    worker, event = get_worker(), Event(token)
    key = worker.get_current_task()
    while not is_done():
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled" or event.is_set():
            stop()
        time.sleep(POLL_SECONDS)
