"""Execute the numbered notebooks with papermill and collect their results."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.metrics import MODEL_NAMES
from ocensa_nb.experiments.execute import execute
from ocensa_nb.files.atomic import is_running, owner, remove, write_json
from ocensa_nb.files.verify import read_json
from ocensa_nb.paths import NOTEBOOKS, plain_path
from ocensa_nb.runs.run import CONFIG, METRICS, Run, free_folder, make_folder
from ocensa_nb.runtime.commands import UNATTENDED, evaluation_parameters, training_parameters
from ocensa_nb.runtime.machine import configure

logger = logging.getLogger(__name__)

RECIPE = "cpu"  # the one recommended without a GPU, the same on every machine
STATE = ".suite.json"  # in the folder of an unfinished suite: parameters, process, seconds of the executed notebooks
# Not 05, which measures the optimisations for minutes.
SUITE = ("01_setup_gpu_check", "02_data_audit", "03_train", "04_evaluate", "06_review", "09_daily_use")


def suite(out: str | Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Execute the notebooks of `SUITE` into `out`, with an HTML copy of each; an unfinished suite is resumed.

    Parameters
    ----------
    out
        A new folder, or that of an unfinished suite with the same settings; if empty, the next free number.
    settings
        Fields of the config that differ from the recipe `cpu`.

    Returns
    -------
    dict
        `out`, `run`, `seconds` of each notebook, `best_epoch`, and the `val` and `test` metrics of the run.
    """
    settings = dict(settings or {})
    folder, seconds = _open(out, settings)
    parameters = suite_parameters(folder, settings)
    for number, name in enumerate(SUITE, 1):
        if name in seconds:
            logger.info(f"[{number}/{len(SUITE)}] {name}: ya estaba ejecutado")
            continue
        if out := parameters[name].get("out"):
            _remove_unrecorded(Path(out))
        logger.info(f"[{number}/{len(SUITE)}] {name} …")
        started = time.perf_counter()
        execute(NOTEBOOKS / f"{name}.ipynb", folder, parameters[name])
        seconds[name] = time.perf_counter() - started
        _keep(folder, settings, seconds)
        logger.info(f"[{number}/{len(SUITE)}] {name}: listo en {seconds[name]:.0f} s")
    run = Run.load(folder / "run")
    remove(folder / STATE)
    metrics = {name: run.metrics[name] for name in ("best_epoch", "val", "test")}
    return {"out": str(folder), "run": str(run.path), "seconds": seconds, **metrics}


def suite_parameters(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every parameter of each notebook, so that what a user saved in a form changes nothing."""
    run = str(folder / "run")
    config = configure(RECIPE, {**settings, "out": run})
    data = {"data": config.data, **UNATTENDED}
    audit = {
        "model": config.model,
        "max_length": config.max_length,
        "heads": ", ".join(config.heads),
        "columns": ", ".join(f"{role}: {name}" for role, name in config.columns.items()),
        "seed": config.seed,
        "out": str(folder / "audit"),
    }
    # The run knows the notices of `data`: there are new ones in the example.
    review = {"run": run, "data": "", "rows": 200, "corrections": "", "out": str(folder / "review.xlsx")}
    return {
        "01_setup_gpu_check": UNATTENDED,
        "02_data_audit": {**data, **audit},
        "03_train": training_parameters(config, RECIPE),
        "04_evaluate": evaluation_parameters(run, str(folder / "evaluation")),
        "06_review": {**review, **UNATTENDED},
        "09_daily_use": {"run": run, "data": "", "out": str(folder / "daily"), "onnx": False, **UNATTENDED},
    }


def models_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the test F1 of each model in a metrics.json, one row per label, and which of them predicts."""
    used = metrics["sources"]
    columns = {
        f"{what} {MODEL_NAMES[model]}": [metrics[model]["test"][f"{head}_{name}"] for head in used]
        for name, what in (("f1", "F1"), ("f1_macro", "F1 macro"))
        for model in ("linear", "encoder", "blend")
    }
    return pd.DataFrame(
        {**columns, "predice": [MODEL_NAMES[model] for model in used.values()]}, index=list(used)
    ).round(3)


def _open(out: str | Path, parameters: dict[str, Any]) -> tuple[Path, dict[str, float]]:
    path = plain_path(out)
    seconds: dict[str, float] = {}
    if str(out) and (path / STATE).exists():
        kept = read_json(path / STATE)
        if kept["parameters"] != parameters:
            raise UserError(
                f"La carpeta «{path}» tiene una suite sin terminar con otros parámetros ({kept['parameters']}). Para "
                "terminarla use los mismos parámetros; para empezar otra, elija otro nombre en out."
            )
        if is_running(kept["process"]):
            raise UserError(f"Otro proceso está ejecutando la suite de «{path}». Espere, o elija otro nombre en out.")
        seconds = kept["seconds"]
    else:
        path = make_folder(free_folder(out))
    _keep(path, parameters, seconds)
    return path.resolve(), seconds


def _remove_unrecorded(result: Path) -> None:
    """Remove what a notebook wrote before it was interrupted, except a training, which is resumed."""
    if result.exists() and ((result / METRICS).exists() or not (result / CONFIG).exists()):
        remove(result)


def _keep(folder: Path, parameters: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    state = {"parameters": parameters, "process": owner(), "seconds": seconds}
    write_json(folder / STATE, state)
