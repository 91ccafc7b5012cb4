"""A copy of the user's file with columns more: without them, it is the file."""

import csv
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook
from openpyxl.styles import Font, PatternFill

from ocensa_nb.errors import UserError
from ocensa_nb.files.append import append_columns
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.files.write import book_of

BOM = "\ufeff".encode().decode("latin-1")  # which a copy in UTF-8 gets, for Excel
EXAMPLES = 500 if os.environ.get("OCENSA_LONG") else 40
cells = st.text(
    st.sampled_from("ab1ñ€\"'=,;\n |_") | st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=6
)
tables = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6)
)


def added(rows):
    return pd.DataFrame({"pred_modo": ["Fuga"] * rows, "conf_modo": [0.51234] * (rows - 1) + [np.nan]})


def write_copy(source, target, sheets=b""):
    file = read_table(source, lambda cell: cell.startswith("t"))
    target.unlink(missing_ok=True)
    append_columns(file, added(len(file.table)), target, sheets)
    return file


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    tables,
    st.sampled_from(",;\t|"),
    st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n\n", "Reporte de avisos\n"]),
    st.booleans(),
)
def test_csv_without_the_new_columns_is_the_file(tmp_path_factory, rows, separator, encoding, end, above, quote_all):
    folder = tmp_path_factory.mktemp("csv")
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    )
    writer.writerows([[f"t{number}" for number in range(len(rows[0]))], *rows])
    content = (above.replace("\n", end) + text.getvalue()).encode(encoding)
    (folder / "a.csv").write_bytes(content)
    try:
        file = write_copy(folder / "a.csv", folder / "b.csv")
    except UserError:
        return  # refused with a message; what is read must come back
    by_byte = "utf-16" if encoding == "utf-16" else "latin-1"
    before, after = content.decode(by_byte), (folder / "b.csv").read_bytes().decode(by_byte)
    for line in (separator + s for s in (f"pred_modo{separator}conf_modo", *_values(file, separator))):
        assert line in after
        after = after.replace(line, "", 1)
    assert after.removeprefix(BOM) == before.removeprefix(BOM)


def _values(file, separator):
    decimal = file.csv_format.decimal
    confidence = f"0{decimal}5123"
    if decimal == separator:
        confidence = f'"{confidence}"'
    return [f"Fuga{separator}{confidence}"] * (len(file.table) - 1) + [f"Fuga{separator}"]


def test_short_rows_keep_the_new_columns_under_their_titles(tmp_path):
    (tmp_path / "a.csv").write_text("ta;tb;tc\n1;2;3\n4\n", encoding="utf-8")
    write_copy(tmp_path / "a.csv", tmp_path / "b.csv")
    lines = (tmp_path / "b.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines == ["ta;tb;tc;pred_modo;conf_modo", "1;2;3;Fuga;0,5123", "4;;;Fuga;"]


values = (
    st.none() | cells.filter(str.strip) | st.integers(-9, 10**12) | st.floats(-1e6, 1e6) | st.booleans() | st.dates()
)


books = (st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 2), st.booleans())


def write_book(path, rows, above, second):
    book = Workbook()
    sheet = book.active
    for _ in range(above):
        sheet.append(["Reporte"])
    sheet.append(["ta", "tb", "tc"])
    for number, row in enumerate(rows):
        sheet.append([f"x{number}", *row])
    sheet["B1"].number_format, sheet.column_dimensions["B"].width, sheet.freeze_panes = "0%", 33, "A2"
    sheet.auto_filter.ref = sheet.dimensions
    if second:
        book.create_sheet("Otra").append(["x"])
    sheet["B2"].font, sheet["C1"].fill = Font(italic=True), PatternFill("solid", fgColor="FF0000")
    book.save(path)


def changed_and_new_parts(before, after):
    with zipfile.ZipFile(before) as before, zipfile.ZipFile(after) as after:
        old, new = before.namelist(), after.namelist()
        assert new[: len(old)] == old
        return [name for name in old if before.read(name) != after.read(name)], len(new) - len(old)


