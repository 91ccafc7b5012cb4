"""What is deleted or damaged in an experiment folder: the case fails with a message, and the others finish."""

import contextlib
import shutil

import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import run as grids
from ocensa_nb.experiments.grid import expand
from ocensa_nb.experiments.results import read_results
from ocensa_nb.experiments.run import failures, run_grid
from tests.helpers.experiments import MeasuringPool, read_cases

GRID = {"base": {"model": "tiny"}, "cases": [{"name": f"c{n}", "epochs": n} for n in range(1, 5)]}
FOLDERS = {spec.title: spec.name for spec in expand(GRID, "cpu")}


def delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path):
    (path / "case.json").write_text("")


def replace(path):
    delete(path)
    path.write_text("un archivo")


class DamagingPool(MeasuringPool):
    """Two cases at a time; damages a path when a case starts."""

    def __init__(self, at="", damage=None, path=None):
        super().__init__(slots=2)
        self.at, self.damage, self.path = at, damage, path

    def start(self, case):
        job = super().start(case)
        if case.title == self.at:
            self.damage(self.path)
        return job


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the grid and damages a path when a case starts."""
    monkeypatch.setattr(grids, "POLL_SECONDS", 0)

    def run(at="", damage=None, name=""):
        pool = DamagingPool(at, damage, tmp_path / "out/cases" / FOLDERS.get(name, name))
        monkeypatch.setattr(grids, "_pool", lambda *_: contextlib.nullcontext(pool))
        return run_grid(GRID, tmp_path / "out")

    return run


@pytest.mark.parametrize("damage", [delete, empty, replace])
# When c3 starts, c1 has finished and c4 waits; when c4 starts, c3 runs.
@pytest.mark.parametrize(
    ("at", "name"), [("c3", "c1"), ("c3", "c4"), ("c4", "c3")], ids=["finished", "pending", "running"]
)
def test_case_damaged_while_another_runs_fails_and_the_others_finish(run, tmp_path, at, name, damage):
    result = run(at, damage, name)
    assert result["cases"] == {"finished": 3, "failed": 1, "interrupted": 0}
    assert [case["title"] for case in result["failed"]] == [name]
    assert f"Falló 1 caso; para repetirlo, ejecute lo mismo otra vez:\n  {name} · semilla" in failures(result)
    assert "case.json» falta o está dañado" in failures(result) or "No se puede" in failures(result)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "3 terminados, 1 fallido" in page
    assert "fallido" in (tmp_path / "out/results.csv").read_text(encoding="utf-8")
    if damage is not replace:
        assert {case.title for case in read_cases(tmp_path / "out") if case.status == "failed"} == {name}


def test_file_in_the_place_of_the_cases_fails_them_all_and_refuses_the_next_run(run, tmp_path):
    assert run("c3", replace)["cases"]["failed"] == 4
    with pytest.raises(UserError, match=r"No se puede escribir en «.*cases»"):
        run()


def test_file_in_the_place_of_a_case_fails_it_and_the_others_run(run, tmp_path):
    (tmp_path / "out/cases").mkdir(parents=True)
    (tmp_path / "out/grid.yaml").touch()
    (tmp_path / "out/cases" / FOLDERS["c2"]).touch()
    result = run()
    assert result["cases"] == {"finished": 3, "failed": 1, "interrupted": 0}
    assert "es un archivo y no una carpeta" in failures(result) or "ya existe un archivo" in failures(result)
    assert len(read_results(tmp_path / "out").finished) == 3
