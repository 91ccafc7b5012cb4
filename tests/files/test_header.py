"""Titles under other rows are found; a file with its titles in the first row is read as before."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from ocensa_nb.errors import UserError
from ocensa_nb.files.header import SCANNED_ROWS, find_header
from ocensa_nb.files.notice_file import read_table

TITLES = ["Aviso", "Texto breve", "Modo de falla", "Prioridad"]
ROWS = [["10", "fuga, en válvula", "Wear", "2-Alta"], ["11", "ruido; motor", "Vibration", "3-Media"]] * 3
# Rows above the titles, by name: as a report, a SAP list and a person write them.
ABOVE = {
    "one title": [["Reporte de avisos 2024"]],
    "title and blank row": [["Reporte de avisos, planta norte; 2024"], []],
    "title lines": [["OLEODUCTO DEL NORTE"], ["Reporte de avisos 2024"], ["Fecha: 3/2/2024"]],
    "parameters": [["Centro", "CUS"], ["Equipo", "P-101"], []],
    "merged groups": [["Datos del aviso", "", "Clasificación", ""]],
    "merged groups named as titles": [["Prioridad", "", "", ""]],
    "merged title": [["Reporte de avisos", "", "", ""], ["", "", "", ""]],
    "separator mark": [["sep="]],
    "blank rows": [[], []],
}


def known(name):
    return name in TITLES


def nothing(name):
    return False


def write(path, rows, separator=";", encoding="utf-8-sig"):
    if path.suffix == ".xlsx":
        book = Workbook()
        for number, row in enumerate(rows, 1):
            for column, cell in enumerate(row, 1):
                book.active.cell(number, column).value = cell or None
        book.save(path)
    else:
        quoted = [separator.join(f'"{cell}"' if set(cell) & set(',;\t|"') else cell for cell in row) for row in rows]
        path.write_text("\r\n".join(quoted) + "\r\n", encoding=encoding, newline="")
    return path


@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("form", ["a.xlsx", ",", ";", "\t"])
def test_read_table_with_titles_under_other_rows_reads_from_them_and_says_so(tmp_path, form, above):
    path = tmp_path / (form if form == "a.xlsx" else "a.csv")
    rows = [*ABOVE[above], TITLES, *ROWS]
    file = read_table(write(path, rows, form[:1]), known)
    assert list(file.table.columns) == TITLES
    assert file.table.to_numpy().tolist() == ROWS
    skipped = len(ABOVE[above])
    assert file.first_row == skipped + 2
    assert f"los títulos están en la fila {skipped + 1}; se salt" in file.notes
    if form != "a.xlsx":
        assert file.csv_format.separator == form


@pytest.mark.parametrize("above", ["one title", "title lines", "parameters", "merged title", "blank rows"])
@pytest.mark.parametrize("form", ["a.xlsx", ",", ";"])
def test_read_table_with_unknown_titles_under_sparse_rows_finds_them_by_their_shape(tmp_path, form, above):
    path = tmp_path / (form if form == "a.xlsx" else "a.csv")
    titles = ["Consecutivo", "Detalle", "Tipo", "Urgencia"]
    table = read_table(write(path, [*ABOVE[above], titles, *ROWS], form[:1])).table
    assert list(table.columns) == titles
    assert table.to_numpy().tolist() == ROWS


def test_read_table_with_a_title_line_in_quotes_of_two_lines_counts_rows_not_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"Reporte\nde avisos"\n\nAviso;Texto breve\n1;fuga\n', encoding="utf-8")
    file = read_table(path, known)
    assert file.table.to_dict("list") == {"Aviso": ["1"], "Texto breve": ["fuga"]}
    assert "en la fila 3; se saltaron 2 filas" in file.notes


def test_read_table_with_one_row_skipped_says_it_in_singular(tmp_path):
    assert "se saltó 1 fila" in read_table(write(tmp_path / "a.csv", [["Reporte"], TITLES, *ROWS]), known).notes


def test_read_table_with_only_one_column_under_a_title_line_reads_it(tmp_path):
    table = read_table(write(tmp_path / "a.csv", [["Reporte de avisos"], [], ["Texto breve"], ["fuga"]]), known).table
    assert table.to_dict("list") == {"Texto breve": ["fuga"]}


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_read_table_with_titles_after_many_rows_raises_user_error_naming_the_row(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", [["Nota"]] * 30 + [TITLES, *ROWS])
    with pytest.raises(UserError, match="los títulos parecen estar en la fila 31"):
        read_table(path, known)


@pytest.mark.parametrize("form", ["a.xlsx", ",", ";"])
def test_read_table_with_unknown_titles_over_a_known_one_among_the_data_skips_nothing(tmp_path, form):
    rows = [["Número", "Detalle", "Clase"], ["1", "fuga", "Otros"], ["2", "Aviso", "Bomba"], ["3", "ruido", "Motor"]]
    path = tmp_path / (form if form == "a.xlsx" else "a.csv")
    assert list(read_table(write(path, rows, form[:1]), known).table.columns) == rows[0]


NORMAL = {
    "a title among the data": [TITLES, ["Aviso", "Texto breve", "Modo de falla", "Prioridad"], *ROWS],
    "few known titles and full data": [["Texto breve", "b", "c"], ["Aviso", "Texto breve", "Prioridad"]],
    "one column": [["Texto breve"], ["fuga"], ["Aviso"]],
    "titles missing": [["", "Texto breve", "", "x"], ["a", "b", "c", "d"], ["e", "f", "g", "h"]],
    "known title in a sparse row": [["Texto breve", "", "", ""], ["a", "b", "c", "d"], ["e", "f", "g", "h"]],
    "known titles among the data under an empty title": [["Texto breve", ""], ["a", "b"], ["Aviso", "Prioridad"]],
    "separators within texts": [["Texto breve", "n"], ["fuga; ruido; olor, humo", "1"], ["a; b; c; d", "2"]],
}


@pytest.mark.parametrize("case", NORMAL)
@pytest.mark.parametrize("form", ["a.xlsx", ",", ";"])
def test_read_table_with_titles_in_the_first_row_skips_nothing(tmp_path, form, case):
    path = tmp_path / (form if form == "a.xlsx" else "a.csv")
    file = read_table(write(path, NORMAL[case], form[:1]), known)
    assert file.table.to_numpy().tolist() == NORMAL[case][1:]
    assert file.first_row == 2
    assert "se salt" not in file.notes


cells = st.text(st.sampled_from("ab1 ,;"), max_size=6)


@settings(max_examples=300)
@given(st.lists(st.lists(cells, max_size=5), max_size=8))
def test_find_header_of_a_first_row_with_the_most_titles_is_that_row(rows):
    assert find_header([["Aviso", "Texto breve"], *rows], known).row == 0


@settings(max_examples=300)
@given(st.lists(st.lists(cells | st.sampled_from(TITLES), max_size=5), max_size=8))
def test_find_header_of_any_rows_is_one_of_them(rows):
    for is_title in (known, nothing):
        assert 0 <= find_header(rows, is_title).row <= max(0, len(rows) - 1)


def test_find_header_looks_at_a_limited_number_of_rows(tmp_path):
    rows = [["x"]] * SCANNED_ROWS + [TITLES]
    assert find_header(rows, known).row == 0


def test_read_table_of_a_shape_that_could_be_data_keeps_the_first_row(tmp_path):
    rows = [["Consecutivo", "Detalle"], ["1", "fuga; ruido; humo"], ["2", "olor; calor; agua"]]
    table = read_table(write(tmp_path / "a.csv", rows, ",")).table
    assert list(table.columns) == rows[0]
    pd.testing.assert_frame_equal(table, pd.DataFrame(rows[1:], columns=rows[0]), check_dtype=False)


def test_read_table_with_a_malformed_row_under_skipped_rows_raises_with_its_line_in_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("Reporte\n\nAviso;Texto breve\n1;fuga\n2;a;b;c\n3;ruido\n", encoding="utf-8")
    with pytest.raises(UserError, match="línea 5: tiene más celdas que títulos"):
        read_table(tmp_path / "a.csv", known)