def assert_same_cells(old, new):
    for row in old.iter_rows():
        for cell in row:
            copy = new.cell(cell.row, cell.column)
            assert (copy.value, copy.number_format) == (cell.value, cell.number_format)
            assert [repr(style) for style in (copy.font, copy.fill)] == [repr(cell.font), repr(cell.fill)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(*books)
def test_book_without_the_new_cells_is_the_book(tmp_path_factory, rows, above, second):
    folder = tmp_path_factory.mktemp("book")
    write_book(folder / "a.xlsx", rows, above, second)
    write_copy(folder / "a.xlsx", folder / "b.xlsx")
    assert changed_and_new_parts(folder / "a.xlsx", folder / "b.xlsx") == (["xl/worksheets/sheet1.xml"], 0)
    old, new = load_workbook(folder / "a.xlsx").active, load_workbook(folder / "b.xlsx").active
    assert_same_cells(old, new)
    last = old.max_column
    titles = [new.cell(above + 1, last + 1 + place).value for place in range(2)]
    assert titles == ["pred_modo", "conf_modo"]
    assert [new.cell(above + 2, last + 1).value, new.cell(above + 1 + len(rows), last + 2).value] == ["Fuga", None]
    assert new.column_dimensions["B"].width == 33
    assert new.freeze_panes == "A2"


@settings(max_examples=EXAMPLES, deadline=None)
@given(*books)
def test_book_without_the_new_sheets_is_the_book(tmp_path_factory, rows, above, second):
    folder = tmp_path_factory.mktemp("book")
    write_book(folder / "a.xlsx", rows, above, second)
    write_copy(folder / "a.xlsx", folder / "b.xlsx", SHEETS)
    changed, new = changed_and_new_parts(folder / "a.xlsx", folder / "b.xlsx")
    parts = {"[Content_Types].xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml"}
    assert (set(changed), new) == (parts | {"xl/worksheets/sheet1.xml"}, 2)
    before, after = load_workbook(folder / "a.xlsx"), load_workbook(folder / "b.xlsx")
    assert after.sheetnames == [*before.sheetnames, "Dudosos", "Clases «&»"]
    assert after.active.title == before.active.title
    assert not any(after[name].sheet_view.tabSelected for name in after.sheetnames[-2:])
    for sheet in before:
        assert_same_cells(sheet, after[sheet.title])
    sheet = after["Dudosos"]
    assert [[cell.value for cell in row] for row in sheet] == [["a", "b"], ["=1+1 <c>", 0.5]]
    assert [sheet["A1"].font.b, sheet["B2"].number_format, sheet["B2"].fill.fgColor.rgb] == [True, "0.00", "00FFF2CC"]
    assert (sheet["A2"].data_type, after["Clases «&»"].sheet_state) == ("s", "hidden")


def finish(book):
    book["Dudosos"]["A1"].font = Font(bold=True)
    book["Dudosos"]["B2"].number_format, book["Dudosos"]["B2"].fill = "0.00", PatternFill("solid", fgColor="FFF2CC")
    book["Clases «&»"].sheet_state = "hidden"


SHEETS = book_of(
    {
        "Dudosos": [("", pd.DataFrame({"a": ["=1+1 <c>"], "b": [0.5]}))],
        "Clases «&»": [("", pd.DataFrame({"a": ["x"]}))],
    },
    Path("a.xlsx"),
    finish,
)


@pytest.mark.parametrize("prefix", ["", "x:"])
def test_sheets_of_a_book_with_other_prefixes_or_without_styles_are_added(tmp_path, prefix):
    write_book(tmp_path / "a.xlsx", [[1, 2, 3]], 0, False)
    with zipfile.ZipFile(tmp_path / "a.xlsx") as before, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as other:
        for name in before.namelist():
            part = before.read(name)
            if prefix and name in ("xl/workbook.xml", "xl/styles.xml"):
                part = re.sub(rb"<(/?)(?=[a-zA-Z])", rb"<\1x:", part).replace(b" xmlns=", b" xmlns:x=")
            if not prefix:
                part = re.sub(rb' s="\d+"', b"", part)
            if prefix or name != "xl/styles.xml":
                other.writestr(name, part)
    write_copy(tmp_path / "b.xlsx", tmp_path / "c.xlsx", SHEETS)
    sheet = load_workbook(tmp_path / "c.xlsx")["Dudosos"]
    assert sheet["A2"].value == "=1+1 <c>"
    assert sheet["B2"].number_format == ("0.00" if prefix else "General")


def test_file_that_has_changed_meanwhile_raises_user_error_and_writes_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("ta,tb\n1,2\n3,4\n", encoding="utf-8")
    file = read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("ta,tb\n", encoding="utf-8")
    with pytest.raises(UserError, match="ha cambiado desde que se leyó"):
        append_columns(file, added(2), tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()
