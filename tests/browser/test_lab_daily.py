"""Notebook 09 in JupyterLab: its five cells, and what they write."""

import pytest

pytestmark = pytest.mark.slow


def test_notebook_09_shows_its_tables_and_writes_the_book_and_the_page(notebook, run, tmp_path, pictures):
    out = tmp_path / "daily"
    opened = notebook("09").set_parameters(run=str(run.path), out=str(out)).open()
    opened.run_all().wait_until_idle(180)
    assert opened.errors() == []
    assert opened.overflowing() == []
    opened.page.screenshot(path=pictures / "daily.png")
    assert sorted(path.name for path in out.iterdir()) == ["predicciones.xlsx", "report.html"]
