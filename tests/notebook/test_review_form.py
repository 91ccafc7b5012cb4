"""The form of a review: buttons, drop-downs and keys record answers; without a user, a table and a workbook."""

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.cli.arguments import Parser
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.corrections import read_corrections
from ocensa_nb.files.notice_file import SPANISH_EXCEL, TableFile
from ocensa_nb.notebook import review_form
from ocensa_nb.review.answers import Answers
from ocensa_nb.review.review import Review
from ocensa_nb.runtime.machine import configure

CLASSES = {"modo": ["A", "B", "C", "<b>D</b>"], "prioridad": ["1", "2"]}


@pytest.fixture
def found():
    table = pd.DataFrame({"id_aviso": ["7", "8", "9"], "texto": ["fuga", "<script>x</script>", "ruido"]})
    for head, names in CLASSES.items():
        for place, name in enumerate(names[:3], 1):
            table[f"pred{place}_{head}"], table[f"conf{place}_{head}"] = name, 0.5 / place
        table[f"conjunto_{head}"] = " | ".join(names[:2])
        table[f"correcta_{head}"] = ""
    empty = pd.DataFrame()
    file = TableFile(Path("a.csv"), table, table, 0, 2, SPANISH_EXCEL, "", None)
    likeliest = {"modo": np.array([[0, 1, 2, 3]] * 3), "prioridad": np.array([[0, 1]] * 3)}
    return Review(file, table[["id_aviso"]], table, likeliest, CLASSES, empty, [])


@pytest.fixture
def form(found, tmp_path):
    return review_form.ReviewForm(found, Answers(found.doubtful, CLASSES, tmp_path / "c.csv"))


def on_disk(form):
    return (
        read_corrections(form.answers.path, CLASSES)
        .table.set_index("id_aviso")[["modo", "prioridad"]]
        .T.to_dict("list")
    )


def type_keys(form, text):
    form.keys.value = text
    assert form.keys.value == ""


def test_buttons_record_an_answer_each_and_go_to_the_next_notice(form):
    form.buttons["modo"][1].click()
    assert (form.row, on_disk(form)) == (0, {"7": ["B", ""]})
    assert form.buttons["modo"][1].button_style == "success"
    form.buttons["prioridad"][0].click()
    assert (form.row, on_disk(form)) == (1, {"7": ["B", "1"]})
    assert form.progress.value == 1
    assert [choice.button_style for choice in form.buttons["modo"]] == ["info", "info", ""]  # those of the set


def test_drop_down_records_any_class(form):
    form.others["modo"].value = "<b>D</b>"
    assert on_disk(form) == {"7": ["<b>D</b>", ""]}
    assert form.others["modo"].value == "<b>D</b>"


def test_keys_answer_skip_and_undo(form):
    type_keys(form, "21")
    type_keys(form, "s")
    type_keys(form, "3 0")
    assert (form.row, on_disk(form)) == (2, {"7": ["B", "1"], "9": ["C", ""]})
    type_keys(form, "d")
    type_keys(form, "d")
    assert (form.row, form.answers.done) == (0, 0)
    assert not form.answers.path.exists()


@pytest.mark.parametrize("text", ["4", "41", "13", "x1", "111", "²1"])
def test_keys_that_are_not_valid_say_so_and_record_nothing(form, text):
    type_keys(form, text)
    assert "⛔" in form._state.value
    assert not form.answers.path.exists()


def test_accept_fills_the_labels_without_an_answer(form):
    form.buttons["modo"][2].click()
    form.accept.click()
    assert on_disk(form) == {"7": ["C", "1"]}
    form.undo.click()
    assert (form.row, on_disk(form)) == (0, {"7": ["C", ""]})


def test_form_opened_again_continues_at_the_first_open_notice(form, found, tmp_path):
    form.accept.click()
    again = review_form.ReviewForm(found, Answers(found.doubtful, CLASSES, tmp_path / "c.csv"))
    assert (again.row, again.progress.value) == (1, 1)


def test_all_notices_answered_says_so_and_each_can_be_visited(form):
    for _ in range(3):
        form.accept.click()
    assert "Terminado" in form._state.value
    form.back.click()
    form.back.click()
    assert form.row == 0
    assert form.buttons["modo"][0].button_style == "success"


def test_html_in_a_notice_is_escaped(form):
    form.skip.click()
    assert "&lt;script&gt;" in form._notice.value
    assert "<script>" not in form._notice.value


def test_without_a_user_a_table_is_shown_and_the_workbook_is_saved(found, run, tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(review_form, "display", shown.append)
    assert review_form.review_form(found, run, out=str(tmp_path / "r.xlsx")) is None
    assert (tmp_path / "r.xlsx").exists()
    assert "r.xlsx" in capsys.readouterr().out
    assert "A (0,50) · B (0,25)" in shown[0].to_html()


def test_next_steps_repeat_the_settings_of_the_run_with_its_corrections(run, monkeypatch):
    monkeypatch.setattr(review_form.session, "is_interactive", lambda: True)
    steps = review_form.next_steps(run)
    assert f"{run.path.name}-correcciones.csv" in steps
    command = next(line for line in steps.splitlines() if line.startswith("python -m ocensa_nb train "))
    parser = Parser("train", "")
    parser.add_options(TrainConfig)
    given = parser.values(shlex.split(command)[6:])
    assert given["data"] == run.metadata["data"]["path"]
    again = configure("auto", {name: value for name, value in given.items() if name not in ("data", "corrections")})
    assert again.fingerprint() == run.config.fingerprint()


def test_next_steps_without_a_user_name_the_workbook(run, monkeypatch, tmp_path):
    monkeypatch.setattr(review_form.session, "is_interactive", lambda: False)
    assert str(tmp_path / "r.xlsx") in review_form.next_steps(run, out=str(tmp_path / "r.xlsx"))
    own = review_form._workbook_path(run)
    own.touch()  # what the form has just saved
    assert str(own) in review_form.next_steps(run)
    own.unlink()
