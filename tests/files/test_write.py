"""Tables on disk: bytes of a CSV, look of a workbook, and names of files."""

import io

import numpy as np
import openpyxl
import pandas as pd
import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import SPANISH_EXCEL, CsvFormat
from ocensa_nb.files.write import WIDEST, book_of, free_table, write_table

TABLE = pd.DataFrame({"descripción": ["válvula", "a;b"], "conf": np.array([1 / 3, np.nan], np.float32), "n": [1, 2]})


def lines(path):
    return path.read_bytes().replace(b"\r\n", b"\n").splitlines()


def test_csv_by_default_has_commas_points_and_a_byte_order_mark(tmp_path):
    path = write_table(TABLE, tmp_path / "a.csv")
    assert lines(path) == [*"\ufeffdescripción,conf,n\nválvula,0.3333,1\na;b,,2".encode().splitlines()]


def test_csv_in_windows_1252_has_its_separator_decimal_mark_and_bytes(tmp_path):
    path = write_table(TABLE, tmp_path / "a.csv", CsvFormat(";", "cp1252", ","))
    assert lines(path) == [*'descripción;conf;n\nválvula;0,3333;1\n"a;b";;2'.encode("cp1252").splitlines()]


def test_csv_in_utf_16_begins_with_one_byte_order_mark(tmp_path):
    path = write_table(TABLE, tmp_path / "a.csv", CsvFormat("\t", "utf-16", ","))
    text = path.read_bytes().decode("utf-16")
    assert text.splitlines()[:2] == ["descripción\tconf\tn", "válvula\t0,3333\t1"]
    assert "\ufeff" not in text


def test_csv_whose_separator_is_the_decimal_mark_quotes_its_numbers(tmp_path):
    path = write_table(TABLE, tmp_path / "a.csv", CsvFormat(",", "utf-8-sig", ","))
    assert lines(path)[1] == 'válvula,"0,3333",1'.encode()


def test_csv_with_a_character_that_its_encoding_lacks_is_utf_8_and_names_it(tmp_path, capsys):
    table = pd.DataFrame({"a": ["válvula", "presión ≥ 5", "→"]})
    path = write_table(table, tmp_path / "a.csv", CsvFormat(";", "cp1252", ","))
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert list(pd.read_csv(path, sep=";")["a"]) == list(table["a"])
    assert "se escribe en UTF-8" in (said := capsys.readouterr().out)
    assert "en Windows-1252 no existe «≥»" in said


def test_floats_of_any_table_are_limited_to_four_decimals(tmp_path):
    table = pd.DataFrame({"a": [2 / 3], "b": np.array([1 / 3], np.float32), "c": [12.5]})
    assert lines(write_table(table, tmp_path / "a.csv", SPANISH_EXCEL))[1] == b"0,6667;0,3333;12,5"
    cells = next(openpyxl.load_workbook(write_table(table, tmp_path / "a.xlsx")).active.iter_rows(min_row=2))
    assert [cell.value for cell in cells] == [0.6667, 0.3333, 12.5]


def test_workbook_has_a_frozen_header_filters_and_widths_of_its_texts(tmp_path):
    table = pd.DataFrame({"id": ["1"], "texto": ["x" * 30], "largo": ["y" * 500]})
    sheet = openpyxl.load_workbook(write_table(table, tmp_path / "a.xlsx")).active
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", "A1:C2")
    widths = [sheet.column_dimensions[letter].width for letter in "ABC"]
    assert widths[0] < widths[1] < widths[2] == WIDEST
    assert widths[1] >= 30


def test_workbook_leaves_the_cell_of_a_missing_number_empty(tmp_path):
    sheet = openpyxl.load_workbook(write_table(TABLE, tmp_path / "a.xlsx")).active
    assert [cell.value for cell in sheet["B"]] == ["conf", 0.3333, None]


def test_workbook_of_a_table_without_rows_is_its_header(tmp_path):
    sheet = openpyxl.load_workbook(write_table(TABLE.head(0), tmp_path / "a.xlsx")).active
    assert [cell.value for cell in sheet[1]] == list(TABLE)


@pytest.mark.parametrize(
    ("out", "kind", "like", "name"),
    [
        ("a.csv", "auto", ".xlsx", "a.csv"),
        ("a.XLSX", "xlsx", ".csv", "a.XLSX"),
        ("a", "auto", ".xlsx", "a.xlsx"),
        ("a", "csv", ".xlsx", "a.csv"),
        ("a", "xlsx", "", "a.xlsx"),
    ],
)
def test_free_table_suffix_is_given_or_that_of_the_format(tmp_path, out, kind, like, name):
    assert free_table(tmp_path / out, kind, like) == tmp_path / name


@pytest.mark.parametrize(
    ("out", "kind", "message"),
    [
        ("a.csv", "xlsx", r"termina en \.csv, pero el formato pedido es xlsx"),
        ("a.xlsx", "csv", r"termina en \.xlsx, pero el formato pedido es csv"),
        ("a.xlsm", "xlsx", r"debe terminar en \.csv o \.xlsx"),
        ("a", "auto", r"debe terminar en \.csv o \.xlsx"),
        ("taken", "csv", "Ya existe"),
    ],
)
def test_free_table_that_contradicts_its_format_or_exists_is_refused(tmp_path, out, kind, message):
    (tmp_path / "taken.csv").touch()
    with pytest.raises(UserError, match=message):
        free_table(tmp_path / out, kind)


def test_shares_of_every_table_of_a_sheet_are_percentages_under_bold_titles(tmp_path):
    table = pd.DataFrame({"clase": ["a", "b"], "parte de los avisos": [0.25, 0.75]})
    sheets = {"Resumen": [("", table), ("Otra vez", table)]}
    sheet = openpyxl.load_workbook(io.BytesIO(book_of(sheets, tmp_path / "a.xlsx")))["Resumen"]
    titles = [cell for cell in sheet["B"] if cell.value == "parte de los avisos"]
    shares = [cell for cell in sheet["B"] if isinstance(cell.value, float)]
    assert [cell.font.b for cell in titles] == [True, True]
    assert [cell.number_format for cell in shares] == ["0%"] * 4
