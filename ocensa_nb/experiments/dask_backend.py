"""Run the cases of a grid on a cluster of dask.distributed: one task per case, one case per worker at a time.

    dask scheduler                                         on one machine
    dask worker tcp://SCHEDULER:8786                       on each machine, with PYTHONPATH = this project
    python -m ocensa_nb experiments --grid GRID.yaml --out DIR --backend dask --scheduler tcp://SCHEDULER:8786

A task starts the same process as a local case. If a worker dies, dask runs its task on another one. On storage that all
workers see it resumes from the checkpoint; otherwise the files of the case are sent to the worker and come back at the
end, and a case whose worker died starts again.
"""

import contextlib
import io
import logging
import shutil
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import case, case_process
from ocensa_nb.experiments.case import CASES, CaseState
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.storage.run_folder import LOCK

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10
WORKER_SECONDS = 10  # how long to wait for the first worker
POLL_SECONDS = 0.5
WHERE_SECONDS = 2.0  # between two questions to the scheduler
RETRIES = 2  # of a task that raises; dask counts deaths of workers by itself (`allowed-failures`)
DATA = "data"  # in the experiment's folder: copies of files of the user that the workers do not see
_one_case = threading.Lock()  # a worker with several threads would run several tasks


@dataclass(frozen=True)
class Task:
    """What a worker needs to run a case.

    Attributes
    ----------
    out
        The experiment's folder, for workers that see it.
    name
        The name of the case.
    token
        The name of a file in `out`, and of the event that requests a stop.
    archive
        The files of the case, for workers that do not see `out`; else None.
    files
        For each field whose file is in the archive, its path there.
    """

    out: str
    name: str
    token: str
    archive: bytes | None
    files: dict[str, str]


@contextlib.contextmanager
def dask_pool(out: Path, scheduler: str) -> Iterator["DaskPool"]:
    """Connect to a scheduler inside the block; yield the pool of its workers.

    Parameters
    ----------
    out
        The experiment's folder.
    scheduler
        Address of the scheduler, such as `tcp://10.0.0.1:8786`.

    Raises
    ------
    UserError
        If dask.distributed is not installed, the scheduler does not answer, or it has no workers.
    """
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
    """The workers of a scheduler.

    Parameters
    ----------
    client
        A connected client.
    out
        The experiment's folder.
    """

    def __init__(self, client: "Client", out: Path) -> None:
        self._client, self._out = client, out
        self._token = f".ocensa-{uuid.uuid4().hex}"
        self._shared: bool | None = None
        self._places: dict[str, str] = {}
        self._asked_at = 0.0

    @property
    def slots(self) -> int:
        """How many workers there are now; one if none, so that a case waits for the next worker."""
        return max(1, len(self._call(self._client.nthreads)))

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
        processing = self._call(self._client.processing)
        idle = [address for address, keys in processing.items() if not keys] or None
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
        if time.monotonic() > self._asked_at + WHERE_SECONDS:
            self._asked_at = time.monotonic()
            processing = self._call(self._client.processing)
            self._places = {str(key): address for address, keys in processing.items() for key in keys}
        return self._places.get(key, "")

    def stop(self) -> None:
        """Request all tasks to stop with a checkpoint."""
        from distributed import Event

        self._call(Event(self._token, client=self._client).set)

    def close(self) -> None:
        """Disconnect; tasks that are still running are told so by dask, and stop."""
        (self._out / self._token).unlink(missing_ok=True)
        self._client.close(timeout=CONNECT_SECONDS)

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
        archive = _pack(self._out, [state.folder, *([] if state.owns_run else [state.run])], extra)
        return Task(str(self._out), state.name, self._token, archive, inside)

    def _all_see(self, path: str) -> bool:
        """Return whether every worker sees a file of this machine."""
        size = Path(path).stat().st_size
        return all(self._call(self._client.run, _sees, path, size).values())

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
        if place and self._place and place != self._place:
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
            with atomic_write(
                self._state.folder
            ) as fresh:  # a checkpoint of before must not stay beside a finished run
                fresh.mkdir()
                _unpack(archive, fresh)


def run_task(task: Task) -> bytes | None:
    """Run a case on a worker; return its files if the worker does not see the experiment's folder.

    Raises
    ------
    FileNotFoundError
        If the folder was visible to the other workers, but is not to this one; dask then tries another worker.
    """
    with _one_case:
        if task.archive is None:
            out = Path(task.out)
            (out / task.token).stat()
            _run_in(out, task)
            return None
        with tempfile.TemporaryDirectory(prefix="ocensa-dask-") as place:
            out = Path(place)
            _unpack(task.archive, out)
            _run_in(out, task)
            return _pack(out / CASES / task.name, [out / CASES / task.name], {})


def _run_in(out: Path, task: Task) -> None:
    """Run the process of a case in an experiment's folder; stop it on request or if dask no longer wants the task."""
    from distributed import Event, get_worker

    folder = out / CASES / task.name
    state = case.read_case(folder)
    inside = {name: str(out / path) for name, path in task.files.items()}
    evaluation = dict(state.content["evaluation"])
    evaluation["data"] = inside.pop("evaluation_data", evaluation["data"])
    if task.archive is not None and not state.owns_run:
        # The run has the path of its notices on the worker that trained it. Notebook 04 knows its test rows by content.
        evaluation["data"] = evaluation["data"] or inside.get("data", "")
    case.update(folder, files={**state.content["files"], **inside}, evaluation=evaluation)
    worker = get_worker()
    key, event = worker.get_current_task(), Event(task.token)
    process = case_process.start(folder, worker.state.nthreads)
    asked = False
    while process.poll() is None:
        known = worker.state.tasks.get(key)
        if not asked and (known is None or known.state == "cancelled" or event.is_set()):
            process.send_signal(case_process.STOP)
            asked = True
        time.sleep(POLL_SECONDS)
    if case.read_case(folder).content["status"] == case.RUNNING:
        error = {"notebook": "", "cell": None, "line": case_process.describe_exit(process)}
        case.update(folder, status=case.FAILED, process=None, error=error)
    if task.archive is not None:  # back to the paths of the user
        case.update(folder, files=state.content["files"], evaluation=state.content["evaluation"])


def _sees(path: str, size: int) -> bool:
    file = Path(path)
    return file.is_file() and file.stat().st_size == size


def _pack(root: Path, folders: list[Path], extra: dict[str, Path]) -> bytes:
    """Return a ZIP of folders, with paths relative to `root`, and of other files by their path in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # weights do not compress
        for folder in folders:
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.name.startswith(LOCK):
                    archive.write(file, file.relative_to(root))
        for name, file in extra.items():
            archive.write(file, name)
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)  # refuses paths outside the folder
