"""Run a grid by its command: results, failures, what a second run keeps and repeats, and reproduction."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from ocensa_nb.cli import main as cli
from ocensa_nb.errors import UserError
from ocensa_nb.experiments import case as cases_on_disk
from ocensa_nb.experiments.case import read_cases
from ocensa_nb.experiments.experiment_folder import auto_recipe, check_folder, opened, prepare
from ocensa_nb.experiments.grid import Grid
from ocensa_nb.experiments.progress import Progress, saved_seconds
from ocensa_nb.experiments.run import run_grid
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run

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
    cases = Grid.parse(content).expand("cpu")
    return [state.title for state in prepare(out, cases)[0]]


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
    error = states["malo"].error
    assert error["notebook"] == "03_train"
    assert error["line"].startswith("UserError: freeze_layers = 99")
    notebook = nbformat.read(states["malo"].folder / "03_train.ipynb", as_version=4)
    failed = next(c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", [])))
    assert error["cell"] == failed.execution_count
    assert f"malo · semilla 7: 03_train, celda [{error['cell']}]: UserError: freeze_layers = 99" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_progress_has_one_line_per_change_and_no_output_of_the_notebooks(executed):
    _, out, done, _ = executed
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 6
    assert lines[-1].startswith("[3/3] ")
    assert any("uno · semilla 7: terminado en " in line for line in lines)
    assert "Época 1" not in done.stdout
    assert "Época 1" in (by_title(out)["uno"].folder / "log.txt").read_text(encoding="utf-8")


def test_case_that_differs_only_in_evaluation_uses_the_run_of_the_other(executed):
    states = by_title(executed[1])
    assert states["uno"].owns_run
    assert states["simple"].run == states["uno"].run
    assert not (states["simple"].folder / "03_train.ipynb").exists()
    scores = [json.loads((states[t].folder / "evaluation/metrics.json").read_text()) for t in ("uno", "simple")]
    assert scores[0] != scores[1]


def test_folder_of_a_finished_case_has_notebooks_html_and_run(executed):
    state = by_title(executed[1])["uno"]
    for name in ("03_train", "04_evaluate"):
        assert (state.folder / f"{name}.ipynb").exists()
        assert "<html" in (state.folder / f"{name}.html").read_text(encoding="utf-8")
    assert Run.load(state.run).config.seed == 7
    assert state.seconds > 0
    assert "process" not in state.content


def test_command_of_a_case_gives_the_config_of_its_run_and_of_its_notebook(executed):
    state = by_title(executed[1])["uno"]
    words = shlex.split(state.content["command"])
    assert words[:4] == ["python", "-m", "ocensa_nb", "train"]
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cli.VERBS, "train", lambda config, recipe: seen.update(config=config, recipe=recipe) or {})
        assert cli.main(words[3:]) == 0
    of_run = Run.load(state.run).config
    assert seen["config"].replace(out=of_run.out).to_dict() == of_run.to_dict()
    assert seen["recipe"] == state.content["settings"]["recipe"]
    assert cases_on_disk.config_of(state).to_dict() == of_run.to_dict()


def test_command_of_a_case_reproduces_its_metrics(executed, tmp_path):
    state = by_title(executed[1])["uno"]
    words = shlex.split(state.content["command"].replace("NEW", str(tmp_path / "again")))
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    original, again = Run.load(state.run).metrics, Run.load(tmp_path / "again").metrics
    for name in ("val", "test", "encoder", "linear", "blend", "best_epoch", "sources"):
        assert again[name] == original[name], name


def test_same_grid_again_repeats_only_the_failed_case(copy):
    assert prepared(*copy) == ["malo"]


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


def test_damaged_run_of_a_finished_case_fails_with_a_message(copy):
    grid, out = copy
    weights = by_title(out)["uno"].run / "heads.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    prepared(grid, out)
    state = by_title(out)["uno"]
    assert state.status == "failed"
    assert "heads.safetensors" in state.error["line"]


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
    assert "El contenido de data no es el mismo" in state.error["line"]


def test_recipe_auto_is_kept_when_the_grid_resumes_on_another_machine(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with opened(out, "", "t4"):
        pass
    monkeypatch.setattr("ocensa_nb.experiments.experiment_folder.chosen_recipe", lambda name: "cpu")
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
        ({"jobs": 0}, "jobs = 0"),
        ({"jobs": True}, "jobs = True"),
        ({"backend": "ray"}, "backend = 'ray'"),
        ({"scheduler": "tcp://x:1"}, "solo se usa con backend = dask"),
        ({"backend": "dask"}, "Falta scheduler"),
    ],
)
def test_wrong_argument_raises_user_error_and_writes_nothing(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_grid({"base": BASE}, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_case_whose_process_died_is_interrupted(copy):
    state = by_title(copy[1])["uno"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    machine = cases_on_disk.owner().split("-")[0]
    cases_on_disk.update(state.folder, status="running", process=f"{machine}-{dead.pid}")
    assert by_title(copy[1])["uno"].status == "interrupted"
    cases_on_disk.update(state.folder, status="running", process=f"{machine}-{os.getpid()}")
    assert by_title(copy[1])["uno"].status == "running"


def test_damaged_case_file_is_left_out_and_repeated(copy):
    grid, out = copy
    (by_title(out)["simple"].folder / "case.json").write_text("{")
    assert sorted(by_title(out)) == ["malo", "uno"]
    assert prepared(grid, out) == ["malo", "simple"]


def test_seconds_saved_by_shared_features_are_those_of_the_case_that_computed_them(executed, monkeypatch):
    states = [state for state in read_cases(executed[1]) if state.status == "finished"]
    assert saved_seconds([]) == 0
    runs = iter(
        [
            {"features": {"key": "a", "bytes": 1, "reused": False}, "seconds": {"features": 10.0}},
            {"features": {"key": "a", "bytes": 1, "reused": True}, "seconds": {"features": 1.0}},
        ]
    )
    monkeypatch.setattr("ocensa_nb.experiments.progress.read_config", lambda run: next(runs))
    changed = [
        cases_on_disk.CaseState(state.folder, {**state.content, "run": name})
        for state, name in zip(states, ("a", "b"), strict=True)
    ]
    assert saved_seconds(changed) == 9.0


def test_time_left_is_divided_by_the_cases_at_the_same_time(executed):
    state = by_title(executed[1])["uno"]
    progress = Progress(slots=2)
    progress._took[True].append(10.0)
    pending = cases_on_disk.CaseState(state.folder, {**state.content, "status": "pending"})
    assert progress.seconds_left([pending] * 4) == 20.0
    assert progress.seconds_left([pending]) == 10.0
    assert progress.seconds_left([]) == 0.0
