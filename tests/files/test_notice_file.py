"""The format in which the table of a CSV is written back."""

import pandas as pd
import pytest

from ocensa_nb.files.notice_file import SPANISH_EXCEL, CsvFormat, detect_format, read_table


@pytest.mark.parametrize(
    ("cells", "separator", "decimal"),
    [
        (["12,5", "3"], ";", ","),
        (["12.5", "3"], ";", "."),
        (["12,5", "3"], ",", ","),
        (["1.234,56"], "|", ","),
        (["1,234.56"], "|", "."),
        ([" 12.50- "], "\t", "."),
        (["0.125"], ";", "."),
        (["1.234"], ";", ","),  # thousands, perhaps
        (["1,234"], ",", "."),
        (["01.02.2026", "v1.2", "10"], ";", ","),
        (["a"], ",", "."),
        (["a"], "\t", ","),
        (["1.5", "2,5", "3,5"], ";", ","),
    ],
)
def test_decimal_mark_is_that_of_most_numbers_or_the_one_of_the_separator(cells, separator, decimal):
    assert detect_format(pd.DataFrame({"a": cells}), separator, "cp1252").decimal == decimal


def test_decimal_mark_of_a_table_without_rows_or_columns_is_the_one_of_the_separator():
    assert detect_format(pd.DataFrame(), ";", "cp1252").decimal == ","


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("utf-8", "utf-8-sig"), ("utf-8-sig", "utf-8-sig"), ("cp1252", "cp1252"), ("utf-16", "utf-16")],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_read_table_gives_the_format_of_the_file(tmp_path, separator, encoding, written):
    path = tmp_path / "a.csv"
    path.write_text(f"descripcion{separator}horas\nválvula{separator}2.5\n", encoding=encoding)
    assert read_table(path).csv_format == CsvFormat(separator, written, ".")


def test_read_table_of_a_workbook_gives_the_csv_format_of_excel_in_spanish(tmp_path):
    pd.DataFrame({"a": ["x"]}).to_excel(tmp_path / "a.xlsx", index=False)
    assert read_table(tmp_path / "a.xlsx").csv_format == SPANISH_EXCEL
