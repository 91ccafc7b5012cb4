"""Lines of a file that are no notices: left out, and counted by kind."""

import pytest

from ocensa_nb.data.notices import labelled_rows, read
from ocensa_nb.errors import UserError

TITLES = "Aviso;Descripción;Modo falla;Causa falla;Prioridad"
NOTICES = [f"{number};Fuga de aceite {number};A{number % 2};B{number % 3};{number % 3}" for number in range(12)]


def lines_of(tmp_path, *others):
    (tmp_path / "a.csv").write_text("\n".join([TITLES, *NOTICES[:6], *others, *NOTICES[6:]]) + "\n", encoding="utf-8")
    file = read(tmp_path / "a.csv")
    assert len(file.table) == len(NOTICES) + len(others)
    report = labelled_rows(file).report
    assert report.kept + report.left_out + report.without_text == report.rows
    return file.left_out


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (TITLES, "repiten los títulos"),
        ("\ufeff" + TITLES.upper(), "repiten los títulos"),
        ("AVISO;DESCRIPCION;MODO FALLA;CAUSA FALLA;PRIORIDAD", "repiten los títulos"),
        ("-----;------;-----;----;---", "son rayas o puntos"),
        ("13;.;A1;B1;1", "son rayas o puntos"),
        ("Total avisos: 12;;;;", "son totales"),
        (";Subtotal;;;12", "son totales"),
        ("* 123 registros;;;;", "son totales"),
        (";Número de avisos: 12;;;", "son totales"),
        ("Subtotal enero;;;;12", "son totales"),
        ("---------------;;;;", "son rayas o puntos"),
        ("Lista de avisos      Página  2;;;;", "son encabezados de página"),
        (";Pág. 3 de 7;;;", "son encabezados de página"),
        (";;;;", "están en blanco"),
    ],
)
def test_line_that_is_no_notice_is_left_out_and_counted(tmp_path, line, kind):
    assert lines_of(tmp_path, line) == {kind: 1}


@pytest.mark.parametrize(
    "notice",
    [
        "13;Total de la bomba fuera de servicio;A1;B1;1",
        "13;descripción;A1;B1;1",
        "13;Falta la página 3 del manual;A1;B1;1",
    ],
)
def test_notice_that_looks_like_another_line_is_a_notice(tmp_path, notice):
    assert lines_of(tmp_path, notice) == {}


@pytest.mark.parametrize("titles", ["Aviso;Descripción;Causa falla;Modo falla;Prioridad", "Planta;" + TITLES[:-10]])
def test_titles_repeated_in_another_order_raise_with_their_row(tmp_path, titles):
    with pytest.raises(UserError, match="fila 8: repite los títulos en otro orden"):
        lines_of(tmp_path, titles)
