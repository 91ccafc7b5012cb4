"""Execute one notebook with papermill; keep what was executed, and say which cell stopped it."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ocensa_nb import errors
from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import atomic_write, write_text
from ocensa_nb.paths import working_folder

START_SECONDS = 300  # papermill's 60 are too few for a kernel that starts beside others
# nbclient waits this long for the last output of a cell after its reply, and papermill then raises; its 4 seconds are
# too few on a busy machine.
OUTPUT_SECONDS = 120


class NotebookError(UserError):
    """A cell raised, or the kernel died."""

    def __init__(self, message: str, notebook: str, cell: int | None, line: str, kind: str) -> None:
        super().__init__(message)
        self.notebook, self.cell, self.line, self.kind = notebook, cell, line, kind


def execute(
    notebook: Path, folder: Path, parameters: Mapping[str, Any], before_cell: Callable[..., None] | None = None
) -> Path:
    """Execute one notebook into `folder` and write an HTML copy beside it.

    The output of the cells is printed while they run.

    Parameters
    ----------
    notebook
        Path of the notebook.
    folder
        An existing folder for the executed notebook and its HTML copy.
    parameters
        Values for the notebook's parameters; names that it does not define are ignored.
    before_cell
        Called before each cell; an exception that it raises ends the execution.

    Returns
    -------
    Path
        The executed notebook.

    Raises
    ------
    NotebookError
        If a cell raises, with the notebook's error message, or if the kernel dies.
    UserError
        If the kernel is missing or does not start.
    """
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target = folder / notebook.name
    known = papermill.inspect_notebook(str(notebook))
    hooks = {"on_cell_start": before_cell} if before_cell else {}
    stopped: Exception | None = None
    with atomic_write(target) as fresh:  # papermill rewrites the notebook after each cell
        try:
            papermill.execute_notebook(
                str(notebook),
                str(fresh),
                {name: value for name, value in parameters.items() if name in known},
                kernel_name="python3",
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
        except NoSuchKernel as error:
            raise UserError(f"No hay un núcleo de Python para los cuadernos ({error}). Instale ipykernel.") from error
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


def _cell_error(error: Any, target: Path) -> NotebookError:
    """Return the error of a cell that raised a `PapermillExecutionError`."""
    line = f"{error.ename}: {error.evalue}"
    what = error.evalue if hasattr(errors, error.ename) else line
    message = f"El cuaderno {target.stem} se detuvo. {what} (Ejecutado hasta ahí en «{target}».)"
    return NotebookError(message, target.stem, error.exec_count, line, error.ename)


def _dead_kernel(error: Exception, target: Path) -> NotebookError:
    line = "El núcleo de Python murió; suele ser falta de memoria: cierre otros programas o use un batch menor."
    message = f"El cuaderno {target.stem} se detuvo. {line}"
    return NotebookError(message, target.stem, _running_cell(target), line, type(error).__name__)


def _running_cell(target: Path) -> int | None:
    """Return the number of the cell that was running when the kernel died; such a cell has no number yet."""
    import nbformat

    cells = [cell for cell in nbformat.read(target, as_version=4).cells if cell.cell_type == "code"]
    numbers = [cell.execution_count for cell in cells if cell.execution_count]
    return len(numbers) + 1 if len(numbers) < len(cells) else None


def _write_html(notebook: Path) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(notebook.with_suffix(".html"), body)
