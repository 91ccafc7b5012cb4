"""A case of an experiment, OUT/cases/NAME: case.json, run/, evaluation/ and the executed notebooks."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocensa_nb.config import AUTO, SOURCES, TrainConfig
from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.experiments.grid import USUAL_EVALUATION
from ocensa_nb.files.atomic import is_running, write_json
from ocensa_nb.files.verify import read_json
from ocensa_nb.runs.manifest import CONFIG, METRICS
from ocensa_nb.runs.run import fits, read_config
from ocensa_nb.runtime.machine import configure

CASES, STATE, RUN, EVALUATION, LOG = "cases", "case.json", "run", "evaluation", "log.txt"
TRAIN, EVALUATE = "03_train", "04_evaluate"  # the notebooks
PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED = "pending", "running", "finished", "failed", "interrupted"
STATES = {
    PENDING: "pendiente",
    RUNNING: "en marcha",
    FINISHED: "terminado",
    FAILED: "fallido",
    INTERRUPTED: "interrumpido",
}
MOST_SECONDS = 1e9
# What two machines must share for their seconds to be compared; the free disk and the Python version may differ.
_MACHINE = ("platform", "system", "cores", "ram_gib", "gpu", "gpu_gib")


@dataclass(frozen=True)
class Case:
    """A case as its files say."""

    folder: Path
    content: dict[str, Any]  # case.json
    metadata: dict[str, Any] = field(default_factory=dict)  # config.json of the run; empty before `with_results`
    metrics: dict[str, Any] = field(default_factory=dict)  # metrics.json of the run
    evaluation: dict[str, Any] = field(default_factory=dict)  # what notebook 04 wrote; empty if the run has the same
    building: float | None = None  # seconds that another case took to compute the frozen features that this one found

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def title(self) -> str:
        """What the user calls the case; the same for all seeds."""
        return self.content["title"]

    @property
    def seed(self) -> int:
        return self.content["seed"]

    @property
    def status(self) -> str:
        """One of `STATES`; `interrupted` if the process that was running the case has died."""
        status = self.content["status"]
        dead = status == RUNNING and is_running(self.content.get("process", "")) is False
        return INTERRUPTED if dead else status

    @property
    def error(self) -> str:
        """Where and how a failed case failed: notebook, cell and last line of the traceback."""
        return described(self.content.get("error"))

    @property
    def owns_run(self) -> bool:
        return self.content["trainer"] == self.name

    @property
    def run(self) -> Path:
        """The run folder, which is that of another case, the `trainer`, if this one only evaluates."""
        return self.folder.parent / self.content["trainer"] / RUN

    @property
    def is_finished(self) -> bool:
        return self.status == FINISHED and bool(self.metrics)

    @property
    def took(self) -> float | None:
        """Seconds of both notebooks until now; None if it has not started."""
        seconds, started = self.content.get("seconds"), self.content.get("started")
        if self.status == RUNNING and started:
            return (seconds or 0.0) + max(0.0, time.time() - started)
        return seconds

    @property
    def predicts_with(self) -> str:
        """What the case predicts with: `auto` (per label, the best in validation), `encoder`, `linear` or `blend`."""
        return self.content["settings"]["predict_with"]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the training and the evaluation, without the seed."""
        return {name: value for name, value in self.content["settings"].items() if name != "seed"}

    def train_config(self) -> TrainConfig:
        known = {**self.content["settings"], **self.content["files"]}
        settings = {name: value for name, value in known.items() if name not in USUAL_EVALUATION}
        return configure(settings.pop("recipe"), {**settings, "out": str(self.run)})

    @property
    def config(self) -> dict[str, Any]:
        """All settings of the run; those of the case, if it is not finished."""
        return nested(self.metadata, "config") or self.content["settings"]

    @property
    def monitor(self) -> str:
        return str(self.config.get("monitor", TrainConfig.monitor))

    @property
    def heads(self) -> list[str]:
        return list(nested(self.config, "heads")) if self.is_finished else []

    @property
    def beside(self) -> bool:
        """Whether other cases ran at the same time as its training."""
        return self.content.get("jobs", 1) > 1

    @property
    def is_resumed(self) -> bool:
        return self._seconds("earlier") > 0

    def score(self, metric: str, side: str = "test", model: str = "") -> float | None:
        """Return a metric, or None; `model` is `encoder`, `linear`, `blend`, or "" for what the case predicts with."""
        if side == "test" and self.evaluation:
            scores = nested(self.evaluation, "models", model) if model else self.evaluation["metrics"]
        else:
            source = model or self.predicts_with
            scores = nested(self.metrics, side) if source == AUTO else nested(self.metrics, source, side)
        return number(scores.get(metric), 1)

    def beats_linear(self, head: str) -> bool | None:
        """Return whether it predicts a label better than the simple model, beyond noise; None if not compared."""
        source = nested(self.metrics, "sources").get(head) if self.predicts_with == AUTO else self.predicts_with
        if not (pairs := nested(self.metrics, "comparison", head)):
            return None
        return bool(number(nested(pairs, f"{source}-linear", "f1").get("low"), 1))

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the training, its frozen layers, the simple model, and their sum as `total`."""
        # As computed, also if found in the cache: the order of the cases must not change the comparison.
        frozen = max(self.building or 0.0, self._seconds("features"))
        parts = {"training": self._seconds("training"), "frozen": frozen, "linear": self._seconds("linear")}
        return parts | {"total": sum(parts.values())}

    def saved_seconds(self) -> float:
        return max(0.0, self.building - self._seconds("features")) if self.building and self.owns_run else 0.0

    def machine(self) -> tuple[Any, ...]:
        hardware, versions = nested(self.metadata, "hardware"), nested(self.metadata, "versions")
        threads = self.content.get("threads") or self.metadata.get("threads")
        process = (self.metadata.get("device"), versions.get("torch"), threads, self.content.get("jobs"))
        return (*(hardware.get(name) for name in _MACHINE), *process)

    def _seconds(self, name: str) -> float:
        return number(nested(self.metadata, "seconds").get(name), MOST_SECONDS) or 0.0


def case_folders(out: Path) -> list[Path]:
    return sorted(file.parent for file in out.glob(f"{CASES}/*/{STATE}"))


def read_case(folder: Path) -> Case:
    """Return a case without results; raises `UserError` if its case.json is missing or damaged."""
    content = None
    with contextlib.suppress(UserError):
        content = read_json(folder / STATE)
    if wrong := _wrong(content):
        raise UserError(f"«{folder / STATE}» falta o está dañado ({wrong}). Ejecute lo mismo otra vez: lo repite.")
    return Case(folder, content)


def reread(case: Case) -> Case:
    """Return a case as its case.json says now; a failed one, from then on, if that is missing or damaged."""
    if case.content["status"] == FAILED:
        return case
    try:
        return read_case(case.folder)
    except UserError as error:
        return record(case, **failure(str(error)))


def with_results(case: Case) -> Case:
    """Return a case with its metrics and metadata if it is finished; as a failed one if they are damaged."""
    if case.status != FINISHED:
        return case
    with_evaluation = case.content["files"]["evaluation_data"] != ""
    try:
        metadata = read_checked(case.run / CONFIG, {"config": {"heads": dict}, "seconds": dict, "hardware": dict})
        metrics = read_checked(case.run / METRICS, {"val": dict, "test": dict})
        evaluation = read_checked(case.folder / EVALUATION / METRICS, {"metrics": dict}) if with_evaluation else {}
    except UserError as error:
        return _changed(case, **failure(str(error)))
    return dataclasses.replace(case, metadata=metadata, metrics=metrics, evaluation=evaluation)


def read_checked(path: Path, shape: Any) -> dict[str, Any]:
    """Return the content of a JSON file; raises `UserError` if it is missing or has another shape, see `fits`."""
    content = read_config(path.parent) if path.name == CONFIG else read_json(path)
    if not fits(content, shape):
        raise UserError(f"«{path}» está dañado. Recupere una copia, o use otra carpeta en out.")
    return content


def record(case: Case, **changes: Any) -> Case:
    """Change entries of a case and write its case.json; None removes an entry. If it cannot be written, it failed."""
    changed = _changed(case, **changes)
    try:
        write_json(case.folder / STATE, changed.content)
    except UserError as error:
        return _changed(case, **failure(str(error)))
    return changed


def end(case: Case, **changes: Any) -> Case:
    """Record how a case ended, unless its case.json says that already; see `record`."""
    case = reread(case)
    return record(case, **changes) if case.content["status"] == RUNNING else case


def _changed(case: Case, **changes: Any) -> Case:
    content = {name: value for name, value in {**case.content, **changes}.items() if value is not None}
    return dataclasses.replace(case, content=content)


def failure(line: str, notebook: str = "", cell: int | None = None) -> dict[str, Any]:
    line = re.sub(CONTROL, "�", line)
    return {"status": FAILED, "process": None, "error": {"notebook": notebook, "cell": cell, "line": line}}


def described(error: Mapping[str, Any] | None) -> str:
    """Return an error of `failure` as one line; "" for none."""
    if not error:
        return ""
    cell = f", celda [{error['cell']}]" if error["cell"] else ""
    return f"{error['notebook']}{cell}: {error['line']}" if error["notebook"] else error["line"]


def number(value: Any, most: float) -> float | None:
    """Return a value of a JSON file as a float if it is a number from 0 to `most`, otherwise None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= most else None


