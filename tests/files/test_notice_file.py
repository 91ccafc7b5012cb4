"""The format in which the table of a CSV is written back."""

import io
import warnings
import zipfile
from datetime import datetime, timedelta

import pandas as pd
import pytest
from openpyxl import Workbook

from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import ERROR, SPANISH_EXCEL, CsvFormat, detect_format, read_table


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
    assert read_table(path).csv_format == CsvFormat(separator, written, ".", quoted=False)


def test_read_table_of_a_workbook_gives_the_csv_format_of_excel_in_spanish(tmp_path):
    pd.DataFrame({"a": ["x"]}).to_excel(tmp_path / "a.xlsx", index=False)
    assert read_table(tmp_path / "a.xlsx").csv_format == SPANISH_EXCEL


def save(path, *rows):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("_x000D_", ""),
        ("Fuga_x000D_", "Fuga"),
        ("_xD83D__xDE00_", "😀"),
        ("Fuga_xD83D_", "Fuga�"),
        ('="007"', "007"),
        ("'007", "007"),
        ("'=1+1", "=1+1"),
        ("d'alta", "d'alta"),
        ("#¡REF!", ""),
        ("#N/D", ""),
        ("#DIV/0!", ""),
        ("#¡ERROR!", ""),
        ("#VALOR!", ""),
        ("Err:502", ""),
        ("########", ""),
        ("#2", "#2"),
        ("Error 5", "Error 5"),
        ("N/A", ""),
    ],
)
def test_cells_are_what_was_meant_and_the_table_is_what_came(tmp_path, cell, meant):
    quoted = cell.replace('"', '""')
    (tmp_path / "a.csv").write_text(f'a;b\n1;"{quoted}"\n', encoding="utf-8")
    file = read_table(tmp_path / "a.csv")
    assert (file.cells["b"][0], file.table["b"][0]) == (meant, cell)
    assert ("leídas vacías: 1" in file.notes) == (bool(ERROR.fullmatch(cell.lower())))


def test_values_of_a_book_are_those_that_excel_shows_in_spanish(tmp_path):
    moments = datetime(2026, 1, 31), datetime(2026, 1, 31, 14, 5)
    path = save(tmp_path / "a.xlsx", ["a", "b", "c", "d", "e"], [*moments, True, 2.0, 0.25])
    assert read_table(path).table.iloc[0].tolist() == ["31/01/2026", "31/01/2026 14:05", "VERDADERO", "2", "0,25"]


def test_times_and_numbers_of_a_book_have_no_english(tmp_path):
    path = save(tmp_path / "a.xlsx", ["a", "b", "c"], [timedelta(hours=30, minutes=5), 0.1 + 0.2, 1234.5])
    assert read_table(path).table.iloc[0].tolist() == ["30:05", "0,3", "1234,5"]


def test_title_wrapped_in_its_cell_is_one_line(tmp_path):
    path = save(tmp_path / "a.xlsx", ["Causa_x000D_\nde falla", "Texto\nbreve "], ["x", "y"])
    (tmp_path / "a.csv").write_text('"Causa\nde falla";"Texto\r\nbreve"\r\nx;y\r\n', encoding="utf-8")
    for name in (path, tmp_path / "a.csv"):
        assert read_table(name).table.columns.tolist() == ["Causa de falla", "Texto breve"]


def test_sheet_behind_a_chart_sheet_is_read(tmp_path):
    book = Workbook()
    book.active.append(["a"])
    book.active.append(["x"])
    book.create_chartsheet(index=0)
    book.save(tmp_path / "a.xlsx")
    assert read_table(tmp_path / "a.xlsx").table["a"].tolist() == ["x"]


def test_formula_without_a_value_is_named(tmp_path):
    path = save(tmp_path / "a.xlsx", ["a", "b"], ["x", "=1+1"])
    assert "fórmula que ningún programa ha calculado: 1 (B2)" in read_table(path).notes


def test_sheet_with_the_titles_is_read_and_named(tmp_path):
    book = Workbook()
    book.active.append(["Informe de mayo"])
    book.create_sheet("Avisos").append(["descripcion", "causa"])
    book["Avisos"].append(["fuga", "sello"])
    book.save(tmp_path / "a.xlsx")
    file = read_table(tmp_path / "a.xlsx", lambda cell: cell in ("descripcion", "causa"))
    assert file.table["descripcion"].tolist() == ["fuga"]
    assert "hoja «Avisos» (hay además Sheet)" in file.notes


def test_warnings_of_openpyxl_are_not_shown(tmp_path):
    path = save(tmp_path / "a.xlsx", ["a"], ["x"])
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    parts["xl/styles.xml"] = (
        parts["xl/styles.xml"].replace(b"<cellStyles>", b"<cellStyles count='0'>").split(b"<cellStyles")[0]
        + b"</styleSheet>"
    )
    with zipfile.ZipFile(path, "w") as book:
        for name, part in parts.items():
            book.writestr(name, part)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_table(path).table["a"].tolist() == ["x"]


def zipped(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


OLE = b"\xd0\xcf\x11\xe0" + bytes(600)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.xls", b"<html><body><table><tr><td>a</td></tr></table>", "una página HTML"),
        ("a.xls", b"\xef\xbb\xbf\r\n<TABLE border=1>", "una página HTML"),
        ("a.xls", b"<!-- report --><table>", "una página HTML"),
        ("a.xls", b"MIME-Version: 1.0\r\nContent-Type: multipart/related", "una página HTML"),
        ("a.xls", b'<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?>', "un archivo XML"),
        ("a.xlsb", zipped("xl/workbook.bin"), r"un libro binario de Excel \(.xlsb\)"),
        ("a.ods", zipped("content.xml"), r"un libro de LibreOffice \(.ods\)"),
        ("a.xlsx", OLE, r"un libro con contraseña \(quítesela\)"),
        ("a.xls", OLE + "EncryptedPackage".encode("utf-16-le"), r"un libro con contraseña \(quítesela\)"),
        ("a.xls", OLE, r"un libro de Excel 97-2003 \(.xls\)"),
    ],
)
def test_other_kind_of_book_is_refused_by_its_name_with_a_way_out(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"es {kind}.*guárdelo como .xlsx"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08", "es un archivo comprimido.*Extraiga"),
        (b"Rar!\x1a\x07", "es un archivo comprimido.*Extraiga"),
        (zipped("avisos.csv"), "es un archivo comprimido.*Extraiga"),
    ],
)
def test_file_that_is_no_table_is_refused_by_its_name_with_a_way_out(tmp_path, content, said):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_table(tmp_path / "a.csv")


def test_file_is_read_by_its_content_whatever_its_name(tmp_path):
    save(tmp_path / "a.xlsx", ["a"], ["x"]).rename(tmp_path / "a.csv")
    (tmp_path / "b.xls").write_bytes("a\tb\nñ\t1\n".encode("utf-16"))
    assert read_table(tmp_path / "a.csv").table["a"].tolist() == ["x"]
    assert read_table(tmp_path / "b.xls").table["a"].tolist() == ["ñ"]
