"""The box for one notice: its answer is that of the command, its errors are shown, and nothing typed is HTML."""

import re
from html import unescape

import pytest

from ocensa_nb.errors import num
from ocensa_nb.evaluation.explain import explain
from ocensa_nb.evaluation.predict import read_unlabelled
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.notebook import notice_form, session
from ocensa_nb.paths import NEW_NOTICES
from tests.helpers import hostile_html

TEXT = "fuga de aceite por el sello"
HOSTILE = 'fuga <img src=x onerror=alert(1)> "onmouseover="alert(2) &lt;b&gt;'


@pytest.fixture(scope="module")
def examples(run):
    return read_unlabelled(run, NEW_NOTICES)


@pytest.fixture
def form(run, examples, monkeypatch):
    monkeypatch.setattr(session, "is_interactive", lambda: True)
    return notice_form.notice_form(run, "", examples, "auto")


def plain(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_form_starts_with_the_first_example_and_answers_as_the_command(form, run, examples):
    assert form.text.value == examples.cells[examples.columns["descripcion"]][0]
    assert form.fields.value.splitlines()[0] == f"familia_equipo = {examples.cells['familia_equipo'][0]}"
    form.text.value, form.fields.value = TEXT, "Familia equipo = BOMBA\n\ncomponente =\n"
    form.button.click()
    notice = explain(Predictor.load(run), TEXT, {"familia_equipo": "BOMBA"})
    assert form.answer.value == notice_form.as_html(notice)
    for head, label in notice.labels.items():
        name, share = label.likeliest[0]
        assert f"{head} {name} {num(share, 2)}" in plain(form.answer.value)


def test_what_is_typed_is_shown_and_never_html(form):
    form.text.value, form.fields.value = HOSTILE, "componente = <script>alert(1)</script>"
    form.button.click()
    dangers = hostile_html.Dangers(form.answer.value)
    assert not dangers.found
    assert "onerror=alert(1)" in dangers.text


@pytest.mark.parametrize(("text", "fields", "message"), [("", "", "no tiene texto"), (TEXT, "<b>", "&lt;b&gt;")])
def test_wrong_notice_is_said_in_the_form(form, text, fields, message):
    form.text.value, form.fields.value = text, fields
    form.button.click()
    assert "⛔" in form.answer.value
    assert message in form.answer.value


def test_without_a_user_the_notice_of_the_parameter_is_answered(run, examples, monkeypatch):
    shown = []
    monkeypatch.setattr(notice_form, "display", lambda page: shown.append(page.data))
    assert notice_form.notice_form(run, TEXT, examples, "linear") is None
    assert shown == [notice_form.as_html(explain(Predictor.load(run), TEXT, {}, "linear"))]
