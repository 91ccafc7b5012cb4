"""Files with their titles in the fourth row: read from there, with the row numbers of the spreadsheet."""

import pandas as pd
import pytest

from ocensa_nb.data import notices
from ocensa_nb.data.columns import title_predicate
from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import read_table

ABOVE = [["OLEODUCTO DEL NORTE"], ["Equipo", "BOMBA"], []]
TABLE = pd.DataFrame(
    {
        "Texto breve": [f"fuga número {i}" for i in range(20)],
        "Modo de falla": ["Desgaste", "Fuga"] * 10,
        "Causa": ["Corrosión", "Sobrecarga"] * 10,
        "Prioridad": ["Alta", "Baja"] * 10,
    }
)


def write(path, table):
    rows = [*ABOVE, list(table.columns), *table.to_numpy().tolist()]
    if path.suffix == ".xlsx":
        pd.DataFrame(rows).to_excel(path, index=False, header=False)
    else:
        path.write_text("\n".join(";".join(row) for row in rows) + "\n", encoding="cp1252")
    return path


@pytest.fixture(params=[".csv", ".xlsx"])
def path(request, tmp_path):
    return tmp_path / f"a{request.param}"


def test_read_titles_in_row_4_reports_it_and_numbers_the_rows_of_the_spreadsheet(path):
    file = notices.read(write(path, TABLE))
    assert file.ids.tolist() == [f"fila {row}" for row in range(5, 25)]
    assert file.texts.tolist() == TABLE["Texto breve"].tolist()
    assert "los títulos están en la fila 4; se saltaron 3 filas" in notices.labelled_rows(file).report.lines()[0]


def test_read_titles_in_row_4_with_other_names_are_found_if_configured(path):
    table = TABLE.set_axis(["Detalle", "Tipo", "Razón", "Urgencia"], axis=1)
    columns = {"descripcion": "Detalle", "modo": "Tipo", "causa": "Razón", "prioridad": "Urgencia"}
    file = notices.read(write(path, table), columns)
    assert file.ids[0] == "fila 5"
    assert file.labels["causa"].tolist() == TABLE["Causa"].tolist()


def test_read_titles_in_row_4_that_are_unknown_are_listed_in_the_message(path):
    table = TABLE.set_axis(["Detalle", "Tipo", "Razón", "Urgencia"], axis=1)
    with pytest.raises(UserError, match=r'más probables primero: Detalle, .*--columns descripcion "Detalle"'):
        notices.read(write(path, table))


def test_read_long_text_under_skipped_rows_is_cut_and_names_its_row_in_the_spreadsheet(path):
    table = TABLE.copy()
    table.loc[7, "Texto breve"] = "x" * 10_000
    file = notices.read(write(path, table))
    assert file.texts.str.len().max() == notices.MAX_CHARACTERS
    assert "textos cortados a 5 000 caracteres: 1 (el primero, en la fila 12)" in file.notes


@pytest.mark.parametrize(
    "above", [["Equipo,BOMBA,,"], ["Prioridad,,,", ",,,"], ["Reporte,,,"]], ids=["parameter", "word", "report"]
)
def test_titles_under_a_row_with_one_known_word_are_found(above, tmp_path):
    file = tmp_path / "a.csv"
    rows = [f"{day},bomba {day} con fuga,Ana,Mecánica" for day in range(1, 9)]
    file.write_text("\n".join([*above, "Fecha,Texto breve,Autor,Clase", *rows]), encoding="utf-8")
    read = read_table(file, title_predicate((), {}))
    assert list(read.table.columns) == ["Fecha", "Texto breve", "Autor", "Clase"]
    assert f"los títulos están en la fila {len(above) + 1}" in read.notes


def test_titles_with_fewer_cells_than_the_rows_are_found_by_their_names(tmp_path):
    file = tmp_path / "a.csv"
    rows = [f"fuga {day},Leak,Wear,1-Alta,a,b,c" for day in range(1, 9)]
    titles = "Texto breve,modo,causa,prioridad,,,"
    file.write_text("\n".join(["Reporte,,,,,,", titles, *rows]), encoding="utf-8")
    table = read_table(file, title_predicate((), {})).table
    assert list(table.columns[:4]) == titles.split(",")[:4]
    assert len(table) == len(rows)
