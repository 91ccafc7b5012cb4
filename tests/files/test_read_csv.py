"""What a CSV says is what its bytes say: encodings, quotes, line breaks, and the number of rows."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.errors import UserError, num
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.files.read_csv import decode

EXAMPLES = 2_000 if os.environ.get("OCENSA_LONG") else 150
SPANISH = "aviso;descripcion;causa\n1;Vibración del motor, señal débil;Corrosión\n2;FALLA ELÉCTRICA AÑO;Desgaste\n"
WINDOWS = [bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256)]


def read(folder, content):
    (folder / "a.csv").write_bytes(content)
    return read_table(folder / "a.csv", lambda cell: cell in ("aviso", "descripcion", "causa"))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp1252", "cp850", "mac_roman", "utf-16", "utf-16-le", "utf-16-be"]
)
def test_decode_gives_spanish_in_every_encoding_of_a_plant(encoding):
    text, found, notes = decode(Path("a.csv"), SPANISH.encode(encoding))
    assert (text, found, notes) == (SPANISH, encoding, [])


@pytest.mark.parametrize("text", ["a;b\n1;ó\n", "a;b\n1;20 °C\n", "a;b\n1;“x” – 5 µm ½ €\n", "a;b\n1;Nº 5 ¿qué?\n"])
def test_decode_of_few_letters_is_windows(text):
    assert decode(Path("a.csv"), text.encode("cp1252"))[:2] == (text, "cp1252")


@given(st.integers(0, len(SPANISH) - 1).filter(lambda place: SPANISH[place].isascii() and SPANISH[place].isalpha()))
def test_foreign_byte_in_utf_8_is_repaired_and_named(place):
    content = SPANISH[:place].encode() + "ó".encode("cp1252") + SPANISH[place + 1 :].encode()
    text, encoding, notes = decode(Path("a.csv"), content)
    assert (text, encoding) == (SPANISH[:place] + "ó" + SPANISH[place + 1 :], "utf-8")
    assert f"en la línea {SPANISH.count(chr(10), 0, place) + 1})" in notes[0]


@pytest.mark.parametrize(("rows", "majority"), [(1, "utf-8"), (9, "cp1252")])
def test_file_joined_from_two_encodings_is_read_right_and_named(rows, majority):
    old = "3;Válvula dañada;Corrosión\n" * rows
    text, encoding, notes = decode(Path("a.csv"), SPANISH.encode() + old.encode("cp1252"))
    assert (text, encoding) == (SPANISH + old, majority)
    assert f"bytes que no son UTF-8, leídos como Windows-1252: {num(3 * rows)} (el primero, en la línea 4)" in notes[0]


@pytest.mark.parametrize("text", ["«Ñandú» – “urgente” Á…", "AÑO 2½ º", "\ufeffaviso;descripcion"])
@pytest.mark.parametrize("times", [1, 2])
def test_every_sign_that_was_encoded_twice_is_repaired(text, times):
    twice = text
    for _ in range(times):
        twice = "".join(WINDOWS[byte] for byte in twice.encode())
    assert decode(Path("a.csv"), twice.encode())[0] == text.lstrip("\ufeff")


def test_letters_that_were_lost_are_named():
    assert (
        "letras perdidas al exportar («�» en su lugar): 1;"
        in decode(Path("a.csv"), "a;b\n1;Vibraci�n\n".encode())[2][0]
    )


def test_text_encoded_twice_is_repaired_and_named():
    text, _, notes = decode(Path("a.csv"), SPANISH.replace("É", "é").encode().decode("cp1252").encode())
    assert text == SPANISH.replace("É", "é")
    assert "convertidas dos veces («Ã³» por «ó»), corregidas: 6" in notes[0]


cells = st.text(
    st.sampled_from('a1ñ" \n;,\t')
    | st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="ÂÃÅâï�"),
    max_size=8,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"])
)
def test_every_record_of_a_quoted_csv_is_read(tmp_path_factory, rows, separator, end):
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("descripcion", "causa"), *rows])
    try:
        file = read(tmp_path_factory.mktemp("a"), stream.getvalue().encode("utf-8-sig"))
    except UserError:
        looks_like_rows = any("\n" in cell and separator in cell for row in rows for cell in row)
        assert looks_like_rows
        return
    assert file.table.to_numpy().tolist() == [list(row) for row in rows]


plain = st.text(st.sampled_from("abcñ\"' .:-/"), max_size=9)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(plain, plain, plain), min_size=1, max_size=12))
def test_every_line_of_a_file_without_quoting_is_a_row_or_the_file_is_refused(tmp_path_factory, rows):
    lines = ["aviso\tdescripcion\tcausa", *("\t".join(row) for row in rows)]
    content = ("\n".join(lines) + "\n").encode()
    try:
        file = read(tmp_path_factory.mktemp("a"), content)
    except UserError:
        return  # said, and not silent
    assert len(file.table) == len(rows)
    for row, cells in zip(rows, file.table.to_numpy(), strict=True):
        assert [cell.replace('"', "") for cell in cells] == [cell.replace('"', "") for cell in row]


def test_quotes_that_open_a_text_and_are_never_closed_are_part_of_the_text(tmp_path):
    file = read(tmp_path, b'aviso\tdescripcion\tcausa\n1\t"LINEA NORTE" GOTEA\tFuga\n2\t"TREN B\tFuga\n3\tb\tFuga\n')
    assert file.table["descripcion"].tolist() == ['"LINEA NORTE" GOTEA', '"TREN B', "b"]
    assert "las comillas se leyeron como parte del texto" in file.notes


def test_quote_that_would_swallow_rows_beside_quoted_separators_raises_with_its_line(tmp_path):
    with pytest.raises(UserError, match="línea 3: una comilla se abre y no se cierra"):
        read(tmp_path, b'aviso;descripcion;causa\n1;"a; b";c\n2;"rota;c\n3;x;c\n4;y;c\n')


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"1;fuga; sello;c\n2;b;c\n", "línea 2: tiene más celdas que títulos (4 y 3"),
        (b'1;"b\nb";c\n2;b;c;\n', "línea 4: tiene más celdas que títulos (4 y 3"),
        (b'1;"b; b";c\n2;"rota;c\n', "línea 3: una comilla se abre y no se cierra"),
    ],
)
def test_table_that_is_not_well_formed_raises_with_the_line_and_no_english(tmp_path, lines, said):
    with pytest.raises(UserError) as error:
        read(tmp_path, b"aviso;descripcion;causa\n" + lines)
    assert said in str(error.value)
    assert "error" not in str(error.value).lower()


def test_return_inside_a_text_is_a_space_and_named(tmp_path):
    file = read(tmp_path, b"aviso;descripcion;causa\r\n1;fuga\rde aceite;c\r\n2;b;c\r\r\n")
    assert file.table["descripcion"].tolist() == ["fuga de aceite", "b"]
    assert "retornos dentro de un texto, leídos como espacios: 1" in file.notes


def test_file_of_an_old_mac_has_a_row_per_return(tmp_path):
    file = read(tmp_path, b"aviso;descripcion;causa\r1;a;c\r2;b;c\r")
    assert len(file.table) == 2
    assert "retornos" not in file.notes
