"""What a worker of dask.distributed does: run the process of a case, and stop it if the task is no longer wanted."""

import io
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ocensa_nb.experiments import case, case_process
from ocensa_nb.experiments.case_files import CASES, FAILED, RUNNING
from ocensa_nb.runs.run import LOCK

POLL_SECONDS = 0.5
_one_case = threading.Lock()  # a worker with several threads would run several tasks


@dataclass(frozen=True)
class Task:
    """What a worker needs to run a case."""

    out: str
    name: str
    token: str
    archive: bytes | None
    files: dict[str, str]


def run_task(task: Task) -> bytes | None:
    """Run a case on a worker; return its files if the worker does not see the experiment's folder."""
    with _one_case:
        if task.archive is None:
            out = Path(task.out)
            (out / task.token).stat()
            _run_in(out, task)
            return None
        with tempfile.TemporaryDirectory(prefix="ocensa-dask-") as place:
            out = Path(place)
            unpack(task.archive, out)
            _run_in(out, task)
            return pack(out / CASES / task.name, [out / CASES / task.name], {})


def _run_in(out: Path, task: Task) -> None:
    """Run the process of a case in an experiment's folder; stop it on request or if dask no longer wants the task."""
    from distributed import Event, get_worker

    folder = out / CASES / task.name
    state = case.read_case(folder)
    inside = {name: str(out / path) for name, path in task.files.items()}
    evaluation = dict(state.content["evaluation"])
    evaluation["data"] = inside.pop("evaluation_data", evaluation["data"])
    case.update(folder, files={**state.content["files"], **inside}, evaluation=evaluation)
    worker = get_worker()
    key, event = worker.get_current_task(), Event(task.token)
    case.update(folder, threads=worker.state.nthreads)
    process = case_process.start(folder, worker.state.nthreads)
    asked = False
    while process.poll() is None:
        known = worker.state.tasks.get(key)
        if not asked and (known is None or known.state == "cancelled" or event.is_set()):
            process.send_signal(case_process.STOP)
            asked = True
        time.sleep(POLL_SECONDS)
    if case.read_case(folder).content["status"] == RUNNING:
        error = {"notebook": "", "cell": None, "line": case_process.describe_exit(process)}
        case.update(folder, status=FAILED, process=None, error=error)
    if task.archive is not None:  # back to the paths of the user
        case.update(folder, files=state.content["files"], evaluation=state.content["evaluation"])


def sees(path: str, size: int) -> bool:
    """Return whether this machine has a file of this size at a path."""
    file = Path(path)
    return file.is_file() and file.stat().st_size == size


def pack(root: Path, folders: list[Path], extra: dict[str, Path]) -> bytes:
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


def unpack(content: bytes, folder: Path) -> None:
    """Extract a ZIP of `pack` into a folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)  # refuses paths outside the folder
