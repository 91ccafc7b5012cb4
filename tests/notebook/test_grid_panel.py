"""The panel of notebook 07 without a browser: grids, the live table, and the process that it starts."""

import json
import re

import pytest

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.experiments.run import seconds_left
from ocensa_nb.notebook import grid_panel, process_panel
from ocensa_nb.notebook.grid_panel import GRIDS, CaseTable, GridInKernel, experiments_panel, grid_path
from ocensa_nb.notebook.process_panel import ChildProcess
from tests.helpers.experiments import add_case, add_run


class Process(ChildProcess):
    """A command that does not run: it ends on a signal."""

    is_running = property(lambda self: self.code is None)
    exit_code = property(lambda self: self.code)
    was_refused = property(lambda self: self.code == 1)
    code = None

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        ChildProcess._started.append(self)

    def stop(self):
        self.code = 143

    def last_words(self):
        return "Falló 1 caso <b>x</b>"


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """Replace the process by one that does not run; forget those of other tests."""
    monkeypatch.setattr(grid_panel, "ChildProcess", Process)
    monkeypatch.setattr(ChildProcess, "_started", [])
    monkeypatch.setattr(process_panel, "POLL_SECONDS", 0.001)


@pytest.fixture
def panel(tmp_path):
    return experiments_panel("quick", tmp_path / "out", interactive=True)


def text(panel):
    return panel.status.value + panel.view.value


@pytest.mark.parametrize("name", [file.stem for file in sorted(GRIDS.glob("*.yaml"))])
def test_grid_of_the_project_is_found_by_name_and_by_path(name):
    assert grid_path(name) == grid_path(str(GRIDS / f"{name}.yaml"))


@pytest.mark.parametrize("name", ["", "nada", "../grids"])
def test_unknown_grid_raises_user_error_that_names_the_known_ones(name):
    with pytest.raises(UserError, match="quick"):
        grid_path(name)


def test_panel_with_negative_jobs_raises_user_error(tmp_path):
    with pytest.raises(UserError, match="jobs = -1"):
        experiments_panel("quick", tmp_path, jobs=-1)


def test_panel_runs_one_case_per_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(grid_panel, "visible_gpus", lambda: ["0", "1"])
    assert experiments_panel("quick", tmp_path, interactive=False).jobs == 2
    assert experiments_panel("quick", tmp_path, jobs=1, interactive=False).jobs == 1


def test_folder_depends_on_the_grid_so_that_running_again_continues(tmp_path):
    assert experiments_panel("quick", root=tmp_path, interactive=False).out == tmp_path / "experiments-quick"


def test_start_shows_the_cases_and_stop_stops_the_process(panel):
    panel.start.click()
    assert panel.process.arguments[0] == "experiments"
    assert "--jobs 1" in panel.box.children[-1].value
    assert panel.start.disabled
    assert not panel.stop.disabled
    add_case(panel.out, {"epochs": 3}, 1, "running")
    panel.clock.tick()
    assert "epochs=3" in text(panel)
    assert "en marcha" in text(panel)
    panel.stop.click()
    assert not panel.process.is_running
    panel.clock.tick()
    assert "Detenido" in text(panel)
    assert not panel.start.disabled
    assert panel.stop.disabled


def test_end_with_failed_cases_says_so_and_escapes_it(panel):
    panel.start.click()
    add_run(add_case(panel.out, {}, 1), 0.5, 10)
    add_case(panel.out, {"epochs": 3}, 1, "failed", error={"notebook": "03", "cell": 1, "line": "<script>"})
    panel.process.code = 1
    panel.clock.tick()
    assert "en el informe. Falló 1 caso &lt;b&gt;" in text(panel)
    assert "fallido: 03, celda [1]: &lt;script&gt;" in text(panel)
    assert "0,500" in text(panel)


def test_end_without_cases_shows_the_error_message(panel):
    panel.start.click()
    panel.process.code = 1
    panel.clock.tick()
    assert "⛔ Falló 1 caso" in text(panel)


def test_new_panel_of_the_same_folder_follows_the_running_process(panel):
    panel.start.click()
    again = experiments_panel("quick", panel.out, interactive=True)
    again._ipython_display_()
    assert again.process is panel.process
    assert again.start.disabled


def test_run_in_a_cell_returns_the_results_and_reports_a_stop(panel, monkeypatch):
    add_run(add_case(panel.out, {}, 1), 0.5, 10)
    monkeypatch.setattr(Process, "code", 0)
    assert len(panel.run().finished) == 1
    assert "✅ Listo" in text(panel)
    monkeypatch.setattr(Process, "code", 143)
    with pytest.raises(AskedToStopError, match="Detenido"):
        panel.run()
    assert "Detenido" in text(panel)
    assert "⛔" not in text(panel)


def test_after_a_stop_in_the_cell_the_panel_shows_the_table_that_the_cell_shows(panel, monkeypatch):
    shown = []
    monkeypatch.setattr(process_panel.DisplayHandle, "update", lambda self, page: shown.append(page.data))
    add_case(panel.out, {"epochs": 3}, 1, "interrupted")
    monkeypatch.setattr(Process, "code", 143)
    with pytest.raises(AskedToStopError, match="Detenido"):
        panel.run()
    assert "epochs=3" in panel.view.value
    table, cell = (re.sub(r"T_\w{5}", "", page) for page in (panel.view.value, shown[-1]))
    assert table in cell


def test_run_without_a_user_runs_the_grid_in_the_kernel_and_shows_the_table(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(grid_panel, "display", lambda html: shown.append(html.data))
    monkeypatch.setattr(grid_panel, "run_grid", lambda grid, out, jobs: add_run(add_case(out, {}, 1), 0.5, 10))
    panel = experiments_panel("quick", tmp_path / "out", interactive=False)
    assert isinstance(panel, GridInKernel)
    assert len(panel.run().finished) == 1
    assert "1 de 1 casos" in shown[0]


def test_widgets_are_those_of_ipywidgets_7_and_8(panel):
    import ipywidgets

    kinds = {type(widget) for widget in [panel.box, *panel.box.children]}
    assert kinds <= {ipywidgets.VBox, ipywidgets.HBox, ipywidgets.HTML}


def test_view_estimates_the_time_left_from_the_finished_cases(tmp_path):
    view = CaseTable(tmp_path, jobs=2)
    view.update()
    assert seconds_left(view.cases, 2) is None
    add_run(add_case(tmp_path, {}, 1, seconds=60), 0.5, 10)
    for seed in (2, 3):
        add_case(tmp_path, {}, seed, "pending")
    view.update()
    assert seconds_left(view.cases, 2) == 60
    assert "1 de 3 casos · faltan unos 60 s" in view.html(running=True)


def test_view_reads_a_case_again_only_when_its_state_changes(tmp_path, monkeypatch):
    folder = add_case(tmp_path, {}, 1, "pending")
    view = CaseTable(tmp_path)
    view.update()
    first = view.cases[0]
    view.update()
    assert view.cases[0] is first
    state = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    (folder / "case.json").write_text(json.dumps(state | {"status": "failed"}), encoding="utf-8")
    view.update()
    assert view.cases[0].status == "failed"
