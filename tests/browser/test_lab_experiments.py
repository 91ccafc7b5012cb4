"""Panel of notebook 07 in a browser: start, live table, stop, and the cells that wait for the end and show results."""

import pytest

from ocensa_nb.experiments.case import RUN, case_folders
from ocensa_nb.notebook.process_panel import STOPPING
from tests.helpers.pausing import Paused

pytestmark = pytest.mark.slow
STARTS = 90  # seconds for the kernel of a case to make its first step
ENDS = 240


@pytest.fixture
def grid(csv, tmp_path):
    """Return a grid of one case of the tiny encoder."""
    path = tmp_path / "grid.yaml"
    settings = f"recipe: cpu, model: tiny, data: {csv}, freeze_layers: 1, precision: fp32, epochs: 1"
    path.write_text(f"base: {{{settings}}}\ncases: [{{name: uno}}]\nseeds: [1]\n", encoding="utf-8")
    return path


def test_experiments_panel_starts_stops_and_the_next_cell_finishes(notebook, grid, tmp_path, pictures):
    opened = notebook("07").set_parameters(grid=str(grid), out=str(tmp_path / "out"))
    opened.open().run_above("results = panel.run()").wait_until_idle()
    assert opened.errors() == []
    opened.press("Empezar")
    opened.wait_for_text("ocensa-cases", "en marcha", STARTS)
    with Paused(case_folders(tmp_path / "out")[0] / RUN) as training:
        training.advance()
        assert opened.button("Empezar").is_disabled()
        opened.screenshot(pictures / "experiments.png", "ocensa-panel")
        opened.press("Detener")
        opened.wait_for_text("ocensa-state", STOPPING)
    opened.wait_for_text("ocensa-state", "Detenido", STARTS)

    opened.run_all().wait_until_idle(ENDS)
    assert opened.errors() == []
    assert opened.overflowing() == []
    assert opened.pictures() == 1
    assert "1 de 1 casos" in opened.page.locator(".ocensa-bar").last.inner_text()
    assert (tmp_path / "out/report.html").is_file()
