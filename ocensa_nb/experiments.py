"""Papermill: the numbered notebooks, executed without a screen and gathered."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ocensa_nb import errors
from ocensa_nb.durable import write_text
from ocensa_nb.environment import ROOT
from ocensa_nb.errors import UserError
from ocensa_nb.runs import Run, new_folder

NOTEBOOKS = ROOT / "notebooks"
# What a machine without a GPU is recommended, the same on every machine; three epochs more, to come near the ceiling.
DEFAULTS = {"recipe": "cpu", "epochs": 9}
SUITE = ("01_setup_gpu_check", "02_token_length_analysis", "03_train", "04_evaluate")


def suite(out: str | Path, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Execute notebooks 01 to 04 into `out`, a progress line each, with an HTML copy of each.

    `parameters` go to every notebook that has a parameter of that name (model, data, epochs, …). Returns the
    seconds of each notebook and the metrics of the run. Raises `UserError` where `out` is not empty or a notebook
    stops.
    """
    folder = new_folder(out).resolve()
    run = folder / "run"
    own = {"03_train": {"out": str(run)}, "04_evaluate": {"run": str(run), "out": str(folder / "evaluation")}}
    seconds: dict[str, float] = {}
    for number, name in enumerate(SUITE, 1):
        print(f"[{number}/{len(SUITE)}] {name} …", flush=True)
        started = time.perf_counter()
        execute(NOTEBOOKS / f"{name}.ipynb", folder, {**DEFAULTS, **(parameters or {}), **own.get(name, {})})
        seconds[name] = time.perf_counter() - started
        print(f"[{number}/{len(SUITE)}] {name}: listo en {seconds[name]:.0f} s", flush=True)
    finished = Run.load(run)
    return {"out": str(folder), "run": str(run), "seconds": seconds, "best_epoch": finished.metrics["best_epoch"]} | {
        side: finished.metrics[side] for side in ("val", "test")
    }


def execute(notebook: Path, folder: Path, parameters: Mapping[str, Any]) -> Path:
    """Execute one notebook into `folder`, from the project's root, and write an HTML copy beside it.

    Parameters the notebook does not have are left out. What it prints is shown as it goes. Raises `UserError` with
    the notebook's own sentence where it stops.
    """
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target = folder / notebook.name
    known = papermill.inspect_notebook(str(notebook))
    stopped = None
    try:
        papermill.execute_notebook(
            str(notebook),
            str(target),
            {name: value for name, value in parameters.items() if name in known},
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
            stdout_file=sys.stdout,
            extra_arguments=["--log-level=ERROR"],  # the kernel's own notices are not the reader's
        )
    except PapermillExecutionError as error:
        stopped = error
    except (DeadKernelError, NoSuchKernel) as error:
        raise UserError(
            f"El cuaderno {notebook.stem} se quedó sin núcleo de Python ({error}). Suele ser falta de memoria: cierre "
            "otros programas o use un batch menor."
        ) from error
    _write_html(target)
    if stopped is not None:
        what = stopped.evalue if hasattr(errors, stopped.ename) else f"{stopped.ename}: {stopped.evalue}"
        raise UserError(
            f"El cuaderno {notebook.stem} se detuvo. {what} (Ejecutado hasta ahí en «{target}».)"
        ) from stopped
    return target


def results_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return the metrics of a suite's run as a table: a row a label, validation and test F1."""
    heads = [key.removesuffix("_f1") for key in results["test"] if key.endswith("_f1")]
    columns = {
        "F1 validación": [results["val"][f"{head}_f1"] for head in heads],
        "F1 prueba": [results["test"][f"{head}_f1"] for head in heads],
        "F1 macro prueba": [results["test"][f"{head}_f1_macro"] for head in heads],
        "exactitud prueba": [results["test"][f"{head}_accuracy"] for head in heads],
    }
    return pd.DataFrame(columns, index=heads).round(3)


def _write_html(notebook: Path) -> None:
    import nbformat
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(nbformat.read(notebook, as_version=4))
    write_text(notebook.with_suffix(".html"), body)
