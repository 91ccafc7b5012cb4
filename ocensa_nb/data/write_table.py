"""Tables for a spreadsheet to show: whole or not at all, and with nothing in them that it would run.

A cell that begins with `=`, `+`, `-` or `@` is a formula to Excel and LibreOffice, whoever wrote it; and where they cut
a CSV at another separator than it was written with, as Excel in Spanish does at `;`, so is any piece of a cell (OWASP,
"CSV Injection"). In a CSV an apostrophe goes before such a sign; in an XLSX the cell is marked as text, and stays as it
is.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.drawing.spreadsheet_drawing import SpreadsheetDrawing
from openpyxl.utils.exceptions import IllegalCharacterError
from openpyxl.worksheet._writer import WorksheetWriter
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.writer.excel import ExcelWriter

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import create_new
from ocensa_nb.paths import free_path, plain_path

SUFFIXES = (".csv", ".xlsx")
LONGEST_CELL = 32_767  # characters, in XLSX; openpyxl cuts what is longer and says nothing
# A sign at the start of a piece, after spaces. A match that starts with a space starts at the first of them: otherwise
# a long run of line breaks is searched again from each.
_FORMULA = re.compile(r"((?:^|[;|])\s*|(?<!\s)[^\S\t\r\n]*[\t\r\n]\s*)(?=[=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?\s?%?|-+")  # and the dashes that stand for nothing


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table to a new XLSX, or a CSV that Excel opens with its accents, by the suffix; return the path.

    Its index is left out. Raises `UserError` if the file exists, the disk refuses or Excel could not hold it.
    """
    path = plain_path(path)
    with create_new(path) as fresh:
        if path.suffix.lower() == ".xlsx":
            _write_excel(table, path, fresh)
        else:
            inert(table).to_csv(fresh, index=False, encoding="utf-8-sig")
    return path


def free_table(out: str | Path) -> Path:
    """Return where a table may go; raises `UserError` where something is there, or no such file is written."""
    path = free_path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"«{path}» debe terminar en {' o '.join(SUFFIXES)}: así se sabe cómo escribir la tabla.")
    return path


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with an apostrophe before all that a spreadsheet would run in its texts and its titles."""
    texts = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return table.assign(**{name: table[name].map(_inert) for name in texts}).rename(columns=_inert)


def _inert(value: Any) -> Any:
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) and not _NUMBER.fullmatch(value) else value


def _write_excel(table: pd.DataFrame, path: Path, fresh: Path) -> None:
    elsewhere = f"«{path}» no se puede escribir como Excel; elija un nombre que termine en .csv."
    if any(table[name].astype(str).str.len().max() > LONGEST_CELL for name in table):
        raise UserError(elsewhere)
    writer = pd.ExcelWriter(io.BytesIO(), engine="openpyxl")  # never closed: that would save
    try:
        table.to_excel(writer, index=False)
        for row in writer.book.active.iter_rows():
            for cell in row:
                if isinstance(cell.value, str) and cell.value.startswith("="):
                    cell.data_type, cell.quotePrefix = "s", True
    except (IllegalCharacterError, ValueError) as error:  # control characters, or more rows than a sheet holds
        raise UserError(elsewhere) from error
    fresh.write_bytes(_packed(writer.book))


class _MemoryWriter(ExcelWriter):
    """openpyxl's writer without the temporary file per sheet, which is on a disk that may be full."""

    def write_worksheet(self, ws: Worksheet) -> None:
        """Add a sheet to the archive."""
        ws._drawing = SpreadsheetDrawing()
        sheet = WorksheetWriter(ws, out=io.BytesIO())
        sheet.write()
        ws._rels = sheet._rels
        self._archive.writestr(ws.path[1:], sheet.out.getvalue())
        self.manifest.append(ws)


def _packed(book: Workbook) -> bytes:
    """Return the bytes of a workbook. A ZIP that is open when a disk is full raises again when Python closes it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _MemoryWriter(book, archive).write_data()
    return packed.getvalue()
