"""The cases of an experiment, OUT/cases/NAME: case.json, run/, evaluation/ and the executed notebooks."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.evaluation.blend import AUTO, SOURCES
from ocensa_nb.experiments.grid import USUAL_EVALUATION, CaseSpec
from ocensa_nb.files.atomic import is_running, write_json
from ocensa_nb.files.verify import compute, read_json, require_regular
from ocensa_nb.paths import reason
from ocensa_nb.runs import manifest
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
# What case.json holds; see `fits`.
_NEEDED = {
    **{"title": str, "changes": dict, "group": str, "seed": int, "command": str, "status": str, "inputs": {str: str}},
    **{"settings": {"recipe": str, "predict_with": str}, "files": {"data": str, "evaluation_data": str}},
    "trainer": str,
}
_OPTIONAL = {"started": str, "process": str, "dropped": bool}
_OPTIONAL |= {"error": {"notebook": str, "cell": (int, type(None)), "line": str}}
_MOST = {"seed": 2**32 - 1, "seconds": 1e9, "jobs": 1e6, "threads": 1e6}
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
            return (seconds or 0.0) + max(0.0, time.time() - datetime.fromisoformat(started).timestamp())
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
        return number(nested(self.metadata, "seconds").get(name), _MOST["seconds"]) or 0.0


def case_folders(out: Path) -> list[Path]:
    return sorted(file.parent for file in out.glob(f"{CASES}/*/{STATE}"))


def read_case(folder: Path) -> Case:
    """Return a case without results; raises `UserError` if its case.json is missing or damaged."""
    content = None
    with contextlib.suppress(UserError):
        content = read_json(folder / STATE)
    if problem := _problem(content):
        raise UserError(f"«{folder / STATE}» falta o está dañado ({problem}). Ejecute lo mismo otra vez: lo repite.")
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
    try:
        return _with_results(case) if case.status == FINISHED else case
    except UserError as error:
        return _changed(case, **failure(str(error)))


def _with_results(case: Case) -> Case:
    metadata, metrics = read_config(case.run), read_json(case.run / METRICS)
    if not isinstance(metrics, dict) or not all(isinstance(metrics.get(side), dict) for side in ("val", "test")):
        raise UserError(f"«{case.run / METRICS}» está dañado.")
    if not (nested(metadata, "config", "heads") and nested(metadata, "seconds") and nested(metadata, "hardware")):
        raise UserError(f"«{case.run / CONFIG}» está dañado.")
    evaluation = {}
    if case.content["files"]["evaluation_data"]:
        evaluation = read_json(case.folder / EVALUATION / METRICS)
        if not nested(evaluation, "metrics"):
            raise UserError(f"«{case.folder / EVALUATION / METRICS}» está dañado.")
    return dataclasses.replace(case, metadata=metadata, metrics=metrics, evaluation=evaluation)


def record(case: Case, **changes: Any) -> Case:
    """Change entries of a case and write its case.json; None removes an entry. If it cannot be written, it failed."""
    changed = _changed(case, **changes)
    try:
        write_json(case.folder / STATE, changed.content)
    except UserError as error:
        return _changed(case, **failure(str(error)))
    return changed


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


def _is_complete(case: Case) -> bool:
    written = [f"{EVALUATION}/{METRICS}", f"{EVALUATE}.ipynb", f"{EVALUATE}.html"]
    there = all((case.folder / name).is_file() for name in written) and manifest.is_finished(case.run)
    if case.status != FINISHED or not there:
        return False
    manifest.verify(case.run)
    return True


def prepare(out: Path, specs: Sequence[CaseSpec]) -> tuple[list[Case], list[Case]]:
    """Write case.json of the cases of a grid; return them, and those that are no longer in the grid.

    The cases to run are `pending`. One whose folder cannot be written is `failed`, and does not stop the others.
    """
    known = {}
    for spec in specs:
        with contextlib.suppress(UserError):  # no case.json, or a damaged one: it is written again
            known[spec.name] = read_case(out / CASES / spec.name)
    trainers = _trainers(specs, known)
    digests = {path: _sha256(path) for path in {path for spec in specs for path in spec.input_files().values()}}
    cases = []
    for spec in specs:
        inputs = {name: digests[path] for name, path in spec.input_files().items()}
        content = spec.content() | {"inputs": inputs, "trainer": trainers[spec.name], "status": PENDING}
        before = known.get(spec.name)
        cases.append(record(Case(out / CASES / spec.name, content), **(_kept(before, inputs) if before else {})))
    return cases, _drop_others(out, {spec.name for spec in specs})


def _kept(case: Case, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Return what a case keeps of an earlier call: its end, if it is not run again, and what it took."""
    kept = {name: case.content[name] for name in ("jobs", "threads", "seconds") if name in case.content}
    changed = [name for name in inputs if case.content["inputs"].get(name) != inputs[name]]
    if (case.run / CONFIG).exists() and set(changed) - {"evaluation_data"}:
        what = f"El contenido de {', '.join(changed)} no es el mismo con que se ejecutó el caso."
        error = failure(f"{what} Devuelva el archivo de entonces, o use otra carpeta en out.")
        return kept | error | {"inputs": case.content["inputs"]}
    try:
        if not changed and _is_complete(case):
            return kept | {"status": FINISHED}
    except UserError as error:
        return kept | failure(f"{error} Para repetir el caso, borre su carpeta.")
    if case.status == FAILED:  # it starts again; the training of another one may be finished
        kept.pop("seconds", None)
    return kept


