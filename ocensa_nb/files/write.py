"""Write CSV and XLSX tables, complete or not at all, and without formulas (OWASP, "CSV Injection")."""

import io
import logging
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from openpyxl import Workbook
from openpyxl.drawing.spreadsheet_drawing import SpreadsheetDrawing
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet._writer import WorksheetWriter
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.writer.excel import ExcelWriter

from ocensa_nb.errors import UserError, clipped, num
from ocensa_nb.files.atomic import create_new
from ocensa_nb.files.notice_file import CsvFormat
from ocensa_nb.files.read_excel import Book
from ocensa_nb.paths import free_path, plain_path

logger = logging.getLogger(__name__)

Tables = Sequence[tuple[str, pd.DataFrame]]  # of a sheet, each under its title, which may be ""
SUFFIXES = (".csv", ".xlsx")
DECIMALS = 4
LONGEST_CELL = 32_767  # characters, in XLSX; openpyxl cuts what is longer and says nothing
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in XML 1.0
NARROWEST, WIDEST = 8, 60  # characters of a column in XLSX
TABLE, CLASSES = "Hoja1", "Clases"
EDITABLE = PatternFill("solid", fgColor="FFF2CC")
WRAPPED = Alignment(vertical="top", wrap_text=True)
_SHARE = re.compile(r"conf\d?_|parte |diferencia$")  # a column of shares
FILTER_ARROW = 3  # characters that it covers in a title
# A cell that begins with a sign is a formula to Excel and LibreOffice. So is any piece of a cell if they split a CSV at
# another separator. In a CSV the sign gets an apostrophe before it; in an XLSX the cell is marked as text.
# A sign at the start of a piece, after spaces. A match that starts with a space starts at the first of them: otherwise
# a long run of line breaks is searched again from each.
_FORMULA = re.compile(r'((?:^|[,;|])[\s"]*|(?<![\s"])(?:[^\S\t\r\n]|")*[\t\r\n][\s"]*)(?=[=+\-@＝＋－＠])')
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?\s?%?|-+")  # and the dashes that stand for nothing


