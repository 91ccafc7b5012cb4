"""One case of a grid on disk: its folder, its state in case.json, and the notebooks that it executes.

`run` is called in a separate process (`case_process.py`), which knows only the folder: case.json has the settings.
"""

import contextlib
import datetime
import json
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.experiments.case_files import (
    CASES,
    EVALUATION,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUN,
    RUNNING,
    STATE,
    STATES,
    status_of,
)
from ocensa_nb.experiments.execute import NotebookError, execute
from ocensa_nb.experiments.grid import Case
from ocensa_nb.files.atomic import owner, remove, write_text
from ocensa_nb.paths import NOTEBOOKS
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import METRICS
from ocensa_nb.runs.run import Run, read_json
from ocensa_nb.runtime.commands import command_line, evaluation_parameters, training_parameters
from ocensa_nb.runtime.machine import configure

TRAIN, EVALUATE = "03_train", "04_evaluate"
NEW = "NEW"  # the folder in the command that reproduces a training


@dataclass(frozen=True)
class CaseState:
    """A case as its case.json says; `status` is `interrupted` if the process that was running it has died."""

    folder: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def title(self) -> str:
        """What the user calls the case; the same for all seeds."""
        return self.content["title"]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.content["seed"]

    @property
    def status(self) -> str:
        """One of `STATES`."""
        return status_of(self.content)

    @property
    def seconds(self) -> float:
        """Seconds of both notebooks until now."""
        return float(self.content.get("seconds", 0.0))

    @property
    def error(self) -> dict[str, Any] | None:
        """Notebook, cell and last line of the traceback of a failed case; else None."""
        return self.content.get("error")

    @property
    def run(self) -> Path:
        """The run folder, which may be another case's."""
        return (self.folder / self.content["run"]).resolve()

    @property
    def owns_run(self) -> bool:
        """Whether the case trains."""
        return self.content["run"] == RUN


def read_case(folder: Path) -> CaseState:
    """Return the state of a case; raises `UserError` if its case.json is missing or damaged."""
    content = read_json(folder / STATE)
    needed = {"title": str, "seed": int, "run": str, "settings": dict, "evaluation": dict}
    intact = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in needed.items())
    if not intact or content.get("status") not in STATES:
        raise UserError(f"El archivo «{folder / STATE}» está dañado. Borre esa carpeta para repetir el caso.")
    return CaseState(folder, content)


def read_cases(out: str | Path) -> list[CaseState]:
    """Return the states of the cases of an experiment folder, by name.

    A case whose case.json is damaged, or that is no longer in the grid, is left out.
    """
    found = []
    for file in sorted((Path(out) / CASES).glob(f"*/{STATE}")):
        with contextlib.suppress(UserError):
            found.append(read_case(file.parent))
    return [case for case in found if not case.content.get("dropped")]


def update(folder: Path, **changes: Any) -> None:
    """Change entries of a case.json; None removes an entry."""
    content = read_json(folder / STATE) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    write_text(folder / STATE, json.dumps(kept, ensure_ascii=False, indent=2) + "\n")


def describe(case: Case, run: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of a pending case's case.json.

    Parameters
    ----------
    case
        The case.
    run
        The run folder, relative to that of the case.
    inputs
        SHA-256 of each file that the case reads, by field.
    """
    # `config` has absolute paths; `settings` has those of the user, from which the name is made.
    return {
        "name": case.name,
        "title": case.title,
        "settings": case.settings,
        "changes": case.changes,
        "group": case.group,
        "seed": case.seed,
        "evaluation": case.evaluation,
        "files": {name: getattr(case.config, name) for name in ("model", "data", "corrections")},
        "inputs": dict(inputs),
        "run": run,
        "status": PENDING,
        "command": command_line(case.config.replace(out=NEW), case.recipe) + _evaluation_command(case.evaluation),
    }


def _evaluation_command(evaluation: Mapping[str, str]) -> str:
    """Return the rest of the command, which evaluates as the case does; "" if the training already shows it."""
    words = ["--with", evaluation["predict_with"]] if evaluation["predict_with"] != "auto" else []
    words += ["--data", evaluation["data"]] if evaluation["data"] else []
    if not words:
        return ""
    return f" && python -m ocensa_nb evaluate --run {NEW} --out {NEW}-04 {shlex.join(words)}"


def config_of(state: CaseState) -> TrainConfig:
    """Return the config that a case trains with."""
    settings = {**state.content["settings"], **state.content["files"]}
    if "text_fields" in settings:
        settings["text_fields"] = tuple(settings["text_fields"])
    return configure(settings.pop("recipe"), {**settings, "out": str(state.run)})


def is_complete(state: CaseState) -> bool:
    """Return whether the files of a finished case are all there; raises `UserError` if those of its run are damaged."""
    written = (
        state.folder / EVALUATION / METRICS,
        state.folder / f"{EVALUATE}.ipynb",
        state.folder / f"{EVALUATE}.html",
    )
    if not (state.status == FINISHED and manifest.is_finished(state.run) and all(file.is_file() for file in written)):
        return False
    manifest.verify(state.run)
    return True


def run(folder: Path, stop: Callable[..., bool]) -> str:
    """Execute the notebooks of a case that are not executed yet, and record how it ended.

    An interrupted training resumes from its checkpoint. A training that is finished is not repeated.

    Parameters
    ----------
    folder
        The folder of the case.
    stop
        Returns whether a stop was requested; then the case becomes `interrupted` instead of `failed`.

    Returns
    -------
    str
        `finished`, `failed` or `interrupted`.
    """
    state = read_case(folder)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    update(folder, status=RUNNING, process=owner(), started=now, error=None)
    started, error, notebook = time.perf_counter(), None, TRAIN

    def before_cell(**_: Any) -> None:
        if stop():
            raise AskedToStopError("Detenido antes de la celda.", signal.SIGTERM)

    try:
        if state.owns_run and not manifest.is_finished(state.run):
            parameters = training_parameters(config_of(state), state.content["settings"]["recipe"])
            execute(NOTEBOOKS / f"{TRAIN}.ipynb", folder, parameters, before_cell)
        notebook = EVALUATE
        remove_evaluation(folder)
        execute(NOTEBOOKS / f"{EVALUATE}.ipynb", folder, _evaluation(state), before_cell)
        status = FINISHED
    except NotebookError as failure:
        asked = stop() or failure.kind == AskedToStopError.__name__
        status = INTERRUPTED if asked else FAILED
        error = {"notebook": failure.notebook, "cell": failure.cell, "line": failure.line}
    except Exception as failure:
        status = INTERRUPTED if stop() else FAILED
        error = {"notebook": notebook, "cell": None, "line": f"{type(failure).__name__}: {failure}"}
    seconds = round(state.seconds + time.perf_counter() - started, 2)
    update(folder, status=status, seconds=seconds, process=None, error=error if status == FAILED else None)
    return status


def _evaluation(state: CaseState) -> dict[str, Any]:
    """Return the parameters of notebook 04; raises `UserError` if the run is not finished or is damaged."""
    evaluation = state.content["evaluation"]
    trained_on = Run.load(state.run).config.data
    if not evaluation["data"] and trained_on and not Path(trained_on).exists():
        # It was trained on another machine. The notebook knows the test rows of the run by their content.
        evaluation = {**evaluation, "data": state.content["files"]["data"]}
    return evaluation_parameters(str(state.run), str(state.folder / EVALUATION), **evaluation)


def remove_evaluation(folder: Path) -> None:
    """Remove what notebook 04 wrote before it was interrupted; it never writes into a folder with content."""
    if (folder / EVALUATION).exists():
        remove(folder / EVALUATION)