def _trainers(specs: Sequence[CaseSpec], known: Mapping[str, Case]) -> dict[str, str]:
    """Return, for each case, the one that trains for it: one with a run, or else the one with the usual evaluation."""
    together: dict[str, list[CaseSpec]] = {}
    for spec in specs:
        together.setdefault(spec.training, []).append(spec)
    trainers = {}
    for group in together.values():
        usual_first = sorted(group, key=lambda spec: (spec.settings != spec.settings | USUAL_EVALUATION, spec.name))
        names = [spec.name for spec in usual_first]
        started = [known[name] for name in names if name in known and (known[name].run / CONFIG).exists()]
        finished = [case.content["trainer"] for case in started if manifest.is_finished(case.run)]
        unfinished = [case.content["trainer"] for case in started if case.content["trainer"] in names]
        trainers |= dict.fromkeys(names, [*finished, *unfinished, *names][0])
    return trainers


def _drop_others(out: Path, names: set[str]) -> list[Case]:
    dropped = []
    for folder in case_folders(out):
        if folder.name not in names:
            with contextlib.suppress(UserError):
                case = read_case(folder)
                dropped.append(record(case, dropped=True, status=case.status, process=None))
    return dropped


def _sha256(path: Path) -> str:
    try:
        require_regular(path)
        return compute(path.parent, [path.name])[path.name]["sha256"]
    except OSError as error:
        raise UserError(f"No se puede leer «{path}»: {reason(error)}.") from error


def _problem(content: Any) -> str:
    """Return what is wrong with the content of a case.json; "" if nothing."""
    if not isinstance(content, dict):
        return STATE
    wrong = [name for name, shape in _NEEDED.items() if not fits(content.get(name), shape)]
    wrong += [name for name, shape in _OPTIONAL.items() if name in content and not fits(content[name], shape)]
    wrong += [name for name, most in _MOST.items() if number(content.get(name, 0), most) is None]
    if wrong:
        return ", ".join(dict.fromkeys(wrong))
    if content["status"] not in STATES:
        return "status"
    if content["settings"]["predict_with"] not in (AUTO, *SOURCES):
        return "predict_with"
    trainer = content["trainer"]
    if (
        not re.fullmatch(r"[^/\\]+", trainer)
        or trainer in (".", "..")
        or not trainer.isprintable()
        or len(trainer) > 85
    ):
        return "trainer"
    try:
        datetime.fromisoformat(content.get("started", "2000-01-01")).timestamp()
    except (ValueError, OverflowError):
        return "started"
    return ""


def number(value: Any, most: float) -> float | None:
    """Return a value of a JSON file as a float if it is a number from 0 to `most`, otherwise None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= most else None


def nested(value: Any, *names: str) -> dict[str, Any]:
    """Return a dictionary inside others; empty if something else is there."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