def write_table(
    table: pd.DataFrame,
    path: str | Path,
    csv_format: CsvFormat | None = None,
    first: Mapping[str, Tables] = MappingProxyType({}),
    choices: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Path:
    """Write a table, without its index, to a new CSV or XLSX file, by the suffix; floats are rounded to `DECIMALS`.

    An XLSX has the sheets of `first` before that of the table, and drop-downs in the columns of `choices`.

    A CSV in an encoding that lacks a character is written in UTF-8 instead, with a message. Raises `UserError` if the
    file exists, cannot be written, or does not fit in an Excel sheet.
    """
    path = plain_path(path)
    with create_new(path) as temporary:
        if path.suffix.lower() == ".xlsx":
            lists = {CLASSES: [("", pd.DataFrame({name: pd.Series(part) for name, part in choices.items()}))]}
            sheets = {**first, TABLE: [("", table)], **(lists if choices else {})}
            temporary.write_bytes(book_of(sheets, path, partial(_add_lists, choices=choices)))
        else:
            _write_csv(inert(rounded(table)), path, temporary, csv_format or CsvFormat())
    return path


def free_table(out: str | Path, kind: str = "auto", like: str = "") -> Path:
    path = plain_path(out)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and kind not in ("auto", suffix[1:]):
        raise UserError(
            f"«{path}» termina en {suffix}, pero el formato pedido es {kind}. Cambie la extensión, o quite el formato."
        )
    if not suffix and (kind != "auto" or like):
        path = path.with_name(path.name + (f".{kind}" if kind != "auto" else like))
    elif suffix not in SUFFIXES:
        raise UserError(f"«{path}» debe terminar en {' o '.join(SUFFIXES)}: la extensión indica el formato.")
    return free_path(path)


def free_sheet(name: str, book: Book | None) -> str:
    """Return the name of a sheet that a book does not have yet; Excel ignores case."""
    taken = {sheet.casefold() for sheet in book.sheets} if book else set()
    while name.casefold() in taken:
        name += "_2"
    return name


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with an apostrophe before each formula in its texts and titles."""
    return table.assign(**{name: table[name].map(protected) for name in _texts(table)}).rename(columns=protected)


def _texts(table: pd.DataFrame) -> list[str]:
    return [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]


def protected(value: Any) -> Any:
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) and not _NUMBER.fullmatch(value) else value


def _write_csv(table: pd.DataFrame, path: Path, temporary: Path, csv_format: CsvFormat) -> None:
    settings = {"index": False, "sep": csv_format.separator, "decimal": csv_format.decimal}
    try:
        table.to_csv(temporary, encoding=csv_format.encoding, **settings)
    except UnicodeEncodeError as error:
        table.to_csv(temporary, encoding="utf-8-sig", **settings)
        name = "Windows-1252" if csv_format.encoding == "cp1252" else csv_format.encoding
        lacking = clipped(error.object[error.start : error.end])
        logger.info(f"«{path.name}» se escribe en UTF-8, que Excel también abre: en {name} no existe «{lacking}».")


def csv_bytes(table: pd.DataFrame, csv_format: CsvFormat, titles: bool = True) -> bytes:
    """Return a table, or a part of one without its titles, as a CSV in UTF-8."""
    table = inert(rounded(table))
    text = table.to_csv(index=False, sep=csv_format.separator, decimal=csv_format.decimal, header=titles)
    return text.encode("utf-8-sig" if titles else "utf-8")


def book_of(sheets: Mapping[str, Tables], path: Path, finish: Callable[[Workbook], None] = lambda book: None) -> bytes:
    """Return an XLSX file: the tables of each sheet one below the other, each under its title, if it has one.

    `path` is for messages. `finish` is called with the workbook at the end. Raises `UserError` if it does not fit.
    """
    writer = pd.ExcelWriter(io.BytesIO(), engine="openpyxl")  # never closed: that would save
    try:
        for name, tables in sheets.items():
            _fill(writer, name, [(title, _fitting(table, path)) for title, table in tables])
        finish(writer.book)
        return _packed(writer.book)
    except ValueError as error:  # more rows than a sheet holds
        raise UserError(f"«{path}» no se puede escribir como Excel: {error}. Elija un archivo más corto.") from error


def _add_lists(book: Workbook, choices: Mapping[str, Sequence[str]]) -> None:
    for number, (title, names) in enumerate(choices.items(), 1):
        letter = get_column_letter(number)
        add_choices(book[TABLE], title, f"{CLASSES}!${letter}$2:${letter}${len(names) + 1}", names)
    if choices:
        book[CLASSES].sheet_state = "hidden"


def add_choices(sheet: Worksheet, title: str, source: str, names: Sequence[str]) -> None:
    """Add a drop-down to the cells of a column, of the names in the cells `source`."""
    letter = next(cell.column_letter for cell in sheet[1] if cell.value == title)
    choice = DataValidation("list", formula1=source, allow_blank=True, showErrorMessage=True)
    choice.errorTitle, choice.error = "Clase desconocida", "Elija una clase de la lista, o deje la celda vacía."
    choice.add(f"{letter}2:{letter}{sheet.max_row}")
    sheet.add_data_validation(choice)
    sheet.column_dimensions[letter].width = max(map(len, names)) + 4
    for (cell,) in sheet[f"{letter}1:{letter}{sheet.max_row}"]:
        cell.fill = EDITABLE


def _fitting(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table whose texts Excel takes, without control characters and cut at its longest cell, and say so."""
    rows: set[int] = set()

    def fitting(column: pd.Series) -> pd.Series:
        fits = column.map(lambda value: _ILLEGAL.sub(" ", value)[:LONGEST_CELL] if isinstance(value, str) else value)
        rows.update(np.flatnonzero((fits != column) & column.notna()).tolist())
        return fits

    table = table.assign(**{name: fitting(table[name]) for name in _texts(table)})
    if rows:
        logger.info(
            f"«{path.name}»: filas con caracteres que Excel no admite, escritos como espacios, o con celdas de más de "
            f"{num(LONGEST_CELL)} caracteres, cortadas: {num(len(rows))} (la primera, la {num(min(rows) + 2)})."
        )
    return table.rename(columns=lambda title: _ILLEGAL.sub(" ", str(title)))


def _fill(writer: pd.ExcelWriter, name: str, tables: Tables) -> None:
    widths: dict[int, int] = {}
    row = 0
    for title, table in tables:
        table = rounded(table)
        longest = [max((len(str(value)) for value in table[column]), default=0) for column in table]
        table.to_excel(writer, sheet_name=name, index=False, startrow=row + bool(title))
        sheet, titles = writer.sheets[name], row + bool(title) + 1
        if title:
            sheet.cell(row + 1, 1, title).font = Font(bold=True)
        for number, (column, characters) in enumerate(zip(table, longest, strict=True), 1):
            width = max(len(str(column)) + FILTER_ARROW, characters + 1, NARROWEST)
            widths[number] = min(max(width, widths.get(number, 0)), WIDEST)
            sheet.cell(titles, number).font = Font(bold=True)
            if _SHARE.match(str(column)):
                for (cell,) in sheet.iter_rows(titles + 1, titles + len(table), number, number):
                    cell.number_format = "0%"  # one that every book has
        row = sheet.max_row + 1
    if len(tables) == 1 and not tables[0][0]:
        sheet.freeze_panes = "A2"
        sheet.auto_filter.ref = sheet.dimensions
        sheet.print_title_rows = "1:1"
    for number, width in widths.items():
        sheet.column_dimensions[get_column_letter(number)].width = width
    sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0  # as many pages as it takes
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    for cell in chain.from_iterable(sheet.iter_rows()):
        if isinstance(cell.value, str):
            cell.alignment = WRAPPED
            if cell.value.startswith("="):
                cell.data_type, cell.quotePrefix = "s", True


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(table.select_dtypes("floating"), float)).round(DECIMALS)


class _MemoryWriter(ExcelWriter):
    """openpyxl's writer without a temporary file per sheet: its disk may be full."""

    def write_worksheet(self, ws: Worksheet) -> None:
        ws._drawing = SpreadsheetDrawing()
        sheet = WorksheetWriter(ws, out=io.BytesIO())
        sheet.write()
        ws._rels = sheet._rels
        self._archive.writestr(ws.path[1:], sheet.out.getvalue())
        self.manifest.append(ws)


def _packed(book: Workbook) -> bytes:
    # in memory: a ZIP that is open when a disk is full raises again when Python closes it
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _MemoryWriter(book, archive).write_data()
    return packed.getvalue()
