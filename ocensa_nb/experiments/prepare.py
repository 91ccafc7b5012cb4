"""Prepare the cases of a grid in an experiment folder: new ones, and what is kept of an earlier call."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocensa_nb.errors import UserError
from ocensa_nb.experiments.case import (
    CASES,
    EVALUATE,
    EVALUATION,
    FAILED,
    FINISHED,
    PENDING,
    Case,
    case_folders,
    failure,
    read_case,
    record,
)
from ocensa_nb.experiments.grid import USUAL_EVALUATION, CaseSpec
from ocensa_nb.files.verify import sha256
from ocensa_nb.paths import reason
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import CONFIG, METRICS


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


def _is_complete(case: Case) -> bool:
    written = [f"{EVALUATION}/{METRICS}", f"{EVALUATE}.ipynb", f"{EVALUATE}.html"]
    there = all((case.folder / name).is_file() for name in written) and manifest.is_finished(case.run)
    if case.status != FINISHED or not there:
        return False
    manifest.verify(case.run)
    return True


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
        return sha256(path)
    except OSError as error:
        raise UserError(f"No se puede leer «{path}»: {reason(error)}.") from error
