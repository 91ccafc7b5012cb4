"""Read XLSX files, with limits on the time and the memory that a ZIP of untrusted XML may take."""

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
from openpyxl.cell.cell import ERROR_CODES
from openpyxl.reader.excel import ExcelReader

from ocensa_nb.errors import UserError, listed
from ocensa_nb.files.header import SCANNED_ROWS, IsTitle, check_certain, check_width, find_header
from ocensa_nb.runtime.logs import progress

if TYPE_CHECKING:
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

MAX_UNPACKED = 2**29  # bytes: some 400,000 rows of 30 columns
MAX_METADATA = 2**25  # bytes of styles, relationships, …: Excel's limit of 65,490 formats takes some 10 MB
MAX_WORKBOOK_PART = 2**21  # bytes: openpyxl takes quadratic time in the number of sheets, 11,000 in this size
MAX_ROWS = 2**20  # Excel's own
MAX_CELLS = 60_000_000  # of the rectangle from A1 to the last cell: all those rows, of 57 columns
MAX_ROW_TAGS = 2_000_000  # between two rows; a row of Excel's 16,384 columns has some 100,000
MAX_TOKEN = 2**22  # bytes of a tag, or of the text of a cell: Excel takes 32,767 characters
MAX_CHARACTERS = 2**28  # in all cells: many cells may refer to the same long text
_AS_CSV = "Guárdelo como «CSV UTF-8», o copie los avisos a un libro nuevo."


def read_excel(path: Path, content: bytes, is_title: IsTitle, sheet_name: str = "") -> tuple[pd.DataFrame, int, str]:
    """Return a sheet with every cell as text, the number of rows above its titles, and how it was read."""
    try:
        archive = _GuardedZip(io.BytesIO(content))
        archive.filename = str(path)
        _refuse_bombs(archive)
        reader = ExcelReader(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        reader.archive = archive  # `load_workbook` offers no way to guard what it reads
        reader.read()
        book = reader.wb
        sheet, *others = sorted(book.worksheets, key=lambda sheet: sheet.title != sheet_name)
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
        more = f" El libro tiene además: {names}; pase los avisos a la primera." if others else ""
        raise UserError(f"La primera hoja de «{path}», «{sheet.title}», está vacía.{more}")
    return table.fillna(""), skipped, f"Excel, hoja «{sheet.title}»"


def _refuse_bombs(archive: zipfile.ZipFile) -> None:
    sizes = [(member.filename, member.file_size) for member in archive.infolist()]
    unpacked = sum(size for _, size in sizes)
    if unpacked > MAX_UNPACKED:
        raise UserError(
            f"«{archive.filename}» ocupa {unpacked / 2**30:,.1f} GiB al abrirlo, demasiado para un libro de "
            f"avisos. {_AS_CSV}"
        )
    # openpyxl parses a member as a whole, except the texts of the cells.
    cells = ("xl/worksheets/sheet", "xl/sharedStrings")
    whole = [size for name, size in sizes if name.endswith((".xml", ".rels")) and not name.startswith(cells)]
    workbook = max((size for name, size in sizes if name == "xl/workbook.xml"), default=0)
    if sum(whole) > MAX_METADATA or workbook > MAX_WORKBOOK_PART:
        raise UserError(
            f"«{archive.filename}» tiene {sum(whole) / 2**20:,.0f} MiB de estilos, hojas y nombres definidos, "
            f"demasiado para un libro de avisos. {_AS_CSV}"
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

    # openpyxl parses a whole row before it returns a cell; expat before 2.6 takes quadratic time for a comment or an
    # attribute that arrives in pieces (CVE-2023-52425).
    def __call__(self, size: int = -1) -> bytes:
        chunk = self._read(size)
        if len(chunk) > MAX_TOKEN:
            return chunk  # read at once, and parsed in linear time
        self._tags = chunk.count(b"<") + (0 if b"row" in chunk or b"<si" in chunk else self._tags)
        end = chunk.rfind(b">")
        self._token = self._token + len(chunk) if end < 0 else len(chunk) - end
        if self._tags > MAX_ROW_TAGS or self._token > MAX_TOKEN:
            raise UserError(f"{self._name} tiene una fila o un texto demasiado largos. {_AS_CSV}")
        return chunk


def _rows(path: Path, sheet: "ReadOnlyWorksheet") -> list[list[str]]:
    """Return the rows of a sheet as text, without empty cells and rows at the end; `UserError` if too many."""
    sheet.reset_dimensions()  # the size that a sheet declares may be wrong
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
                f"Los textos de la hoja «{sheet.title}» de «{path}» suman más de {MAX_CHARACTERS:,} caracteres. "
                f"{_AS_CSV}"
            )
        rows.append(texts)
        started = started or bool(texts)
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
    """Return rows as a table; pandas names repeated and missing titles as in a CSV."""
    widest = max(map(len, rows))
    text = io.StringIO()
    csv.writer(text).writerows(row + [""] * (widest - len(row)) for row in rows)
    text.seek(0)
    return pd.read_csv(text, dtype=str, keep_default_na=False, skip_blank_lines=False)
