"""Read the folder of an experiment: its cases, and results.csv with one row per case.

Reading never fails because of one case: a case whose files are damaged becomes a problem, in Spanish, for the report.
"""

import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ocensa_nb.errors import UserError, listed
from ocensa_nb.evaluation.blend import SOURCES
from ocensa_nb.experiments.case_files import CASES, EVALUATION, FINISHED, STATE, STATES, status_of
from ocensa_nb.experiments.case_result import CaseResult
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.notice_file import SPANISH_EXCEL
from ocensa_nb.files.write import DECIMALS, inert
from ocensa_nb.paths import plain_path
from ocensa_nb.runs.manifest import CONFIG, METRICS
from ocensa_nb.runs.run import read_config, read_json

RESULTS = "results.csv"
_SETTING, _YES = "ajuste_", {True: "sí", False: "no"}
_PARTS = {"training": "entrenamiento", "frozen": "capas_congeladas", "linear": "modelo_simple", "total": "total"}
_TYPES = {"settings": dict, "changes": dict, "evaluation": dict, "group": str, "seed": int, "run": str, "command": str}


@dataclass(frozen=True)
class Results:
    """What an experiment has so far.

    Attributes
    ----------
    path
        The folder of the experiment.
    cases
        The cases that could be read, by name.
    problems
        What could not be read, in Spanish.
    """

    path: Path
    cases: list[CaseResult]
    problems: list[str]

    @property
    def finished(self) -> list[CaseResult]:
        """The cases with results."""
        return [case for case in self.cases if case.is_finished]


def read_results(out: str | Path) -> Results:
    """Read the cases of an experiment; those that are not finished have only their state.

    Parameters
    ----------
    out
        The folder of the experiment.

    Raises
    ------
    UserError
        If the folder does not exist or has no case.
    """
    path = plain_path(out)
    folders = case_folders(path)
    if not folders:
        missing = "no tiene ningún caso" if path.is_dir() else "no existe"
        raise UserError(
            f"La carpeta de experimentos «{path}» {missing}. Ejecute antes: python -m ocensa_nb experiments --grid "
            f"CUADRICULA.yaml --out {path}"
        )
    problems, cases, dropped = [], [], []
    for folder in folders:
        try:
            case = read_case(folder)
        except UserError as error:
            problems.append(f"Caso {folder.name}: {error}")
            continue
        if case.state.get("dropped"):
            dropped.append(case.name)
            continue
        try:
            cases.append(with_results(case))
        except UserError as error:
            problems.append(f"Caso {folder.name}: {error}")
            cases.append(case)
    if dropped:
        problems.append(f"Casos de la carpeta que ya no están en la cuadrícula, y no se cuentan: {listed(dropped)}.")
    return Results(path, _with_context(cases), problems)


def case_folders(out: Path) -> list[Path]:
    """Return the folders of the cases of an experiment, by name; none if there is no experiment."""
    return sorted(file.parent for file in out.glob(f"{CASES}/*/{STATE}"))


def read_case(folder: Path) -> CaseResult:
    """Return a case with its state alone; raises `UserError` if its case.json is damaged.

    A case whose process has died is interrupted.
    """
    state = read_json(folder / STATE)
    valid = isinstance(state, dict) and state.get("status") in STATES
    wrong = [name for name, kind in _TYPES.items() if not valid or not isinstance(state.get(name), kind)]
    if wrong or not re.fullmatch(r"run|\.\./(?!\.\.?/)[^/\\]+/run", state["run"].replace("\\", "/")):
        raise UserError(
            f"«{folder / STATE}» está dañado ({', '.join(wrong) or 'run'}). Bórrelo y repita el experimento."
        )
    return CaseResult(folder, {**state, "status": status_of(state)})


def with_results(case: CaseResult) -> CaseResult:
    """Return a case with its metrics and metadata if it is finished; raises `UserError` if they are damaged."""
    if case.state["status"] != FINISHED:
        return case
    run = run_folder(case)
    metadata, metrics = read_config(run), read_json(run / METRICS)
    if not _are_metrics(metrics):
        raise UserError(f"«{run / METRICS}» está dañado.")
    parts = [metadata.get(name) for name in ("config", "seconds", "hardware")]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(parts[0].get("heads"), dict):
        raise UserError(f"«{run / CONFIG}» está dañado.")
    return dataclasses.replace(case, metadata=metadata, metrics=metrics, evaluation=_evaluation(case))


def results_table(results: Results) -> pd.DataFrame:
    """Return one row per case: its settings, state, metrics, seconds, notebooks and command."""
    table = pd.DataFrame([_row(case) for case in results.cases])
    last = [*(name for name in table if name.startswith(_SETTING)), "error", "carpeta", "comando"]
    return table[[*(name for name in table if name not in last), *last]]


