"""Tables for a spreadsheet to show: whole or not at all, and with nothing in them that it would run.

A cell that begins with `=`, `+`, `-` or `@` is a formula to Excel and LibreOffice, whoever wrote it (OWASP, "CSV
Injection"). In a CSV such a cell gets an apostrophe in front; in an XLSX it is marked as text, and stays as it is.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl.utils.exceptions import IllegalCharacterError

from ocensa_nb.durable import plain_path, replacing
from ocensa_nb.errors import UserError
from ocensa_nb.tables import EXCEL_SUFFIXES

LONGEST_CELL = 32_767  # characters, in XLSX; openpyxl cuts what is longer and says nothing
_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?\s?%?|-+")  # and the dashes that stand for nothing


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as XLSX, or as CSV that Excel opens with its accents, by the suffix; return the path.

    Its index is left out. Raises `UserError` where the disk refuses or Excel could not hold it.
    """
    path = plain_path(path)
    excel = path.suffix.lower() in EXCEL_SUFFIXES
    with replacing(path) as fresh:
        if excel:
            _write_excel(table, path, fresh)
        else:
            inert(table).to_csv(fresh, index=False, encoding="utf-8-sig")
    return path


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with an apostrophe before every text, titles included, that a spreadsheet would run."""
    texts = [name for name, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return table.assign(**{name: table[name].map(_inert) for name in texts}).rename(columns=_inert)


def _inert(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _write_excel(table: pd.DataFrame, path: Path, fresh: Path) -> None:
    elsewhere = f"«{path}» no se puede escribir como Excel; elija un nombre que termine en .csv."
    if any(table[name].astype(str).str.len().max() > LONGEST_CELL for name in table):
        raise UserError(elsewhere)
    try:
        with pd.ExcelWriter(fresh, engine="openpyxl") as book:
            table.to_excel(book, index=False)
            for row in book.book.active.iter_rows():
                for cell in row:
                    if isinstance(cell.value, str) and cell.value.startswith("="):
                        cell.data_type, cell.quotePrefix = "s", True
    except (IllegalCharacterError, ValueError) as error:  # control characters, or more rows than a sheet holds
        raise UserError(elsewhere) from error
