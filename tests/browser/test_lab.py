"""Notebooks opened in JupyterLab and executed with *Run All Cells*."""

import pytest

from tests.helpers.lab import wait_until

pytestmark = pytest.mark.slow
OWN = {
    "01": (),
    "02": ("model", "data"),
    "03": ("model", "data", "epochs", "freeze_layers", "precision", "interactive"),  # the panel: test_colab.py
    "04": ("run",),
}
PICTURES = {"01": 0, "02": 4, "03": 1, "04": 3}


@pytest.mark.parametrize("name", OWN)
def test_run_all_cells_shows_every_image_without_errors_or_overflow(notebook, csv, run, name):
    small = {"model": "tiny", "data": str(csv), "epochs": 1, "freeze_layers": 1, "precision": "fp32"}
    small["run"] = str(run.path)
    small["interactive"] = False
    opened = notebook(name).set_parameters(**{field: small[field] for field in OWN[name]}).open()
    opened.run_all().wait_until_idle()
    assert opened.errors() == []
    assert opened.overflowing() == []
    assert opened.pictures() == PICTURES[name]
    saved = [cell for cell in opened.save()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in saved] == list(range(1, len(saved) + 1))


def test_choosing_another_label_in_notebook_04_draws_its_confusion(notebook, run):
    opened = notebook("04").set_parameters(run=str(run.path)).open()
    opened.run_all().wait_until_idle()
    opened.page.locator(".widget-dropdown select").nth(1).select_option(index=1)
    assert wait_until(lambda: opened.pictures() == 4, 60)
    assert opened.errors() == []
    assert opened.overflowing() == []
