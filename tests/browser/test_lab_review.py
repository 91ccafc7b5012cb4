"""The form of notebook 06 in JupyterLab: its keyboard, its buttons, and a session that is opened again."""

import pytest

from ocensa_nb.data.corrections import read_corrections
from tests.helpers.lab import wait_until

pytestmark = pytest.mark.slow
HEADS = ("modo", "causa", "prioridad")


def test_review_form_takes_keys_and_clicks_and_continues_after_reload(notebook, run, tmp_path, pictures):
    answers = tmp_path / "respuestas.csv"
    settings = {"run": str(run.path), "rows": 6, "corrections": str(answers)}
    opened = notebook("06").set_parameters(**settings).open()
    opened.run_all().wait_until_idle(120)
    assert opened.errors() == []
    assert opened.overflowing() == []
    page = opened.page
    state = page.locator(".ocensa-state")
    page.get_by_placeholder("121").click()
    for number, keys in enumerate(("121", "111"), 1):  # the focus stays in the field
        page.keyboard.type(keys)
        page.keyboard.press("Enter")
        assert wait_until(lambda n=number: f"revisados: {n}" in state.inner_text(), 30), state.inner_text()
    assert len(read_corrections(answers, HEADS).table) == 2
    page.locator(".ocensa-panel").screenshot(path=pictures / "review.png")
    page.get_by_role("button", name="Deshacer").click()
    assert wait_until(lambda: len(read_corrections(answers, HEADS).table) == 1, 30)

    again = notebook("06").set_parameters(**settings).open()
    again.run_all().wait_until_idle(120)
    assert wait_until(lambda: "Aviso 2 de 6; revisados: 1" in again.page.locator(".ocensa-state").inner_text(), 30)
