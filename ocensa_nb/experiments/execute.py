"""Execute notebooks; run a case, which is notebooks 03 and 04, in a separate process.

On a stop the kernel, a child of this process, gets SIGINT, as from the stop button of a notebook: the training saves
a checkpoint. If this process is killed, the kernel ends by itself within a second (ipykernel's `ParentPoller`).
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from ocensa_nb import errors
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.experiments.case import (
    EVALUATE,
    EVALUATION,
    FINISHED,
    INTERRUPTED,
    LOG,
    RUNNING,
    TRAIN,
    Case,
    end,
    failure,
    read_case,
    record,
)
from ocensa_nb.files.atomic import atomic_write, owner, remove, write_text
from ocensa_nb.files.lock import lock_folder
from ocensa_nb.files.verify import open_regular
from ocensa_nb.paths import NOTEBOOKS, ROOT, working_folder
from ocensa_nb.runs import manifest
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import logs
from ocensa_nb.runtime.commands import evaluation_parameters, training_parameters
from ocensa_nb.runtime.process import SIGNALS

TEMPLATE = "notebook.html.j2"  # of the HTML copies
START_SECONDS = 300  # papermill's 60 are too few for a kernel that starts beside others
# nbclient waits this long for the last output of a cell after its reply, and papermill then raises; its 4 seconds are
# too few on a busy machine.
OUTPUT_SECONDS = 120
STOP = signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
POLL_SECONDS = 0.25
INSIST_SECONDS = 10.0  # SIGTERM after SIGINT: ignored by a training that is saving, but it ends all other cells
PATIENCE_SECONDS = 90.0  # to finish a step and to save; then the kernel is killed
LOCK_SECONDS = 2 * PATIENCE_SECONDS  # for a process that is still stopping in the same folder


class NotebookError(UserError):
    """A cell raised, or the kernel died."""

    def __init__(self, message: str, notebook: str, cell: int | None, line: str, kind: str) -> None:
        super().__init__(message)
        self.notebook, self.cell, self.line, self.kind = notebook, cell, line, kind


def execute(
    notebook: Path, folder: Path, parameters: Mapping[str, Any], before_cell: Callable[..., None] | None = None
) -> Path:
    """Execute one notebook into `folder` and write an HTML copy beside it; its output is printed while it runs.

    Parameters that the notebook does not define are ignored. An exception from `before_cell` ends the execution. Raises
    `NotebookError` if a cell raises or the kernel dies, and `UserError` if the kernel does not start.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target = folder / notebook.name
    known = papermill.inspect_notebook(str(notebook))
    hooks = {"on_cell_start": before_cell} if before_cell else {}
    stopped: Exception | None = None
    with atomic_write(target) as temporary:  # papermill rewrites the notebook after each cell
        try:
            papermill.execute_notebook(
                str(notebook),
                str(temporary),
                {name: value for name, value in parameters.items() if name in known},
                kernel_name="python3",
                kernel_manager_class=_own_kernel(),
                cwd=str(working_folder()),
                progress_bar=False,
                stdout_file=sys.stdout,
                start_timeout=START_SECONDS,
                iopub_timeout=OUTPUT_SECONDS,
                extra_arguments=["--log-level=ERROR"],  # hide the kernel's own log
                **hooks,
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            stopped = error
        except RuntimeError as error:  # nbclient's only sign of a kernel that does not answer or dies at its start
            raise UserError(
                f"El núcleo de Python del cuaderno {notebook.stem} no arrancó ({error}). Suele ser falta de memoria: "
                "cierre otros programas."
            ) from error
    _write_html(target)
    if isinstance(stopped, PapermillExecutionError):
        raise _cell_error(stopped, target) from stopped
    if stopped is not None:
        raise _dead_kernel(stopped, target) from stopped
    return target


def _own_kernel() -> type:
    """Return a manager that starts a kernel with the interpreter of this process.

    A kernel spec that somebody has installed as `python3` may be broken, or of another interpreter. Without the folders
    of specs, jupyter_client takes that of ipykernel, which is `sys.executable`.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    return OwnKernel


def _cell_error(error: Any, target: Path) -> NotebookError:
    line = f"{error.ename}: {error.evalue}"
    what = error.evalue if hasattr(errors, error.ename) else line
    message = f"El cuaderno {target.stem} se detuvo. {what} (Ejecutado hasta ahí en «{target}».)"
    return NotebookError(message, target.stem, error.exec_count, line, error.ename)


def _dead_kernel(error: Exception, target: Path) -> NotebookError:
    """Return the error of a kernel that died; the cell that was running has no number yet."""
    import nbformat

    cells = [cell for cell in nbformat.read(target, as_version=4).cells if cell.cell_type == "code"]
    executed = sum(bool(cell.execution_count) for cell in cells)
    line = "El núcleo de Python murió; suele ser falta de memoria: cierre otros programas o use un batch menor."
    message = f"El cuaderno {target.stem} se detuvo. {line}"
    running = executed + 1 if executed < len(cells) else None
    return NotebookError(message, target.stem, running, line, type(error).__name__)


def _write_html(notebook: Path) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_file=TEMPLATE, extra_template_paths=[str(Path(__file__).parent)])
    body, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(notebook.with_suffix(".html"), body)


def run_case(folder: Path, stop: Callable[[], bool]) -> str:
    """Execute the notebooks of a case that are not executed yet; record in case.json how it ended, and return it.

    A training resumes from its checkpoint. If `stop` returns True, the case becomes `interrupted` instead of `failed`.
    """
    case = record(read_case(folder), status=RUNNING, process=owner(), started=time.time(), error=None)
    started, changes, notebook = time.perf_counter(), {"status": FINISHED}, TRAIN

    def before_cell(**_: Any) -> None:
        if stop():
            raise AskedToStopError("Detenido antes de la celda.", signal.SIGTERM)

    try:
        # With a finished run whose notebook was not written, it finds the run.
        if case.owns_run and not (manifest.is_finished(case.run) and (folder / f"{TRAIN}.html").is_file()):
            parameters = training_parameters(case.train_config(), case.content["settings"]["recipe"])
            execute(NOTEBOOKS / f"{TRAIN}.ipynb", folder, parameters, before_cell)
        notebook = EVALUATE
        if (folder / EVALUATION).exists():  # of an interrupted case; notebook 04 does not overwrite it
            remove(folder / EVALUATION)
        execute(NOTEBOOKS / f"{EVALUATE}.ipynb", folder, _evaluation(case), before_cell)
    except NotebookError as error:
        asked = stop() or error.kind == AskedToStopError.__name__
        changes = {"status": INTERRUPTED} if asked else failure(error.line, error.notebook, error.cell)
    except Exception as error:
        changes = {"status": INTERRUPTED} if stop() else failure(f"{type(error).__name__}: {error}", notebook)
    seconds = round(case.content.get("seconds", 0.0) + time.perf_counter() - started, 2)
    return end(case, **changes | {"process": None, "seconds": seconds}).status


def _evaluation(case: Case) -> dict[str, Any]:
    """Return the parameters of notebook 04; raises `UserError` if the run is not finished or is damaged."""
    data, trained_on = case.content["files"]["evaluation_data"], Run.load(case.run).config.data
    if not data and trained_on and not Path(trained_on).exists():
        # It was trained on another machine. The notebook knows the test rows of the run by their content.
        data = case.content["files"]["data"]
    return evaluation_parameters(str(case.run), str(case.folder / EVALUATION), data, case.predicts_with)


class CaseProcess:
    """The process of a case on this machine."""

    def __init__(self, folder: Path, threads: int | None = None, gpu: str = "") -> None:
        """Start it; its output goes to a log file in the folder.

        `threads` is None for the default of the machine; `gpu` is the only one it sees, "" for all.
        """
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        if threads is not None:
            environment |= dict.fromkeys(THREADS, str(threads))
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with open_regular(folder / LOG, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ocensa_nb.experiments.execute", str(folder), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # on Windows
                start_new_session=True,
            )

    def is_done(self) -> bool:
        return self._process.poll() is not None

    def problem(self) -> str:
        """Return, in Spanish, how it ended if it did not record it in its case.json."""
        return (
            f"El proceso terminó de forma inesperada (código {self._process.returncode}); suele ser falta de memoria: "
            "use menos jobs o un batch menor."
        )

    def stop(self) -> None:
        """Request a stop with a checkpoint."""
        if not self.is_done():
            self._process.send_signal(STOP)

    def kill(self) -> None:
        """Kill it and its kernel at once."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self._process.kill()
        self._process.wait()


class StopWatch:
    """Inside the process of a case, notice a stop, which is SIGTERM or the end of the parent; then stop the kernel."""

    def __init__(self, parent: int) -> None:
        self._asked = threading.Event()
        self._parent = parent
        for number in SIGNALS:
            signal.signal(number, lambda *_: self._asked.set())
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        return self._asked.is_set()

    def _watch(self) -> None:
        while not self._asked.wait(POLL_SECONDS):
            if self._is_orphan():
                self._asked.set()
        self._send(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
        for _ in range(round(PATIENCE_SECONDS / INSIST_SECONDS) - 1):
            time.sleep(INSIST_SECONDS)
            self._send(signal.SIGTERM)
        time.sleep(INSIST_SECONDS)
        while True:
            self._send(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _is_orphan(self) -> bool:
        return not psutil.pid_exists(self._parent) if sys.platform == "win32" else os.getppid() != self._parent

    def _send(self, number: int) -> None:
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                kernel.send_signal(number)


def main(folder: Path, parent: int) -> int:
    """Run the case of a folder, once a process that is still stopping in it has ended; return the exit code."""
    logs.configure()
    stop = StopWatch(parent)
    deadline = time.monotonic() + LOCK_SECONDS
    while (lock := lock_folder(folder)) is None:
        if stop() or time.monotonic() > deadline:
            raise UserError(f"Otro proceso está ejecutando el caso de «{folder}».")
        time.sleep(POLL_SECONDS)
    try:
        return 0 if run_case(folder, stop) == FINISHED else 1
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
