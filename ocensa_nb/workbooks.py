"""XLSX, a ZIP of XML that anybody may have made: its size is asked before it is opened."""

import io
import re
import zipfile
from pathlib import Path

import pandas as pd

from ocensa_nb.errors import UserError

MAX_UNPACKED = 2**30  # bytes: some 300,000 rows of 30 columns
MAX_CELLS = 60_000_000  # of the rectangle from A1 to the last cell: a sheet's 1,048,576 rows of 57 columns
CHUNK = 2**22
LONGEST_TAG = 200  # bytes of a tag that may lie across two chunks
# Where a cell or a row says it is: one at XFD1 and one at A1048576 make a table of 17 thousand million cells.
_PLACE = re.compile(rb'<(?:\w{1,8}:)?(?:c|row)\s[^<>]{0,80}?\br="([A-Z]{0,3})(\d{1,7})"')


def read_excel(path: Path, content: bytes) -> tuple[pd.DataFrame, str]:
    """Return the first sheet with every cell as text, and say in Spanish how it was read.

    Raises `UserError` for a damaged book, an empty sheet, or one too large to be a list of notices.
    """
    try:
        _refuse_bombs(path, content)
        with pd.ExcelFile(io.BytesIO(content), engine="openpyxl") as book:
            sheet = str(book.sheet_names[0])
            table = book.parse(sheet, dtype=str, keep_default_na=False)
            others = [str(name) for name in book.sheet_names[1:]]
    except UserError:
        raise
    except Exception as error:  # openpyxl raises many kinds for a damaged book
        raise UserError(
            f"«{path}» no se puede abrir como libro de Excel. Ábralo en Excel y guárdelo de nuevo."
        ) from error
    if table.columns.empty:
        more = f" El libro tiene además: {', '.join(others)}; pase los avisos a la primera." if others else ""
        raise UserError(f"La primera hoja de «{path}», «{sheet}», está vacía.{more}")
    table.columns = [str(name) for name in table.columns]
    return table.fillna("").astype(str), f"Excel, hoja «{sheet}»"


def _refuse_bombs(path: Path, content: bytes) -> None:
    """Raise `UserError` for a book that would not fit in memory; what is read never exceeds the size a ZIP declares."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        unpacked = sum(member.file_size for member in book.infolist())
        if unpacked > MAX_UNPACKED:
            raise UserError(
                f"«{path}» ocupa {unpacked / 2**30:,.1f} GiB al abrirlo, demasiado para un libro de avisos. Guárdelo "
                "como «CSV UTF-8», que se lee sin ese límite, o deje solo la hoja de los avisos."
            )
        for name in book.namelist():
            if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                rows, columns = _extent(book, name)
                if rows * columns > MAX_CELLS:
                    raise UserError(
                        f"Una hoja de «{path}» llega hasta la fila {rows:,} y la columna {columns:,}: tiene celdas "
                        "sueltas muy lejos de la tabla. Copie los avisos a un libro nuevo, o guárdelo como «CSV UTF-8»."
                    )


def _extent(book: zipfile.ZipFile, name: str) -> tuple[int, int]:
    """Return the last row and the last column that any cell of a sheet says it is in."""
    rows = columns = 0
    tail = b""
    with book.open(name) as sheet:
        while chunk := sheet.read(CHUNK):
            for letters, digits in set(_PLACE.findall(tail + chunk)):
                rows = max(rows, int(digits))
                columns = max(columns, _column(letters))
            tail = chunk[-LONGEST_TAG:]
    return rows, columns


def _column(letters: bytes) -> int:
    """Return the number of a column: A is 1, Z 26, AA 27; 0 for none."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number
