"""The grids of the project as they are committed, and the report of the guide's."""

import pytest

from ocensa_nb.experiments.grid import expand, read_grid
from ocensa_nb.experiments.report import not_measured, write_report
from ocensa_nb.experiments.results import read_results
from ocensa_nb.notebook.grid_panel import GRIDS
from ocensa_nb.paths import ROOT
from ocensa_nb.training.train import fit, load_notices
from tests.helpers.experiments import add_case

NAMES = sorted(file.stem for file in GRIDS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_grid_of_the_project_expands_to_valid_cases(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    cases = expand(read_grid(GRIDS / f"{name}.yaml")[0], "cpu")
    assert len({case.name for case in cases}) == len(cases) >= 4
    assert {case.config.model for case in cases} >= {"minilm"}


@pytest.mark.slow
def test_guide_grid_with_tiny_runs_every_technique_and_its_report_is_complete(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "grid.yaml").write_text((GRIDS / "guide.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    cases = [case for case in expand(read_grid(GRIDS / "guide.yaml")[0], "cpu") if case.seed == 1]
    notices = load_notices(cases[0].config)
    for number, case in enumerate(cases):
        folder = add_case(
            tmp_path,
            {name: value for name, value in case.changes.items() if name in ("epochs", "max_length", "precision")}
            | {"technique": number},
            case.seed,
            title=case.title,
            settings=case.settings,
            changes=case.changes,
            group=case.group,
        )
        small = {"freeze_layers": min(case.config.freeze_layers, 3), "max_length": case.config.max_length // 8}
        fit(case.config.replace(model="tiny", epochs=1, out=str(folder / "run"), **small), notices)
    results = read_results(tmp_path)
    page = write_report(results).read_text(encoding="utf-8")
    assert len(results.finished) == len(cases) == 8
    assert results.problems == []
    assert {case.predicts_with for case in results.finished} == {"encoder"}
    named = list(not_measured(tmp_path)["técnica"])
    assert named == ["GPU en la nube", "Modelo más pequeño"]
    assert all(name in page for name in named)
    assert "sin baseline" not in page
