"""The folder of an experiment: which cases it already has, and which ones are to run.

    OUT/grid.yaml            the grid, as last run
    OUT/recipe.json          the recipe that `auto` stood for when the folder was created
    OUT/cases/NAME/          one folder per case (`case.py`)

Nothing is removed: cases that are no longer in the grid stay, marked as `dropped` in their case.json.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import case as cases_on_disk
from ocensa_nb.experiments.case import CaseState, describe, read_case
from ocensa_nb.experiments.case_files import CASES, FAILED, RUN, STATE
from ocensa_nb.experiments.grid import Case
from ocensa_nb.files.atomic import is_temporary, write_text
from ocensa_nb.files.verify import compute, require_regular
from ocensa_nb.paths import SAMPLE_DATA, plain_path, reason
from ocensa_nb.runs import manifest
from ocensa_nb.runs.resume import lock_folder
from ocensa_nb.runs.run import CONFIG, LOCK, make_folder, read_json
from ocensa_nb.runtime.machine import chosen_recipe

GRID, RECIPE = "grid.yaml", "recipe.json"


def check_folder(out: str | Path) -> Path:
    """Return the path of an experiment folder, new or existing; raises `UserError` if it has other content."""
    path = plain_path(out)
    if not str(out):
        raise UserError("Falta out: la carpeta de los experimentos.")
    if path.exists() and not path.is_dir():
        raise UserError(f"«{path}» es un archivo, y no se sobrescribe nada. Elija otro nombre en out.")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    foreign = [name for name in names if not is_temporary(name) and not name.startswith(LOCK)]
    if foreign and not (path / GRID).exists():
        raise UserError(
            f"La carpeta «{path}» no está vacía ni es de experimentos, y no se sobrescribe nada. Elija otro nombre en "
            "out."
        )
    return path.absolute()


def auto_recipe(out: Path) -> str:
    """Return what `recipe: auto` stands for in a folder: as when it was created, on whatever machine that was."""
    if (out / RECIPE).exists():
        content = read_json(out / RECIPE)
        if isinstance(content, dict) and isinstance(content.get("auto"), str):
            return content["auto"]
    return chosen_recipe("auto")


@contextlib.contextmanager
def opened(out: Path, grid: str, auto: str) -> Iterator[None]:
    """Create and lock an experiment folder inside the block; write the grid and its recipe."""
    make_folder(out)
    lock = lock_folder(out)
    if lock is None:
        raise UserError(
            f"Otro proceso está ejecutando los experimentos de «{out}». Espere a que termine, o elija otro nombre en "
            "out."
        )
    try:
        write_text(out / GRID, grid)
        write_text(out / RECIPE, json.dumps({"auto": auto}) + "\n")
        (out / CASES).mkdir(exist_ok=True)
        yield
    finally:
        lock.release()


def prepare(out: Path, cases: list[Case]) -> tuple[list[CaseState], list[CaseState]]:
    """Write the case.json of each case that is new or unfinished; keep the others.

    Parameters
    ----------
    out
        A locked experiment folder.
    cases
        The cases of the grid.

    Returns
    -------
    tuple
        The cases that are to run, in order; and those in the folder that are no longer in the grid.
    """
    known = {}
    for case in cases:
        with contextlib.suppress(UserError):  # no case.json, or a damaged one: it is written again
            known[case.name] = read_case(out / CASES / case.name)
    runs = _assign_runs(out, cases, known)
    digests = {path: _sha256(path) for path in {path for case in cases for path in input_files(case).values()}}
    to_run = []
    for case in cases:
        folder = out / CASES / case.name
        folder.mkdir(exist_ok=True)
        content = describe(case, runs[case.name], {name: digests[path] for name, path in input_files(case).items()})
        if case.name in known and (kept := _keep(known[case.name], content)):
            cases_on_disk.update(folder, dropped=None, **kept)
        else:
            if case.name in known and known[case.name].status != FAILED:  # which starts again
                content |= {"seconds": known[case.name].seconds}
            if case.name in known:  # of its training, which may be finished
                before = known[case.name].content
                content |= {name: before[name] for name in ("jobs", "threads") if name in before}
            write_text(folder / STATE, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
            to_run.append(read_case(folder))
    return to_run, _drop_others(out, {case.name for case in cases})


def input_files(case: Case) -> dict[str, Path]:
    """Return the files that a case reads, by field."""
    named = {"data": case.config.data or str(SAMPLE_DATA), "corrections": case.config.corrections}
    named["evaluation_data"] = case.evaluation["data"]
    return {name: Path(path) for name, path in named.items() if path}


def _keep(state: CaseState, content: Mapping[str, object]) -> dict[str, object] | None:
    """Return the changes of a case.json that is kept as it is and not run; None if the case is to run."""
    inputs = content["inputs"]
    before = state.content.get("inputs", inputs)
    changed = [name for name in inputs if before.get(name) != inputs[name]]
    kept = {name: content[name] for name in ("title", "changes", "run")}
    if (state.run / CONFIG).exists() and set(changed) - {"evaluation_data"}:
        what = f"El contenido de {', '.join(changed)} no es el mismo con que se ejecutó el caso."
        return kept | _failed(f"{what} Devuelva el archivo de entonces, o use otra carpeta en out.")
    try:
        return kept if cases_on_disk.is_complete(state) and not changed else None
    except UserError as error:
        return kept | _failed(f"{error} Para repetir el caso, borre su carpeta.")


def _failed(line: str) -> dict[str, object]:
    return {"status": FAILED, "error": {"notebook": "", "cell": None, "line": line}}


def _assign_runs(out: Path, cases: list[Case], known: Mapping[str, CaseState]) -> dict[str, str]:
    """Return the run folder of each case, relative to its own: cases that train the same share one.

    A run that exists is used, also of a case that is no longer in the grid; otherwise the case with the usual
    evaluation trains.
    """
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.training, []).append(case)
    runs = {}
    for group in groups.values():
        usual = sorted(group, key=lambda case: (list(case.evaluation.values()) != ["auto", ""], case.name))
        stored = [known[case.name].run for case in usual if case.name in known]
        existing = [run for run in stored if (run / CONFIG).exists()]
        finished = [run for run in existing if manifest.is_finished(run)]
        mine = [run for run in existing if run.parent.name in {case.name for case in group}]
        owner = next(iter([*finished, *mine]), out / CASES / usual[0].name / RUN).parent.name
        runs |= {case.name: RUN if case.name == owner else f"../{owner}/{RUN}" for case in group}
    return runs


def _drop_others(out: Path, names: set[str]) -> list[CaseState]:
    """Mark the cases that are not in the grid as dropped, and return them."""
    dropped = []
    for folder in sorted((out / CASES).iterdir()):
        if folder.name not in names and (folder / STATE).exists():
            with contextlib.suppress(UserError):
                state = read_case(folder)
                cases_on_disk.update(folder, dropped=True, status=state.status, process=None)
                dropped.append(read_case(folder))
    return dropped


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file of the user; raises `UserError` if it cannot be read."""
    try:
        require_regular(path)
        return compute(path.parent, [path.name])[path.name]["sha256"]
    except OSError as error:
        raise UserError(f"No se puede leer «{path}»: {reason(error)}.") from error
