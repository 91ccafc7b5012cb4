"""Run the cases of a grid on a cluster of dask.distributed: one task per case, one case per worker at a time.

    dask scheduler                                         on one machine
    dask worker tcp://SCHEDULER:8786                       on each machine, with PYTHONPATH = this project
    python -m ocensa_nb experiments --grid GRID.yaml --out DIR --backend dask --scheduler tcp://SCHEDULER:8786

A task starts the same process as a local case. If a worker dies, dask runs its task on another one. On storage that all
workers see it resumes from the checkpoint; otherwise the files of the case are sent to the worker and come back at the
end, and a case whose worker died starts again.
"""

import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import UserError
from ocensa_nb.experiments.case import CaseState
from ocensa_nb.experiments.dask_worker import Task, pack, run_task, sees, unpack
from ocensa_nb.files.atomic import atomic_write

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
WORKER_SECONDS = 10  # how long to wait for the first worker
POLL_SECONDS = 0.5
WHERE_SECONDS = 2.0  # between two questions to the scheduler
RETRIES = 2  # of a task that raises; dask counts deaths of workers by itself (`allowed-failures`)
DATA = "data"  # in the experiment's folder: copies of files of the user that the workers do not see


@contextlib.contextmanager
def dask_pool(out: Path, scheduler: str) -> Iterator["DaskPool"]:
    """Connect to a scheduler inside the block; yield the pool of its workers."""
    if not scheduler:
        raise UserError(
            "Falta scheduler: con backend = dask, la dirección de su scheduler, p. ej. tcp://10.0.0.1:8786."
        )
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            "Falta dask.distributed. Instálelo aquí y en cada máquina del clúster: pip install distributed"
        ) from error
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # TimeoutError is an OSError
        raise UserError(
            f"El scheduler de dask, «{scheduler}», no responde. Revise la dirección (tcp://MÁQUINA:8786) y que esté en "
            "marcha: dask scheduler"
        ) from error
    pool = DaskPool(client, out)
    try:
        pool.wait_for_workers(scheduler)
        yield pool
    finally:
        pool.close()