def nested(value: Any, *names: str) -> dict[str, Any]:
    """Return a dictionary inside others; empty if something else is there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _up_to(most: float) -> Callable[[Any], bool]:
    return lambda value: number(value, most) is not None


# What case.json holds; see `fits`.
_NEEDED = {
    **{"title": str, "changes": dict, "group": str, "command": str, "inputs": {str: str}},
    "settings": {"recipe": str, "predict_with": lambda value: value in (AUTO, *SOURCES)},
    "files": {"data": str, "evaluation_data": str},
    "seed": lambda value: type(value) is int and 0 <= value < 2**32,
    "trainer": lambda value: isinstance(value, str) and re.fullmatch(r"\w[\w.-]{0,84}", value) is not None,
    "status": lambda value: value in tuple(STATES),
}
_OPTIONAL = {
    **{"process": str, "dropped": bool},
    **{"started": _up_to(1e11), "seconds": _up_to(MOST_SECONDS), "jobs": _up_to(1e6), "threads": _up_to(1e6)},
    "error": {"notebook": str, "cell": int | None, "line": str},
}


def _wrong(content: Any) -> str:
    """Return which entries of a case.json are wrong; "" if none."""
    if not isinstance(content, dict):
        return STATE
    shapes = _NEEDED | {name: shape for name, shape in _OPTIONAL.items() if name in content}
    return ", ".join(name for name, shape in shapes.items() if not fits(content.get(name), shape))
