"""Read XLSX files, with limits on the time and the memory that a ZIP of untrusted XML may take."""

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Callable
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple
from unittest.mock import patch
from xml.etree.ElementTree import iterparse

import pandas as pd
from openpyxl.chartsheet import Chartsheet
from openpyxl.reader.excel import ExcelReader
from openpyxl.worksheet import _reader
from openpyxl.worksheet._read_only import ReadOnlyWorksheet

from ocensa_nb.errors import UserError, listed, num
from ocensa_nb.files.header import SCANNED_ROWS, IsTitle, check_certain, check_width, find_header
from ocensa_nb.runtime.logs import progress

MAX_UNPACKED = 2**29  # bytes: some 400,000 rows of 30 columns
MAX_METADATA = 2**25  # bytes of styles, relationships, …: Excel's limit of 65,490 formats takes some 10 MB
MAX_WORKBOOK_PART = 2**21  # bytes: openpyxl takes quadratic time in the number of sheets, 11,000 in this size
MAX_ROWS = 2**20  # Excel's own
MAX_CELLS = 60_000_000  # of the rectangle from A1 to the last cell: all those rows, of 57 columns
MAX_ROW_TAGS = 2_000_000  # between two rows; a row of Excel's 16,384 columns has some 100,000
MAX_TOKEN = 2**22  # bytes of a tag, or of the text of a cell: Excel takes 32,767 characters
_NO_VALUE = re.compile(rb'<c [^>]*?r="([A-Z]+\d+)"[^>]*>\s*<f[^>]*?(?:/>|>[^<]*</f>)\s*(?:<v\s*/>|<v></v>)?\s*</c>')
MIDNIGHT = time()
MAX_CHARACTERS = 2**28  # in all cells: many cells may refer to the same long text
_AS_CSV = "Guárdelo como «CSV UTF-8», o copie los avisos a un libro nuevo."


class Book(NamedTuple):
    """What only a book has."""

    part: str  # the member of the ZIP with the sheet that was read
    sheets: list[str]  # the names of all
    formulas: list[str]  # cells of the sheet, such as B2, with a formula that no program has calculated