class DaskPool:
    """The workers of a scheduler."""

    def __init__(self, client: "Client", out: Path) -> None:
        self._client, self._out = client, out
        self._token = f".ocensa-{uuid.uuid4().hex}"
        self._shared: bool | None = None
        self._processing: dict[str, Any] = {}
        self._asked_at = float("-inf")

    @property
    def shares_cache(self) -> bool:
        """False: a worker on another machine has its own cache of frozen features."""
        return False

    @property
    def slots(self) -> int:
        """How many workers there are now; one if none, so that a case waits for the next worker."""
        return max(1, len(self._workers()))

    def wait_for_workers(self, scheduler: str) -> None:
        """Wait for the first worker; raises `UserError` if there is none in time."""
        deadline = time.monotonic() + WORKER_SECONDS
        while not self._call(self._client.nthreads):
            if time.monotonic() > deadline:
                raise UserError(f"El scheduler «{scheduler}» no tiene workers. Inicie alguno: dask worker {scheduler}")
            time.sleep(POLL_SECONDS)

    def start(self, state: CaseState) -> "DaskJob":
        """Submit the task of a case to a worker without tasks, if there is one."""
        if self._shared is None:
            (self._out / self._token).touch()
            self._shared = self._all_see(str(self._out / self._token))
        task = self._task(state)
        self._asked_at = float("-inf")  # what was submitted just now counts
        idle = [address for address, keys in self._workers().items() if not keys] or None
        future = self._call(
            self._client.submit,
            run_task,
            task,
            key=f"{state.name}-{uuid.uuid4().hex[:8]}",
            pure=False,
            retries=RETRIES,
            workers=idle,
            allow_other_workers=True,  # if these die
        )
        return DaskJob(self, future, state)

    def place(self, key: str) -> str:
        """Return the address of the worker that runs a task; "" if unknown."""
        return next((address for address, keys in self._workers().items() if key in map(str, keys)), "")

    def is_lost(self, address: str) -> bool:
        """Return whether a worker is no longer there."""
        return address not in self._workers()

    def stop(self) -> None:
        """Request all tasks to stop with a checkpoint."""
        from distributed import Event

        self._call(Event(self._token, client=self._client).set)

    def close(self) -> None:
        """Disconnect; dask cancels the tasks that are still running, and they stop."""
        (self._out / self._token).unlink(missing_ok=True)
        self._client.close(timeout=CONNECT_SECONDS)

    def _workers(self) -> dict[str, Any]:
        """Return the keys of the tasks of each worker, by address; not older than `WHERE_SECONDS`."""
        if time.monotonic() > self._asked_at + WHERE_SECONDS:
            self._processing = self._call(self._client.processing)
            self._asked_at = time.monotonic()
        return self._processing

    def _task(self, state: CaseState) -> Task:
        """Return the task of a case, with the files that the workers do not see."""
        named = {**state.content["files"], "evaluation_data": state.content["evaluation"]["data"]}
        named.pop("model")
        hidden = {name: path for name, path in named.items() if path and not (self._shared and self._all_see(path))}
        inside = {
            name: f"{DATA}/{state.content['inputs'][name][:12]}-{Path(path).name}" for name, path in hidden.items()
        }
        if self._shared:
            for name, path in hidden.items():
                with atomic_write(self._out / inside[name]) as fresh:
                    shutil.copyfile(path, fresh)
            return Task(str(self._out), state.name, self._token, None, inside)
        extra = {inside[name]: Path(path) for name, path in hidden.items()}
        archive = pack(self._out, [state.folder, *([] if state.owns_run else [state.run])], extra)
        return Task(str(self._out), state.name, self._token, archive, inside)

    def _all_see(self, path: str) -> bool:
        """Return whether every worker sees a file of this machine."""
        size = Path(path).stat().st_size
        return all(self._call(self._client.run, sees, path, size).values())

    def _call(self, function: Any, *args: Any, **options: Any) -> Any:
        """Call the client; raises `UserError` if the scheduler or a worker does not answer or lacks this package."""
        try:
            return function(*args, **options)
        except ModuleNotFoundError as error:
            raise UserError(
                f"Un worker de dask no tiene el paquete {error.name}. Inícielo con los mismos paquetes instalados, y "
                "con PYTHONPATH = la carpeta de este proyecto."
            ) from error
        except Exception as error:  # distributed raises its own exceptions, and those of its transport
            raise UserError(
                f"El clúster de dask no responde ({type(error).__name__}). Cuando vuelva, ejecute lo mismo otra vez."
            ) from error


class DaskJob:
    """A task that was submitted."""

    def __init__(self, pool: DaskPool, future: "Future", state: CaseState) -> None:
        self._pool, self._future, self._state = pool, future, state
        self._problem, self._place, self._collected = "", "", False

    def is_done(self) -> bool:
        """Return whether the task has ended; its files are then in the case's folder."""
        if not self._future.done():
            self._note_place()
            return False
        if not self._collected:
            self._collected = True
            self._collect()
        return True

    def problem(self) -> str:
        """Return, in Spanish, why the task ended without a result."""
        return self._problem or "El clúster de dask perdió el caso."

    def stop(self) -> None:
        """Request a stop with a checkpoint."""
        self._pool.stop()

    def kill(self) -> None:
        """Cancel the task; its worker notices and stops the process."""
        with contextlib.suppress(Exception):  # the scheduler may be gone, and the case is lost anyway
            self._future.cancel()

    def _note_place(self) -> None:
        place = self._pool.place(str(self._future.key))
        if place and self._place and place != self._place and self._pool.is_lost(self._place):  # else only moved
            what = f"{self._state.title} · semilla {self._state.seed}"
            logger.warning(f"{what}: se perdió el worker {self._place}; sigue en {place}.")
        self._place = place or self._place

    def _collect(self) -> None:
        if self._future.status != "finished":
            error = self._future.exception() if self._future.status == "error" else None
            died = type(error).__name__ == "KilledWorker"
            self._problem = (
                "Los workers de dask que ejecutaban el caso murieron una y otra vez; suele ser falta de memoria."
                if died
                else f"La tarea de dask terminó mal ({self._future.status}): {type(error).__name__}: {error}"
            )
            return
        archive = self._future.result()
        if archive is not None:
            # The folder is replaced: a checkpoint of before must not stay beside a finished run.
            with atomic_write(self._state.folder) as fresh:
                fresh.mkdir()
                unpack(archive, fresh)
