"""Notebooks opened in JupyterLab and executed with *Run All Cells*; 03, the panel, is in test_colab.py."""

import pytest

from tests.helpers.lab import wait_until

pytestmark = pytest.mark.slow


def run_all(opened, pictures):
    """Run all cells; no errors, no overflow, and the images are there."""
    opened.open().run_all().wait_until_idle()
    assert opened.errors() == []
    assert opened.overflowing() == []
    assert opened.pictures() == pictures
    opened.save_executed()


def test_run_all_cells_of_notebook_01_shows_no_errors_or_overflow(notebook):
    run_all(notebook("01"), pictures=0)


def test_run_all_cells_of_notebook_02_shows_every_image_without_errors_or_overflow(notebook, csv):
    run_all(notebook("02").set_parameters(model="tiny", data=str(csv)), pictures=3)


def test_run_all_cells_of_notebook_04_shows_every_image_and_the_confusion_of_a_chosen_label(notebook, run):
    opened = notebook("04").set_parameters(run=str(run.path))
    run_all(opened, pictures=2)
    opened.page.locator(".widget-dropdown select").nth(1).select_option(index=1)
    assert wait_until(lambda: opened.pictures() == 3, 60)
    assert opened.errors() == []
    assert opened.overflowing() == []
