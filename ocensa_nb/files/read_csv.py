"""Read CSV files as plant systems export them: encoding, separator and header row are detected."""

import codecs
import contextlib
import csv
import io
import re
from pathlib import Path

import pandas as pd

from ocensa_nb.errors import UserError
from ocensa_nb.files.header import SCANNED_ROWS, Header, IsTitle, check_certain, check_width, find_header

SEPARATORS = ",;\t|"
LONGEST_HEADER = 100_000  # characters; the csv module takes no field of over 131,072
SCANNED_CHARACTERS = 1_000_000  # of a CSV, in which its header is looked for
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
EMPTY = "El archivo «{path}» está vacío. Vuelva a exportarlo."
_HOW_TO_EXPORT = "Ábralo en Excel y guárdelo como «CSV UTF-8» o como libro .xlsx."


def read_csv(path: Path, content: bytes, is_title: IsTitle) -> tuple[pd.DataFrame, int, str, str]:
    """Return the table of a CSV, the number of rows above its titles, its separator and its encoding."""
    if content.startswith(_ZIP):
        raise UserError(f"«{path}» es en realidad un libro de Excel (o un ZIP). Cámbiele la extensión a .xlsx.")
    if content.startswith(_OLE):
        raise UserError(f"«{path}» es un libro de Excel antiguo (.xls). Ábralo en Excel y guárdelo como .xlsx.")
    text, encoding = _decode(path, content)
    if not text.strip():
        raise UserError(EMPTY.format(path=path))
    lines = text.lstrip("\r\n")
    blank = len(re.findall(r"\r\n|\r|\n", text[: len(text) - len(lines)]))
    separator, header, start = _find_layout(lines, is_title)
    check_certain(path, header, blank)
    text = lines[start:]
    check_width(path, _header_length(path, text, separator))
    try:
        table = pd.read_csv(
            io.StringIO(text.strip("\r\n")), sep=separator, dtype=str, keep_default_na=False, skip_blank_lines=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        detail = str(error).strip().splitlines()[-1]
        if header.row:
            detail += " (la línea 1 es la de los títulos)"
        raise UserError(
            f"«{path}» no es una tabla bien formada (separador «{separator}»): {detail}. Suele ser una comilla sin "
            f"cerrar o un separador dentro de un texto. {_HOW_TO_EXPORT}"
        ) from error
    if isinstance(table.index, pd.MultiIndex) or not isinstance(table.index, pd.RangeIndex):
        raise UserError(
            f"«{path}» tiene filas con más celdas que títulos (separador «{separator}»). Si encima de los títulos hay "
            f"otras filas, bórrelas. {_HOW_TO_EXPORT}"
        )
    # A row shorter than the header leaves NaN even so.
    return table.fillna(""), blank + header.row, separator, encoding


def _decode(path: Path, content: bytes) -> tuple[str, str]:
    """Decode by the byte-order mark, else as UTF-8, else as Windows-1252, which is what SAP on Windows writes."""
    marked = next((encoding for bom, encoding in _BOMS.items() if content.startswith(bom)), None)
    if marked is None and b"\0" in content:
        raise UserError(f"«{path}» no es un archivo de texto, aunque se llame .csv. {_HOW_TO_EXPORT}")
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise UserError(f"«{path}» tiene caracteres que no son UTF-8 ni Windows-1252. {_HOW_TO_EXPORT}")


def _find_layout(text: str, is_title: IsTitle) -> tuple[str, Header, int]:
    """Return the separator of a CSV, its header, and the position in the text where the line of the header starts."""
    # A line above the titles, such as «Reporte de avisos, 2024», says nothing about the separator.
    usual = _separator(text)
    rows, starts = _first_rows(text, usual)
    best = find_header(rows, is_title)
    separator, start = usual, starts[best.row]
    regular = _is_regular(rows[best.row :])
    for other in SEPARATORS:
        rows, starts = _first_rows(text, other)
        header = find_header(rows, is_title)
        by_shape = not (header.known or best.known or regular) and len(header.titles) > len(best.titles)
        by_names = header.known > best.known and (best.row or not best.known or header.outweighs(best))
        if header.row and (by_names or by_shape):
            separator, best, start = other, header, starts[header.row]
    return separator, best, start


def _is_regular(rows: list[list[str]]) -> bool:
    widths = [len(row) for row in rows if row]
    return bool(widths) and widths[0] > 1 and widths.count(widths[0]) > len(widths) / 2


def _first_rows(text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Return the first rows of a CSV, as far as they can be read, and the position in the text of each and the end."""
    stream = io.StringIO(text[:SCANNED_CHARACTERS], newline="")
    rows, starts = [], [0]
    with contextlib.suppress(csv.Error):
        for row in csv.reader(stream, delimiter=separator):
            rows.append(row)
            starts.append(stream.tell())
            if len(rows) == SCANNED_ROWS:
                break
    return rows, starts


def _header_length(path: Path, text: str, separator: str) -> int:
    try:
        return len(next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=separator)))
    except csv.Error as error:
        raise UserError(
            f"La primera línea de «{path}» no se puede leer como títulos de columnas (descripcion, …): es demasiado "
            f"larga o tiene una comilla sin cerrar. {_HOW_TO_EXPORT}"
        ) from error


def _separator(text: str) -> str:
    header = next(line for line in text.splitlines() if line.strip())[:LONGEST_HEADER]
    return max(SEPARATORS, key=lambda sep: len(next(csv.reader([header], delimiter=sep))))
