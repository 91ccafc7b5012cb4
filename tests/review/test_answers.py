"""The answers to a review: complete on disk after each one, continued later, and taken back."""

import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.data.corrections import ID, TEXT, read_corrections
from ocensa_nb.errors import UserError
from ocensa_nb.files import atomic
from ocensa_nb.review.answers import Answers

CLASSES = {"modo": ["Fuga", "Ruido", "=Otra"], "prioridad": ["1", "2"]}
DOUBTFUL = pd.DataFrame({ID: [f"a{row}" for row in range(5)], TEXT: [f"- texto {row}" for row in range(5)]})

changes = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([(h, c) for h in CLASSES for c in CLASSES[h]])) | st.none(),
    max_size=6,
)


@pytest.fixture
def answers(tmp_path):
    return Answers(DOUBTFUL, CLASSES, tmp_path / "c.csv")


@given(changes)
@settings(max_examples=60, deadline=None)
def test_reopened_answers_are_those_of_any_sequence_of_answers_and_undos(tmp_path_factory, sequence):
    path = tmp_path_factory.mktemp("answers") / "c.csv"
    answers, states = Answers(DOUBTFUL, CLASSES, path), [[{} for _ in range(5)]]
    for change in sequence:
        if change is None:
            answers.undo()
            states = states[:-1] or states
        else:
            row, (head, name) = change
            answers.answer(row, {head: name})
            states.append([right | ({head: name} if place == row else {}) for place, right in enumerate(states[-1])])
        again = Answers(DOUBTFUL, CLASSES, path)
        assert again.given == answers.given == states[-1]
        assert path.exists() == any(states[-1])


def test_file_is_what_corrections_reads_with_partly_answered_notices(answers):
    answers.answer(0, {"modo": "=Otra", "prioridad": "2"})
    answers.answer(3, {"modo": "Fuga"})
    found = read_corrections(answers.path, CLASSES).table
    assert found[ID].tolist() == ["a0", "a3"]
    assert found["prioridad"].tolist() == ["2", ""]
    assert answers.done == 1


def test_next_open_notice_is_after_the_given_one_and_then_from_the_start(answers):
    whole = {"modo": "Fuga", "prioridad": "1"}
    for row in (0, 2, 4):
        answers.answer(row, whole)
    assert [answers.next_open(row) for row in range(5)] == [1, 1, 3, 3, 1]
    for row in (1, 3):
        answers.answer(row, whole)
    assert answers.next_open() is None


def test_answers_about_other_notices_stay_in_the_file(answers):
    answers.answer(1, {"modo": "Ruido"})
    others = Answers(DOUBTFUL.assign(**{ID: [f"b{row}" for row in range(5)]}), CLASSES, answers.path)
    assert others.done == 0
    others.answer(2, {"modo": "Fuga"})
    assert read_corrections(answers.path, CLASSES).table[ID].tolist() == ["a1", "b2"]
    others.undo()
    assert read_corrections(answers.path, CLASSES).table[ID].tolist() == ["a1"]


def test_file_of_the_user_that_is_not_corrections_is_refused_and_kept(tmp_path):
    mine = tmp_path / "mío.csv"
    mine.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="tiene otras columnas"):
        Answers(DOUBTFUL, CLASSES, mine)
    assert mine.read_text() == "a,b\n1,2\n"


def test_answer_that_cannot_be_written_is_not_recorded_and_keeps_the_file(answers, monkeypatch):
    answers.answer(0, {"modo": "Fuga"})
    before = answers.path.read_bytes()

    def full(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replace", full)
        with pytest.raises(UserError, match="no queda espacio"):
            answers.answer(1, {"modo": "Ruido"})
    assert answers.path.read_bytes() == before
    assert answers.given[1] == {}
    assert answers.undo() == 0


@pytest.mark.parametrize(
    "columns", [[ID, TEXT, "correcta_modo"], [ID, TEXT, "correcta_modo", "correcta_prioridad", "nota"], ["otra"]]
)
def test_file_with_other_columns_is_refused_and_unchanged(tmp_path, columns):
    path = tmp_path / "c.csv"
    pd.DataFrame([["Fuga"] * len(columns)], columns=columns).to_csv(path, index=False)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"ya existe y tiene otras columnas.*no se ha cambiado"):
        Answers(DOUBTFUL, CLASSES, path)
    assert path.read_bytes() == before


def test_workbook_is_refused_as_the_file_of_the_answers(tmp_path):
    with pytest.raises(UserError, match=r"no es un CSV.*--corrections"):
        Answers(DOUBTFUL, CLASSES, tmp_path / "revision.xlsx")