def write_results(out: str | Path) -> Path:
    """Write results.csv, one row per case, as Excel in Spanish opens it, and return its path."""
    results = read_results(out)
    path, form = results.path / RESULTS, SPANISH_EXCEL
    table = inert(results_table(results).round(DECIMALS))
    with atomic_write(path) as fresh:
        table.to_csv(fresh, index=False, sep=form.separator, decimal=form.decimal, encoding=form.encoding)
    return path


def run_folder(case: CaseResult) -> Path:
    """Return the folder of the run that a case evaluates, which may be that of another case of the experiment."""
    return Path(os.path.normpath(case.folder / case.state["run"]))


def _are_metrics(metrics: Any) -> bool:
    """Return whether the content of metrics.json has the entries that the report reads; models may be missing."""
    if not isinstance(metrics, dict) or not {"val", "test"} <= metrics.keys():
        return False
    models = [metrics.get(model, {"val": {}, "test": {}}) for model in SOURCES]
    if not all(isinstance(model, dict) and {"val", "test"} <= model.keys() for model in models):
        return False
    comparison = metrics.get("comparison", {})
    flat = [metrics["val"], metrics["test"], metrics.get("sources", {}), comparison]
    flat += [model[side] for model in models for side in ("val", "test")]
    pairs = list(comparison.values()) if isinstance(comparison, dict) else []
    entries = [entry for pair in pairs if isinstance(pair, dict) for entry in pair.values()]
    scores = [entry.get("f1", {}) for entry in entries if isinstance(entry, dict)]
    return all(isinstance(part, dict) for part in (*flat, *pairs, *entries, *scores))


def _evaluation(case: CaseResult) -> dict[str, Any]:
    """Return the metrics that notebook 04 wrote, if they are not those of the run."""
    if not any(value for name, value in case.state["evaluation"].items() if name != "predict_with"):
        return {}
    found = read_json(case.folder / EVALUATION / METRICS)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("metrics", "models")):
        raise UserError(f"«{case.folder / EVALUATION / METRICS}» está dañado.")
    return found


def _with_context(cases: list[CaseResult]) -> list[CaseResult]:
    """Add what a case does not know alone: what ran at the same time, and who computed the features that it reused."""
    trained = {case.name: case for case in cases if not case.shares_run}
    built = {}
    for case in trained.values():
        features = case.metadata.get("features") or {}
        if features.get("reused") is False:
            built[features.get("key")] = float(case.metadata["seconds"].get("features", 0.0))
    found = []
    for case in cases:
        owner = trained.get(run_folder(case).parent.name, case)
        features = owner.metadata.get("features") or {}
        building = built.get(features.get("key")) if features.get("reused") else None
        found.append(dataclasses.replace(case, beside=_ran_beside(owner, cases), building=building))
    return found


def _ran_beside(case: CaseResult, cases: list[CaseResult]) -> bool:
    """Return whether another case ran while this one was trained."""
    if isinstance(jobs := case.state.get("jobs"), int):
        return jobs > 1
    own = case.interval()
    others = [other.interval() for other in cases if other.name != case.name]
    return own is not None and any(other and other[0] < own[1] and own[0] < other[1] for other in others)


def _row(case: CaseResult) -> dict[str, Any]:
    """Return the row of a case in results.csv; its titles are in Spanish."""
    metric, error = case.monitor, case.state.get("error") or {}
    row = {"caso": case.name, "configuracion": case.title, "grupo": case.state["group"], "semilla": case.seed}
    row |= {"estado": STATES[case.state["status"]], "metrica": metric}
    row |= {"validacion": case.score(metric, "val"), "prueba": case.score(metric)}
    row |= {"prueba_codificador": case.score(metric, model="encoder")}
    row |= {"prueba_modelo_simple": case.score(metric, model="linear")}
    row |= {f"prueba_{head}_f1": case.score(f"{head}_f1") for head in case.heads}
    if case.is_finished:
        row |= {f"segundos_{_PARTS[name]}": value for name, value in case.seconds().items()}
        row |= {"segundos_ahorrados": case.saved_seconds()}
        row |= {"continuado": _YES[case.is_resumed], "simultaneo": _YES[case.beside]}
    row |= {f"{_SETTING}{name}": str(value) for name, value in case.settings.items()}
    row |= {"error": _error_text(error) if _is_error(error) else ""}
    return row | {"carpeta": f"{CASES}/{case.name}", "comando": case.state["command"]}


def _error_text(error: dict[str, Any]) -> str:
    cell = f", celda {error['cell']}" if error["cell"] else ""
    return f"{error['notebook']}{cell}: {error['line']}" if error["notebook"] else str(error["line"])


def _is_error(error: Any) -> bool:
    return isinstance(error, dict) and {"notebook", "cell", "line"} <= error.keys()