def read_excel(
    path: Path, content: bytes, is_title: IsTitle, sheet_name: str = ""
) -> tuple[pd.DataFrame, int, str, Book]:
    """Return a sheet with every cell as text, the rows above its titles, how it was read, and more of its book."""
    try:
        archive = _GuardedZip(io.BytesIO(content))
        archive.filename = str(path)
        _refuse_bombs(archive)
        reader = ExcelReader(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        reader.archive = archive  # `load_workbook` offers no way to guard what it reads
        # openpyxl does not read every chart sheet; another sheet is found by its place among them.
        reader.read_chartsheet = lambda sheet, _: reader.wb._sheets.append(Chartsheet(parent=reader.wb))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of openpyxl, in English, about extensions of Excel
            with patch.object(ReadOnlyWorksheet, "_get_size"):  # it parses a sheet that does not say its size
                reader.read()
            with patch.object(_reader, "iterparse", iterparse):  # defusedxml's, in Python, takes three times as long
                sheet, *others = _sheets(reader.wb.worksheets, sheet_name, is_title)
                rows = _rows(path, sheet)
        blank = next((number for number, row in enumerate(rows) if row), 0)
        header = find_header(rows[blank : blank + SCANNED_ROWS], is_title)
        check_certain(path, header, blank)
        skipped = blank + header.row
        table = _frame(rows[skipped:]) if rows else pd.DataFrame()
    except UserError:
        raise
    except Exception as error:  # openpyxl raises many kinds for a damaged book
        raise UserError(
            f"«{path}» no se puede abrir como libro de Excel. Ábralo en Excel y guárdelo de nuevo."
        ) from error
    if table.columns.empty:
        names = listed(other.title for other in others)
        more = f" El libro tiene además: {names}." if others else ""
        raise UserError(f"La hoja «{sheet.title}» de «{path}» está vacía.{more}")
    hidden = "" if sheet.sheet_state == "visible" else ", oculta"
    more = f" (hay además {listed(other.title for other in others)})" if others else ""
    notes = f"Excel, hoja «{sheet.title}»{hidden}{more}"
    if formulas := _uncalculated(archive, sheet):
        notes += (
            "; celdas leídas vacías, con una fórmula que ningún programa ha calculado: "
            f"{num(len(formulas))} ({listed(formulas)}); abra el libro en Excel y guárdelo"
        )
    return table.fillna(""), skipped, notes, Book(sheet._worksheet_path, reader.wb.sheetnames, formulas)


def _sheets(sheets: list[ReadOnlyWorksheet], wanted: str, is_title: IsTitle) -> list[ReadOnlyWorksheet]:
    """Return the sheets of a book, the one to read first: the wanted one, else that with the most known titles."""

    def order(sheet: ReadOnlyWorksheet) -> tuple[bool, int, bool]:
        sheet.reset_dimensions()  # the size that a sheet declares may be wrong
        known = 0
        if len(sheets) > 1:
            rows = [[_text(value) for value in row] for row in sheet.iter_rows(max_row=SCANNED_ROWS, values_only=True)]
            known = find_header(rows, is_title).known
        return sheet.title != wanted, -known, sheet.sheet_state != "visible"

    return sorted(sheets, key=order)


def _uncalculated(archive: zipfile.ZipFile, sheet: ReadOnlyWorksheet) -> list[str]:
    """Return the cells of a sheet that have a formula and no value, such as those that openpyxl has written."""
    part = archive.read(sheet._worksheet_path)
    return [match[1].decode() for match in _NO_VALUE.finditer(part)] if b"<f" in part else []


def _refuse_bombs(archive: zipfile.ZipFile) -> None:
    sizes = [(member.filename, member.file_size) for member in archive.infolist()]
    unpacked = sum(size for _, size in sizes)
    if unpacked > MAX_UNPACKED:
        raise UserError(f"«{archive.filename}» ocupa {num(unpacked / 2**30, 1)} GiB al abrirlo: demasiado. {_AS_CSV}")
    # openpyxl parses a member as a whole, except the texts of the cells.
    cells = ("xl/worksheets/sheet", "xl/sharedStrings")
    whole = [size for name, size in sizes if name.endswith((".xml", ".rels")) and not name.startswith(cells)]
    workbook = max((size for name, size in sizes if name == "xl/workbook.xml"), default=0)
    if sum(whole) > MAX_METADATA or workbook > MAX_WORKBOOK_PART:
        raise UserError(
            f"«{archive.filename}»: {num(sum(whole) / 2**20)} MiB de estilos, hojas y nombres: demasiado. {_AS_CSV}"
        )


class _GuardedZip(zipfile.ZipFile):
    """An archive that raises `UserError` while a part is read, before it costs too much time or memory."""

    def open(self, name: str | zipfile.ZipInfo, *args: Any, **options: Any) -> IO[bytes]:
        file = super().open(name, *args, **options)
        file.read = _Guard(file.read, f"«{name}» de «{self.filename}»")
        return file


class _Guard:
    """The `read` of a part of a book, which stops within a long row or a long token."""

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._read, self._name = read, name
        self._tags = 0  # since the last row
        self._token = 0  # bytes since the last end of a tag
        self._end = b""  # of the chunk before

    # openpyxl parses a whole row before it returns a cell; expat before 2.6 takes quadratic time for a comment or an
    # attribute that arrives in pieces (CVE-2023-52425).
    def __call__(self, size: int = -1) -> bytes:
        chunk = self._read(size)
        if b"<!DOCTYPE" in self._end + chunk:  # no book has one; it defines entities, which grow without limit
            raise ValueError(f"{self._name}: DOCTYPE")
        self._end = chunk[-len("<!DOCTYPE") :]
        if len(chunk) > MAX_TOKEN:
            return chunk  # read at once, and parsed in linear time
        self._tags = chunk.count(b"<") + (0 if b"row" in chunk or b"<si" in chunk else self._tags)
        end = chunk.rfind(b">")
        self._token = self._token + len(chunk) if end < 0 else len(chunk) - end
        if self._tags > MAX_ROW_TAGS or self._token > MAX_TOKEN:
            raise UserError(f"{self._name} tiene una fila o un texto demasiado largos. {_AS_CSV}")
        return chunk


def _rows(path: Path, sheet: ReadOnlyWorksheet) -> list[list[str]]:
    """Return the rows of a sheet as text, without empty cells and rows at the end; `UserError` if too many."""
    characters = 0
    rows: list[list[str]] = []
    widest = 0
    started = False  # whether a row had any text
    shown = progress(sheet.iter_rows(values_only=True), "Leyendo filas", "fila")
    for number, row in enumerate(shown, 1):
        texts = [_text(value) for value in row]
        while texts and not texts[-1]:
            texts.pop()
        check_width(path, len(texts) if started else sum(map(bool, texts)))
        characters += sum(map(len, texts))
        if characters > MAX_CHARACTERS:
            raise UserError(
                f"La hoja «{sheet.title}» de «{path}» tiene más de {num(MAX_CHARACTERS)} caracteres. {_AS_CSV}"
            )
        rows.append(texts)
        started = started or bool(texts)
        widest = max(widest, len(row), 1)
        if number * widest > MAX_CELLS or number > MAX_ROWS:
            raise UserError(
                f"La hoja «{sheet.title}» de «{path}» tiene más de {num(number - 1)} filas por {num(widest)} columnas: "
                f"suelen ser celdas sueltas muy lejos de la tabla. {_AS_CSV}"
            )
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _text(value: Any) -> str:
    """Return what a cell shows in Spanish: whole numbers without decimals, a decimal comma, the day first."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "VERDADERO" if value else "FALSO"
    if isinstance(value, datetime):
        return f"{value:%d/%m/%Y}" if value.time() == MIDNIGHT else f"{value:%d/%m/%Y %H:%M}"
    if isinstance(value, timedelta):
        return f"{value // timedelta(hours=1)}:{value // timedelta(minutes=1) % 60:02}"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.15g}".replace(".", ",")
    return str(value)


def _frame(rows: list[list[str]]) -> pd.DataFrame:
    """Return rows as a table; pandas names repeated and missing titles as in a CSV."""
    widest = max(map(len, rows))
    text = io.StringIO()
    csv.writer(text).writerows(row + [""] * (widest - len(row)) for row in rows)
    text.seek(0)
    return pd.read_csv(text, dtype=str, keep_default_na=False, skip_blank_lines=False)
