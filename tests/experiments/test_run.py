"""Run a grid by its command: results, failures, what a second run keeps and repeats, and reproduction."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

from ocensa_nb.cli import main as cli
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.experiments import execute
from ocensa_nb.experiments import run as grids
from ocensa_nb.experiments.case import Case, record
from ocensa_nb.experiments.execute import CaseProcess
from ocensa_nb.experiments.grid import expand
from ocensa_nb.experiments.prepare import prepare
from ocensa_nb.experiments.run import GridRunner, LocalPool, auto_recipe, check_folder, opened, run_grid, seconds_left
from ocensa_nb.files.atomic import owner
from ocensa_nb.notebook import suite
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.machine import configure
from tests.helpers import forked
from tests.helpers.experiments import FakePool, read_cases

LIMIT = 200  # seconds
BASE = {"model": "tiny", "epochs": 1, "freeze_layers": 1, "precision": "fp32", "recipe": "cpu"}


def command(grid: Path, out: Path, *more):
    words = [sys.executable, "-m", "ocensa_nb", "experiments", "--grid", grid, "--out", out, *more]
    return [str(word) for word in words]


def run(*arguments):
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=LIMIT, check=False
    )


@pytest.fixture(scope="module")
def executed(csv, tmp_path_factory):
    """Return the grid, the folder, the process and the JSON result of a grid with a failing and an evaluation case."""
    place = tmp_path_factory.mktemp("grid")
    content = {
        "base": {**BASE, "data": str(csv), "label_smoothing": 0},
        "cases": [{"name": "uno"}, {"name": "malo", "freeze_layers": 99}, {"name": "simple", "predict_with": "linear"}],
        "seeds": [7],
    }
    grid, out = place / "grid.yaml", place / "out"
    grid.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with forked.processes():
        done = run(grid, out, "--jobs", 2, "--json", place / "result.json")
    return grid, out, done, json.loads((place / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def copy(executed, tmp_path):
    """Return the grid and a copy of the executed folder, to be changed."""
    shutil.copytree(executed[1], tmp_path / "out")
    return executed[0], tmp_path / "out"


def by_title(out):
    return {state.title: state for state in read_cases(out)}


def prepared(grid, out):
    """Return the titles of the cases that a run of the folder would execute."""
    content = yaml.safe_load(grid.read_text(encoding="utf-8")) if isinstance(grid, Path) else grid
    return [state.title for state in prepare(out, expand(content, "cpu"))[0] if state.status == "pending"]


@pytest.mark.slow
def test_failing_case_is_reported_with_its_cell_and_last_line_and_the_others_finish(executed):
    _, out, done, result = executed
    assert done.returncode == 1
    assert result["cases"] == {"finished": 2, "failed": 1, "interrupted": 0}
    states = by_title(out)
    assert {title: state.status for title, state in states.items()} == {
        "uno": "finished",
        "malo": "failed",
        "simple": "finished",
    }
    error = states["malo"].content["error"]
    assert error["notebook"] == "03_train"
    assert error["line"].startswith("UserError: freeze_layers = 99")
    notebook = nbformat.read(states["malo"].folder / "03_train.ipynb", as_version=4)
    failed = next(c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", [])))
    assert error["cell"] == failed.execution_count
    assert f"malo · semilla 7: 03_train, celda [{error['cell']}]: UserError: freeze_layers = 99" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_progress_has_one_line_per_change_and_no_output_of_the_notebooks(executed):
    _, out, done, _ = executed
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 6
    assert lines[-1].startswith("[3/3] ")
    assert any("uno · semilla 7: terminado en " in line for line in lines)
    assert "Época 1" not in done.stdout
    assert "Época 1" in (by_title(out)["uno"].folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_case_that_differs_only_in_evaluation_uses_the_run_of_the_other(executed):
    states = by_title(executed[1])
    assert states["uno"].owns_run
    assert states["simple"].run == states["uno"].run
    assert not (states["simple"].folder / "03_train.ipynb").exists()
    scores = [json.loads((states[t].folder / "evaluation/metrics.json").read_text()) for t in ("uno", "simple")]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_folder_of_a_finished_case_has_notebooks_html_and_run(executed):
    state = by_title(executed[1])["uno"]
    for name in ("03_train", "04_evaluate"):
        assert (state.folder / f"{name}.ipynb").exists()
        assert "<html" in (state.folder / f"{name}.html").read_text(encoding="utf-8")
    assert Run.load(state.run).config.seed == 7
    assert state.took > 0
    assert "process" not in state.content


@pytest.mark.slow
def test_command_of_a_case_gives_the_config_of_its_run_and_of_its_notebook(executed):
    state = by_title(executed[1])["uno"]
    words = shlex.split(state.content["command"])
    assert words[:4] == ["python", "-m", "ocensa_nb", "train"]
    seen = {}

    def note(recipe: str, **fields):
        seen.update(config=configure(recipe, fields), recipe=recipe)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.VERBS, "train", note)
        assert cli.main(words[3:]) == 0
    of_run = Run.load(state.run).config
    assert seen["config"].replace(out=of_run.out).to_dict() == of_run.to_dict()
    assert seen["recipe"] == state.content["settings"]["recipe"]
    assert state.train_config().to_dict() == of_run.to_dict()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_command_of_a_case_reproduces_its_metrics(executed, tmp_path):
    state = by_title(executed[1])["uno"]
    words = shlex.split(state.content["command"].replace("NEW", str(tmp_path / "again")))
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    original, again = Run.load(state.run).metrics, Run.load(tmp_path / "again").metrics
    for name in ("val", "test", "encoder", "linear", "blend", "best_epoch", "sources"):
        assert again[name] == original[name], name


@pytest.mark.slow
def test_same_grid_again_repeats_only_the_failed_case(copy):
    assert prepared(*copy) == ["malo"]


@pytest.mark.slow
def test_changed_grid_keeps_what_is_still_in_it_and_leaves_the_rest_out(copy):
    grid, out = copy
    content = yaml.safe_load(grid.read_text(encoding="utf-8"))
    content["cases"] = [{"name": "otro nombre"}, {"name": "nuevo", "epochs": 2}]
    assert prepared(content, out) == ["nuevo"]
    assert sorted(by_title(out)) == ["nuevo", "otro nombre"]
    assert len(list((out / "cases").iterdir())) == 4
    content["cases"] = [{"name": "simple", "predict_with": "linear"}, {"name": "mezcla", "predict_with": "blend"}]
    assert prepared(content, out) == ["mezcla"]
    states = by_title(out)  # the run of a case that is no longer in the grid
    assert states["simple"].run == states["mezcla"].run
    assert (states["mezcla"].run / "manifest.json").exists()


@pytest.mark.slow
def test_damaged_run_of_a_finished_case_fails_with_a_message(copy):
    grid, out = copy
    weights = by_title(out)["uno"].run / "heads.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    prepared(grid, out)
    state = by_title(out)["uno"]
    assert state.status == "failed"
    assert "heads.safetensors" in state.error


@pytest.mark.slow
def test_other_data_under_the_same_name_fails_with_a_message(copy, csv, tmp_path):
    grid, out = copy
    data = tmp_path / "avisos.csv"
    content = yaml.safe_load(grid.read_text(encoding="utf-8"))
    content["base"]["data"] = str(data)
    shutil.copy(csv, data)
    content["cases"] = [{"name": "uno"}]
    assert prepared(content, out) == ["uno"]  # another path is another case
    shutil.copytree(by_title(copy[1].parent / "out")["uno"].folder, tmp_path / "spare")
    folder = by_title(out)["uno"].folder
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text("{}")
    data.write_text(csv.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert prepared(content, out) == []
    state = by_title(out)["uno"]
    assert state.status == "failed"
    assert "El contenido de data no es el mismo" in state.error


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_execute_notebook_07_runs_what_is_missing_and_shows_tables_and_image(copy, tmp_path):
    grid, out = copy
    content = yaml.safe_load(grid.read_text(encoding="utf-8"))
    content["cases"] = [{"name": "uno"}, {"name": "mezcla", "predict_with": "blend"}]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    parameters = {"grid": str(tmp_path / "grid.yaml"), "out": str(out)}
    executed = suite.execute(ROOT / "notebooks/07_experiments.ipynb", tmp_path, parameters)
    outputs = [o for c in nbformat.read(executed, as_version=4).cells for o in c.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 1
    assert any("2 de 2 casos" in o.get("data", {}).get("text/html", "") for o in outputs)
    assert {title: state.status for title, state in by_title(out).items()} == dict.fromkeys(
        ("uno", "mezcla"), "finished"
    )
    assert (out / "report.html").is_file()
    assert (out / "results.csv").is_file()


def test_recipe_auto_is_kept_when_the_grid_resumes_on_another_machine(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with opened(out, "", "t4"):
        pass
    monkeypatch.setattr("ocensa_nb.experiments.run.chosen_recipe", lambda name: "cpu")
    assert auto_recipe(out) == "t4"
    assert auto_recipe(tmp_path) == "cpu"


def test_second_run_of_the_same_folder_raises_user_error(tmp_path):
    with (
        opened(tmp_path / "out", "", "cpu"),
        pytest.raises(UserError, match="Otro proceso está ejecutando"),
        opened(tmp_path / "out", "", "cpu"),
    ):
        pass


def test_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "mío.txt").touch()
    for out in (tmp_path, tmp_path / "mío.txt", ""):
        with pytest.raises(UserError, match=r"no se sobrescribe|Falta out"):
            check_folder(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"jobs": -1}, "jobs = -1"),
        ({"jobs": True}, "jobs = True"),
        ({"backend": "ray"}, "backend = 'ray'"),
        ({"scheduler": "tcp://x:1"}, "solo se usa con backend = dask"),
        ({"backend": "dask"}, "debe ser la dirección de su scheduler"),
    ],
)
def test_wrong_argument_raises_user_error_and_writes_nothing(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_grid({"base": BASE}, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_case_whose_process_died_is_interrupted(copy):
    state = by_title(copy[1])["uno"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    machine = owner().split("-")[0]
    record(state, status="running", process=f"{machine}-{dead.pid}")
    assert by_title(copy[1])["uno"].status == "interrupted"
    record(state, status="running", process=f"{machine}-{os.getpid()}")
    assert by_title(copy[1])["uno"].status == "running"


@pytest.mark.slow
def test_damaged_case_file_is_left_out_and_repeated(copy):
    grid, out = copy
    (by_title(out)["simple"].folder / "case.json").write_text("{")
    assert sorted(by_title(out)) == ["malo", "uno"]
    assert prepared(grid, out) == ["malo", "simple"]


@pytest.mark.slow
def test_time_left_is_divided_by_the_cases_at_the_same_time(executed):
    state = by_title(executed[1])["uno"]
    finished = Case(state.folder, {**state.content, "seconds": 10.0})
    pending = Case(state.folder, {**state.content, "status": "pending", "seconds": 0.0})
    resumed = Case(state.folder, {**state.content, "status": "pending", "seconds": 4.0})
    assert seconds_left([finished, *[pending] * 4], 2) == 20.0
    assert seconds_left([finished, pending], 2) == 10.0
    assert seconds_left([finished, resumed], 2) == 6.0
    assert seconds_left([finished], 2) == 0.0
    assert seconds_left([pending], 2) is None


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    """Return a function that runs cases in a pool, and returns how each one ended."""
    monkeypatch.setattr(grids, "POLL_SECONDS", 0)

    def run_in(pool, *cases):
        content = {"base": {"model": "tiny"}, "cases": [{"name": str(n), **case} for n, case in enumerate(cases)]}
        specs = expand(content, "cpu")
        with opened(tmp_path / "out", "", "cpu"):
            cases, _ = prepare(tmp_path / "out", specs)
            runner = GridRunner(tmp_path / "out", pool, cases, {spec.name: spec.features for spec in specs})
            runner.run()
        return {case.title: case for case in runner.cases.values()}

    return run_in


SHARED = {"freeze_layers": 2}


def test_one_case_computes_the_shared_features_before_the_others_start(run_in):
    pool = FakePool(slots=3)
    run_in(pool, SHARED, {**SHARED, "epochs": 3}, {**SHARED, "epochs": 4}, {"freeze_layers": 0})
    assert pool.started == ["0", "3", "1", "2"]
    assert pool.most == 3


def test_cases_on_other_machines_do_not_wait_for_features_that_they_do_not_see(run_in):
    pool = FakePool(slots=3, shares_cache=False)
    run_in(pool, SHARED, {**SHARED, "epochs": 3}, {"freeze_layers": 0})
    assert pool.started == ["0", "1", "2"]


def test_features_whose_computing_case_crashed_are_computed_by_the_next(run_in):
    pool = FakePool(slots=2, crash=("0",))
    ended = run_in(pool, SHARED, {**SHARED, "epochs": 3}, {**SHARED, "epochs": 4})
    assert pool.started == ["0", "1", "2"]
    assert ended["0"].status == "failed"
    assert ended["0"].error == "murió"
    assert [ended[title].status for title in ("1", "2")] == ["finished", "finished"]


def test_case_that_shares_a_run_starts_when_the_run_is_finished_and_fails_without_it(run_in):
    pool = FakePool(slots=3)
    run_in(pool, {"epochs": 2, "predict_with": "linear"}, {"epochs": 2})
    assert pool.started == ["1", "0"]
    crashing = FakePool(slots=3, crash=("1",))
    run_in(crashing, {"epochs": 5, "predict_with": "linear"}, {"epochs": 5})
    assert crashing.started == ["1", "0"]  # its process says that there is no run


def test_never_more_cases_than_slots(run_in):
    pool = FakePool(slots=2)
    run_in(pool, *({"freeze_layers": 0, "epochs": epochs} for epochs in range(1, 7)))
    assert pool.most == 2
    assert len(pool.started) == 6


def test_stop_ends_the_running_cases_and_leaves_the_others_pending(run_in):
    pool = FakePool(slots=2, signal_at=2)
    with pytest.raises(AskedToStopError, match="ejecute lo mismo otra vez"):
        run_in(pool, *({"freeze_layers": 0, "epochs": epochs} for epochs in range(1, 5)))
    assert pool.stops == 2
    assert len(pool.started) == 2


def test_files_that_a_worker_does_not_see_leave_every_case_pending(tmp_path, monkeypatch):
    def refuse(cases):
        raise UserError("no ven la carpeta")

    pool = FakePool(slots=1)
    pool.require_seen = refuse
    monkeypatch.setattr(grids, "_pool", lambda *_: contextlib.nullcontext(pool))
    with pytest.raises(UserError, match="no ven la carpeta"):
        run_grid({"base": BASE}, tmp_path / "out")
    assert [case.status for case in read_cases(tmp_path / "out")] == ["pending"]
    assert pool.started == []


def test_local_processes_divide_the_cores(monkeypatch):
    monkeypatch.setattr(grids, "cores", lambda: 8)
    started = []
    monkeypatch.setattr(grids, "CaseProcess", lambda folder, threads, gpu: started.append(threads))
    case = type("Case", (), {"folder": "x", "owns_run": False})()
    for jobs in (1, 2, 3, 16):
        LocalPool(jobs).start(case)
    assert started == [None, 4, 2, 1]


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, ["0", "1"]), ("1,3", ["1", "3"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_grid_runs_one_case_per_gpu_and_the_next_where_one_ends(monkeypatch, visible, gpus):
    class Process:
        def __init__(self, folder, threads, gpu):
            self.gpu, self.done = gpu, False

        def is_done(self):
            return self.done

    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(grids, "CaseProcess", Process)
    case = type("Case", (), {"folder": "x", "owns_run": False})()
    pool = LocalPool(0)
    assert pool.slots == 2
    first, second = pool.start(case), pool.start(case)
    assert [first.gpu, second.gpu] == gpus
    second.done = True
    assert pool.start(case).gpu == gpus[1]


def test_case_sees_only_its_gpu(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(execute.subprocess, "Popen", lambda words, env, **_: started.append(env))
    for gpu in ("", "3"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
        CaseProcess(tmp_path, None, gpu)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == ["2,3", "3"]
