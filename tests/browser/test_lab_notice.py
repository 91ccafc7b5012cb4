"""The box for one notice of notebook 04, in JupyterLab under Colab's rule for widgets."""

import pytest

from tests.helpers.colab import ColabRule
from tests.helpers.lab import wait_until

pytestmark = pytest.mark.slow


def test_notice_form_explains_what_is_typed(notebook, run, csv, page, pictures):
    rule = ColabRule().impose(page)
    opened = notebook("04").set_parameters(run=str(run.path)).open()
    opened.run_all().wait_until_idle(180)
    assert opened.errors() == []
    form = opened.cell("notice_form(trained").locator(".ocensa-panel")
    answer = form.locator("table")
    before = answer.inner_text()
    form.locator("textarea").first.fill("ruido raro <b>en</b> el motor")
    opened.press("Explicar")
    assert wait_until(lambda: "<b>en</b>" in answer.inner_text(), 30), answer.inner_text()
    assert answer.inner_text() != before
    assert rule.delivered
    form.screenshot(path=pictures / "notice.png")
