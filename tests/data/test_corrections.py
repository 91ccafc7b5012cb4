"""Corrections of a review: how they are read and merged, and that corrected rows never enter the test set."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from ocensa_nb.data import synthetic
from ocensa_nb.data.canonical import normalise
from ocensa_nb.data.corrections import ID, SHEET, TEXT, Corrections, merge, read_corrections, write_corrections
from ocensa_nb.data.notices import labelled_rows, prepare, read
from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.evaluation.evaluate import evaluate
from ocensa_nb.evaluation.rows import read_rows
from ocensa_nb.files.notice_file import readable
from ocensa_nb.runs.manifest import CORRECTIONS
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train
from tests.helpers.crash import LONG

HEADS = ("modo", "causa", "prioridad")


@pytest.fixture(scope="module")
def file(csv):
    return read(csv)


@pytest.fixture(scope="module")
def frame(file):
    return labelled_rows(file).frame


def answers(rows):
    """Return corrections as `read_corrections` does, from (id, text, {head: class})."""
    table = pd.DataFrame(
        [{ID: number, TEXT: text, **dict.fromkeys(HEADS, ""), **right} for number, text, right in rows],
        index=range(2, len(rows) + 2),
    )
    return Corrections("correcciones.csv", table)


def of_rows(frame, rows, **right):
    return answers([(frame[ID][row], frame[TEXT][row], right) for row in rows])


def write(path, corrections):
    write_corrections(corrections.table, HEADS, path)
    return path


def test_correction_wins_over_the_label_of_the_file(file, frame):
    corrections = of_rows(frame, [3], prioridad="1-Critica", modo="Vibration (VIB)")
    found = labelled_rows(file, corrections).frame
    assert found.loc[3, ["modo", "prioridad"]].tolist() == ["Vibration (VIB)", "1-Critica"]
    assert found["causa"].equals(frame["causa"])
    others = found.index != 3
    assert found.loc[others, [*HEADS]].equals(frame.loc[others, [*HEADS]])


@pytest.mark.parametrize("written", ["vibration (vib)", "  VIBRATION  (VIB) ", "Víbration (VIB)"])
def test_class_is_recognised_without_case_and_accents(file, frame, written, tmp_path):
    path = write(tmp_path / "c.csv", of_rows(frame, [3], modo=written))
    found = labelled_rows(file, read_corrections(path, HEADS)).frame
    assert found["modo"][3] == "Vibration (VIB)"


def test_unknown_class_raises_error_with_row_and_nearest_class(frame):
    with pytest.raises(UserError, match=r"fila 2: en correcta_prioridad, .*«1-Critika».*¿Quiso decir «1-Critica»\?"):
        merge(frame, of_rows(frame, [3], prioridad="1-Critika"), HEADS)


def test_notice_that_is_not_in_the_file_is_added_if_all_labels_are_given(file, frame):
    whole = {head: frame[head][0] for head in HEADS}
    added = answers([("x1", "ruido en bomba", whole), ("x2", "fuga en brida", {"modo": whole["modo"]})])
    found = labelled_rows(file, added)
    assert found.frame[TEXT].iloc[len(frame) :].tolist() == ["ruido en bomba"]
    report = found.report.corrections
    assert (report.rows, report.added, report.incomplete) == (2, 1, ("x2",))
    assert "x2" in str(found.report)


def test_notice_with_known_id_and_other_text_is_added_and_named(file, frame):
    whole = {head: frame[head][0] for head in HEADS}
    rows = labelled_rows(file, answers([(frame[ID][7], "otro texto", whole)]))
    found = rows.frame
    assert rows.report.corrections.other_text == (frame[ID][7],)
    assert found.loc[7, [*HEADS]].equals(frame.loc[7, [*HEADS]])
    assert len(found) == len(frame) + 1


def test_rows_without_a_label_in_the_file_are_completed_or_left_out(csv, frame, tmp_path):
    table = pd.read_csv(csv, dtype=str)
    table.loc[[5, 6], "causa_falla"] = ""
    table.loc[6, "modo_falla"] = ""
    table.to_csv(tmp_path / "a.csv", index=False)
    without = read(tmp_path / "a.csv")
    found = labelled_rows(without, of_rows(frame, [5, 6], causa=frame["causa"][5]))
    assert len(found.frame) == len(labelled_rows(without).frame) + 1
    assert found.frame.loc[5, [*HEADS]].equals(frame.loc[5, [*HEADS]])
    report = found.report
    assert report.corrections.labelled == 1
    assert report.corrections.incomplete == (frame[ID][6],)
    assert report.without_label == {"modo": 1, "causa": 0, "prioridad": 0}


def test_two_different_corrections_of_a_notice_raise_error_with_both_rows(frame, tmp_path):
    table = pd.concat([of_rows(frame, [3], prioridad=right).table for right in ("1-Critica", "2-Alta")])
    with pytest.raises(UserError, match="las filas 2 y 3 corrigen el mismo aviso"):
        read_corrections(write(tmp_path / "c.csv", Corrections("", table)), HEADS)


def test_file_without_answers_or_columns_raises_user_error(frame, csv, tmp_path):
    with pytest.raises(UserError, match="no tiene ninguna corrección"):
        read_corrections(write(tmp_path / "c.csv", of_rows(frame, [3])), HEADS)
    with pytest.raises(UserError, match="no es un archivo de correcciones: le falta la columna texto"):
        read_corrections(csv, HEADS)


def test_sheet_of_the_workbook_is_read_and_empty_cells_are_not_corrections(frame, tmp_path):
    book = Workbook()
    book.active.append(["id_aviso", "descripcion"])
    sheet = book.create_sheet(SHEET)
    sheet.append([ID, TEXT, "pred1_modo", "correcta_modo", "correcta_causa", "correcta_prioridad"])
    sheet.append([int(frame[ID][0]), frame[TEXT][0], "x", None, None, "2-Alta"])
    sheet.append([int(frame[ID][1]), frame[TEXT][1], "x", None, None, None])
    book.save(tmp_path / "revisado.xlsx")
    found = read_corrections(tmp_path / "revisado.xlsx", HEADS).table
    assert found[[ID, "modo", "causa", "prioridad"]].to_numpy().tolist() == [[frame[ID][0], "", "", "2-Alta"]]


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_written_corrections_are_read_and_match_any_notice(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("c") / "c.csv"
    texts = [(f"a{k}{' '.join(a.split())}", f"t {' '.join(b.split())}") for k, (a, b) in enumerate(texts)]
    plain = readable(pd.DataFrame(texts, columns=[ID, TEXT]))[0].replace(CONTROL, " ", regex=True)
    frame = plain.assign(modo="X", causa="Y", prioridad="1")
    write(path, of_rows(frame, frame.index, modo="X"))
    try:
        corrections = read_corrections(path, HEADS)
    except UserError:  # the reader refuses some texts, such as those of a binary file
        return
    assert merge(frame, corrections, HEADS)[1].added == 0


@given(data=st.data(), rows=st.sets(st.integers(0, 399), min_size=1, max_size=40), seed=st.integers(0, 5))
@settings(max_examples=200 if LONG else 15, deadline=None)
def test_corrected_rows_leave_test_with_their_texts_and_no_other_row_whose_class_can_be_learnt(
    file, frame, config, data, rows, seed
):
    config = config.replace(seed=seed)
    before, head = prepare(file, config), data.draw(st.sampled_from(HEADS))
    emptied = data.draw(st.sampled_from([*sorted(set(frame[head])), ""]))  # a class that loses its training rows
    rows |= {row for row in before.split["train"] if frame[head][row] == emptied}
    right = data.draw(st.sampled_from(sorted(set(frame[head]) - {emptied})))
    found = prepare(file, config, of_rows(frame, sorted(rows), **{head: right}))
    plain = [normalise(text) for text in frame[TEXT]]
    corrected = {plain[row] for row in rows}
    sides = {name: {plain[row] for row in part} for name, part in found.split.items()}
    assert not corrected & sides["test"]
    assert not sides["train"] & sides["test"]
    assert not sides["val"] & sides["test"]
    assert not sides["train"] & sides["val"]
    assert sorted(np.concatenate(list(found.split.values()))) == list(range(len(frame)))
    assert set(found.split["test"]) <= set(before.split["test"])
    stays = {row for row in before.split["test"] if plain[row] not in corrected}
    learnt = [*before.split["train"], *rows]
    for left in stays - set(found.split["test"]):
        repeats = [row for row in frame.index if plain[row] == plain[left]]
        assert any(not np.isin(labels[repeats], labels[learnt]).all() for labels in found.labels.values())


def test_corrections_file_changes_the_data_but_not_the_config_fingerprint(csv, config, frame, tmp_path):
    path = write(tmp_path / "c.csv", of_rows(frame, [3], prioridad="1-Critica"))
    other = config.replace(corrections=str(path))
    assert other.fingerprint() == config.fingerprint()
    assert train.load_notices(other).fingerprint != train.load_notices(config).fingerprint


def test_run_keeps_a_verified_copy_and_is_evaluated_on_its_uncorrected_test_rows(csv, config, frame, tmp_path):
    path = write(tmp_path / "c.csv", of_rows(frame, range(40), prioridad="1-Critica"))
    own = config.replace(corrections=str(path), out=str(tmp_path / "run"), epochs=1)
    expected = train.load_notices(own)
    train.fit(own)
    path.unlink()
    run = Run.load(tmp_path / "run")
    found = evaluate(run)
    assert found.source == "las filas de prueba"
    assert found.ids == list(frame[ID].iloc[expected.split["test"]])
    assert not set(found.ids) & set(frame[ID][:40])
    assert found.metrics["modo_f1"] == pytest.approx(run.metrics["test"]["modo_f1"], abs=1e-6)
    assert json.loads((run.path / "manifest.json").read_text())["files"][CORRECTIONS]
    rows = read_rows(run, csv)[1]
    assert rows.texts == expected.texts
    for side, numbers in expected.split.items():
        assert rows.split[side].tolist() == numbers.tolist()
    (run.path / CORRECTIONS).write_text("otra cosa")
    with pytest.raises(UserError, match=r"corrections\.csv"):
        Run.load(run.path)


def test_corrected_run_on_another_file_is_evaluated_without_the_corrections(csv, config, frame, tmp_path):
    path = write(tmp_path / "c.csv", of_rows(frame, [3], prioridad="1-Critica"))
    run = train.fit(config.replace(corrections=str(path), out=str(tmp_path / "run"), epochs=1))
    other = tmp_path / "otro.csv"
    synthetic.write_csv(synthetic.generate(60, seed=9), other)
    assert len(evaluate(run, other).texts) + evaluate(run, other).left_out == 60


@pytest.mark.parametrize("damage", [lambda n: f"{n}.0", lambda n: f"00{n}"])
def test_correction_whose_number_went_through_a_spreadsheet_is_of_its_notice(file, frame, damage):
    changed = {"prioridad": "1-Critica" if frame["prioridad"][3] != "1-Critica" else "4-Baja"}
    rows = labelled_rows(file, answers([(damage(frame[ID][3]), frame[TEXT][3], changed)]))
    assert rows.frame["prioridad"][3] == changed["prioridad"]
    assert (rows.report.corrections.added, len(rows.frame)) == (0, len(frame))


@pytest.mark.parametrize("number", ["", "1,04E+07"])
def test_correction_without_its_number_is_of_the_only_notice_with_its_text(file, frame, number):
    row = next(row for row in frame.index if (frame[TEXT] == frame[TEXT][row]).sum() == 1)
    changed = {"prioridad": "1-Critica" if frame["prioridad"][row] != "1-Critica" else "4-Baja"}
    rows = labelled_rows(file, answers([(number, frame[TEXT][row], changed)]))
    assert rows.frame["prioridad"][row] == changed["prioridad"]
    assert len(rows.frame) == len(frame)


def test_correction_that_could_be_of_several_notices_is_counted_with_its_row_and_not_used(csv, frame, tmp_path):
    table = pd.read_csv(csv, dtype=str)
    table.loc[4] = table.loc[3]
    table.loc[4, "id_aviso"] = "otro-2"
    table.to_csv(tmp_path / "a.csv", index=False)
    twice = read(tmp_path / "a.csv")
    whole = {head: frame[head][0] for head in HEADS}
    rows = labelled_rows(twice, answers([("", twice.texts[3], whole)]))
    assert rows.frame[[*HEADS]].equals(labelled_rows(twice).frame[[*HEADS]])
    assert rows.report.corrections.lost == (2,)
    assert "(fila 2). Complete su id_aviso y su texto" in str(rows.report)


def test_correction_with_the_text_of_another_notice_is_added_and_named(file, frame):
    whole = {head: frame[head][0] for head in HEADS}
    rows = labelled_rows(file, answers([("otro-1", frame[TEXT][3], whole)]))
    assert rows.report.corrections.other_id == ("otro-1",)
    assert "otro-1" in str(rows.report)


def on_cells(column, change):
    """Return an edit of the cells of a column, by its letter, below the titles."""

    def edit(sheet):
        for row in range(2, sheet.max_row + 1):
            sheet[f"{column}{row}"] = change(sheet[f"{column}{row}"].value)

    return edit


def sort_by_text(sheet):
    rows = sorted(([cell.value for cell in row] for row in sheet.iter_rows(min_row=2)), key=lambda row: row[1])
    for number, row in enumerate(rows, 2):
        for column, value in enumerate(row, 1):
            sheet.cell(number, column).value = value


def hide_rows(sheet):
    sheet.auto_filter.ref = sheet.dimensions
    sheet.row_dimensions[3].hidden = True


def add_titles_above(sheet):
    sheet.insert_rows(1, 2)
    sheet["A1"] = "Revisado por Ana"


def add_column(number):
    def edit(sheet):
        sheet.insert_cols(number)
        sheet.cell(1, number).value = "nota"
        sheet.cell(2, number).value = "ver con turno"

    return edit


def retitle(cell, title):
    return lambda sheet: sheet.__setitem__(cell, title)


def leave_blank_rows(sheet):
    sheet.insert_rows(4, 3)


def delete_rows(sheet):
    sheet.delete_rows(3, 2)


def delete_other_columns(sheet):
    sheet.delete_cols(4, 2)  # the predictions


def rename_sheet(sheet):
    sheet.title = "Dudosos Ana"


# As people edit the workbook of a review, with what is read of it: every answer, or a message.
EDITS = {
    "nothing": (lambda sheet: None, 8),
    "sorted": (sort_by_text, 8),
    "filtered": (hide_rows, 8),
    "rows deleted": (delete_rows, 6),
    "titles above": (add_titles_above, 8),
    "column at the left": (add_column(1), 8),
    "column within": (add_column(3), 8),
    "columns deleted": (delete_other_columns, 8),
    "blank rows": (leave_blank_rows, 8),
    "sheet renamed": (rename_sheet, 8),
    "title in another case": (retitle("F1", " Correcta  PRIORIDAD "), 8),
    "class with spaces": (on_cells("F", lambda name: f"  {name}  "), 8),
    "class in another case": (on_cells("F", str.upper), 8),
    "class typed without accents": (on_cells("F", lambda name: name.replace("í", "i")), 8),
    "ids as numbers": (on_cells("A", int), 8),
    "ids with decimals": (on_cells("A", lambda number: f"{number}.0"), 8),
    "ids with an apostrophe": (on_cells("A", lambda number: f"'{number}"), 8),
    "ids that lost digits": (on_cells("A", lambda number: "1,00E+07"), 8),
    "ids emptied": (on_cells("A", lambda number: None), 8),
    "text in several lines": (on_cells("B", lambda text: text.replace(" ", "\n ", 2)), 8),
    "text emptied": (retitle("B3", None), 7),
    "title renamed": (retitle("F1", "Revisión Ana"), "la columna «Revisión Ana» tiene clases de prioridad"),
    "answers in a new column": (
        lambda sheet: sheet.move_range("F2:F9", cols=1) or retitle("G1", "ok")(sheet),
        "la columna «ok» tiene clases de prioridad",
    ),
    "column twice": (retitle("E1", "Correcta_Prioridad"), "tiene dos columnas correcta_prioridad"),
    "error value": (retitle("F3", "#N/A"), "filas 3 es un error"),
    "error value in Spanish": (retitle("F4", "#¡REF!"), "filas 4 es un error"),
    "formula without a value": (on_cells("F", lambda name: "=E2"), "filas 2, 3, 4, 5, 6, 7, 8, 9 es un error"),
    "unknown class": (retitle("F3", "9-Otra"), "fila 3: en correcta_prioridad, la clase «9-Otra» no existe"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_answers_of_an_edited_workbook_are_used_or_refused_or_counted_with_their_row(
    file, frame, tmp_path, edit, suffix
):
    change, expected = EDITS[edit]
    texts = frame[TEXT].value_counts()
    rows = [row for row in frame.index if texts[frame[TEXT][row]] == 1][:8]
    right = {row: "1-Critica" if frame["prioridad"][row] != "1-Critica" else "4-Baja" for row in rows}
    book = Workbook()
    book.active.append(["id_aviso", "descripcion"])
    sheet = book.create_sheet(SHEET)
    sheet.append([ID, TEXT, "correcta_modo", "pred1_modo", "conf1_modo", "correcta_prioridad"])
    for row in rows:
        sheet.append([frame[ID][row], frame[TEXT][row], frame["modo"][row], frame["modo"][row], 0.5, right[row]])
    change(sheet)
    path = tmp_path / f"revisado{suffix}"
    if suffix == ".csv":  # as LibreOffice and Excel save it
        lines = [["" if cell.value is None else cell.value for cell in row] for row in sheet]
        pd.DataFrame(lines).to_csv(path, sep=";", header=False, index=False, encoding="cp1252")
    else:
        book.save(path)
    if suffix == ".csv" and edit == "formula without a value":
        expected = "la clase «=E2» no existe"
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            labelled_rows(file, read_corrections(path, HEADS))
        return
    found = labelled_rows(file, read_corrections(path, HEADS))
    report, kept = found.report.corrections, found.frame
    assert sum(kept["prioridad"][row] == right[row] for row in rows) == expected
    assert (report.added, report.changed["prioridad"], len(kept)) == (0, expected, len(frame))
    assert report.lost == ((3,) if edit == "text emptied" else ())


def test_two_answers_to_a_notice_under_its_number_and_without_it_raise_error_with_both_rows(file, frame):
    texts = frame[TEXT].value_counts()
    row = next(row for row in frame.index if texts[frame[TEXT][row]] == 1)
    twice = answers(
        [(number, frame[TEXT][row], {"prioridad": p}) for number, p in ((frame[ID][row], "2-Alta"), ("", "3-Media"))]
    )
    with pytest.raises(UserError, match="las filas 2 y 3 corrigen el mismo aviso"):
        labelled_rows(file, twice)


@pytest.mark.parametrize("text", ["pase en valvula; -revisar", "- fuga\n= ver", "bomba |@turno"])
def test_text_that_a_csv_protects_is_of_its_notice(tmp_path, text):
    frame = pd.DataFrame({ID: ["7"], TEXT: [text], "modo": ["Fuga; -otra"], "causa": ["Y"], "prioridad": ["1"]})
    path = write(tmp_path / "c.csv", of_rows(frame, [0], modo="Fuga; -otra"))
    merged, report = merge(frame, read_corrections(path, HEADS), HEADS)
    assert (len(merged), report.added, report.other_text) == (1, 0, ())
