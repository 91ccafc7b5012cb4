"""XLSX, a ZIP of XML that anybody may have made: its size is asked before it is opened, and counted as it is read."""

import csv
import io
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
from openpyxl import load_workbook
from openpyxl.cell.cell import ERROR_CODES
from tqdm.auto import tqdm

from ocensa_nb.errors import UserError, listed
from ocensa_nb.table_width import check_width

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_UNPACKED = 2**29  # bytes: some 400,000 rows of 30 columns
MAX_METADATA = 2**25  # bytes of styles, relationships, …: Excel's limit of 65,490 formats takes some 10 MB
MAX_WORKBOOK_PART = 2**21  # bytes: openpyxl takes quadratic time in the number of sheets, 11,000 in this size
MAX_ROWS = 2**20  # Excel's own
MAX_CELLS = 60_000_000  # of the rectangle from A1 to the last cell: all those rows, of 57 columns
MAX_ROW_TAGS = 2_000_000  # between two rows; a row of Excel's 16,384 columns has some 100,000
MAX_CHARACTERS = 2**28  # in all cells: many cells may refer to the same long text
_AS_CSV = "Guárdelo como «CSV UTF-8», o copie los avisos a un libro nuevo."


def read_excel(path: Path, content: bytes) -> tuple[pd.DataFrame, str]:
    """Return the first sheet with every cell as text, and say in Spanish how it was read.

    Raises `UserError` for a damaged book, an empty sheet, or one too large to be a list of notices.
    """
    try:
        _refuse_bombs(path, content)
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        sheet, *others = book.worksheets
        rows = _rows(path, sheet)
        table = _frame(rows) if rows else pd.DataFrame()
    except UserError:
        raise
    except Exception as error:  # openpyxl raises many kinds for a damaged book
        raise UserError(
            f"«{path}» no se puede abrir como libro de Excel. Ábralo en Excel y guárdelo de nuevo."
        ) from error
    if table.columns.empty:
        names = listed(other.title for other in others)
        more = f" El libro tiene además: {names}; pase los avisos a la primera." if others else ""
        raise UserError(f"La primera hoja de «{path}», «{sheet.title}», está vacía.{more}")
    return table.fillna(""), f"Excel, hoja «{sheet.title}»"


def _refuse_bombs(path: Path, content: bytes) -> None:
    """Raise `UserError` for a book that would not fit in memory; what is read never exceeds the size a ZIP declares."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        sizes = {member.filename: member.file_size for member in book.infolist()}
        unpacked = sum(member.file_size for member in book.infolist())
    if unpacked > MAX_UNPACKED:
        raise UserError(
            f"«{path}» ocupa {unpacked / 2**30:,.1f} GiB al abrirlo, demasiado para un libro de avisos. {_AS_CSV}"
        )
    metadata = sum(size for name, size in sizes.items() if _is_metadata(name))
    if metadata > MAX_METADATA or sizes.get("xl/workbook.xml", 0) > MAX_WORKBOOK_PART:
        raise UserError(
            f"«{path}» tiene {metadata / 2**20:,.0f} MiB de estilos, hojas y nombres definidos, demasiado para un "
            f"libro de avisos. {_AS_CSV}"
        )


def _is_metadata(name: str) -> bool:
    """Return whether openpyxl parses a member of a book as a whole, other than the texts of its cells."""
    return name.endswith((".xml", ".rels")) and not name.startswith(("xl/worksheets/sheet", "xl/sharedStrings"))


class _RowGuard:
    """The XML of a sheet; raises `UserError` in the middle of a row of too many cells, before they fill the memory."""

    def __init__(self, file: IO[bytes], message: str) -> None:
        self._file = file
        self._message = message
        self.tags = 0  # since the last row

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        chunk = self._file.read(size)
        self.tags += chunk.count(b"<")
        if self.tags > MAX_ROW_TAGS:
            raise UserError(self._message)
        return chunk

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "_RowGuard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rows(path: Path, sheet: "ReadOnlyWorksheet") -> list[list[str]]:
    """Return the rows of a sheet as text, from the first to the last that has any, each up to its last cell.

    Raises `UserError` if they would make too large a table: of two cells, at XFD1 and at A1048576, it is one of 17
    thousand million.
    """
    sheet.reset_dimensions()  # what a sheet says of its own size may be wrong
    too_long = f"Una fila de la hoja «{sheet.title}» de «{path}» tiene demasiadas celdas. {_AS_CSV}"
    source = _RowGuard(sheet._get_source(), too_long)
    sheet._get_source = lambda: source  # openpyxl parses a whole row before it gives its first cell
    characters = 0
    rows: list[list[str]] = []
    widest = 0
    found = tqdm(sheet.iter_rows(values_only=True), "Leyendo filas", unit="fila", leave=False, delay=1)
    for number, row in enumerate(found, 1):
        source.tags = 0
        texts = [_text(value) for value in row]
        while texts and not texts[-1]:
            texts.pop()
        check_width(path, len(texts) if rows else sum(map(bool, texts)))
        characters += sum(map(len, texts))
        if characters > MAX_CHARACTERS:
            raise UserError(
                f"Los textos de la hoja «{sheet.title}» de «{path}» suman más de {MAX_CHARACTERS:,} caracteres. "
                f"{_AS_CSV}"
            )
        if texts or rows:
            rows.append(texts)
        widest = max(widest, len(row), 1)
        if number * widest > MAX_CELLS or number > MAX_ROWS:
            raise UserError(
                f"La hoja «{sheet.title}» de «{path}» tiene más de {number - 1:,} filas por {widest:,} columnas: "
                "suelen ser celdas sueltas muy lejos de la tabla. Copie los avisos a un libro nuevo, o guárdelo como "
                "«CSV UTF-8»."
            )
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _text(value: Any) -> str:
    """Return what a cell shows: whole numbers without decimals, nothing for an error."""
    if value is None or value in ERROR_CODES:
        return ""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _frame(rows: list[list[str]]) -> pd.DataFrame:
    """Return rows as a table, with the names of columns that repeat or are missing as pandas gives them to a CSV."""
    widest = max(map(len, rows))
    text = io.StringIO()
    csv.writer(text).writerows(row + [""] * (widest - len(row)) for row in rows)
    text.seek(0)
    return pd.read_csv(text, dtype=str, keep_default_na=False, skip_blank_lines=False)
