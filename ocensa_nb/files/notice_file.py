"""Read a file of notices as a table of text; what is known of the file."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ocensa_nb.errors import CONTROL, UserError, clipped, listed
from ocensa_nb.files.header import IsTitle, skipped_note
from ocensa_nb.files.read_csv import EMPTY, read_csv
from ocensa_nb.files.read_excel import read_excel
from ocensa_nb.files.verify import read_regular
from ocensa_nb.paths import plain_path, reason

logger = logging.getLogger(__name__)

LARGE = 5 * 2**20  # bytes that take more than a moment to read, in either format
LARGEST = 2**31  # bytes: some ten million notices
EXCEL_SUFFIXES = (".xlsx", ".xlsm")

SAMPLED_CELLS = 100_000
# Numbers with decimals. Three decimals after a whole number, as in 1.234, may be thousands: they do not count.
_WITH_COMMA = r"\s*[+-]?(?:0,\d+|\d+,(?!\d{3}\D*$)\d+|\d{1,3}(?:\.\d{3})+,\d+)-?\s*"
_WITH_POINT = r"\s*[+-]?(?:0\.\d+|\d+\.(?!\d{3}\D*$)\d+|\d{1,3}(?:,\d{3})+\.\d+)-?\s*"


_MISSING = {"", "nan", "none", "null", "nat", "n/a", "na", "#n/a", "#n/d", "n/d", "<na>", "-"}


@dataclass(frozen=True)
class CsvFormat:
    """Separator, Python encoding and decimal mark of a CSV."""

    separator: str = ","
    encoding: str = "utf-8-sig"
    decimal: str = "."


SPANISH_EXCEL = CsvFormat(";", "utf-8-sig", ",")  # what Excel opens with a double click where decimals have a comma


@dataclass(frozen=True)
class TableFile:
    """A CSV or XLSX file."""

    path: Path
    table: pd.DataFrame  # the rows below the titles, as they came, every cell as text
    cells: pd.DataFrame  # the same, with "" for every way of writing «no value» (`nan`, `N/A`, …)
    first_row: int  # number of the first of them in a spreadsheet; 2 if the titles are in the first row
    csv_format: CsvFormat  # in which tables about the file are written; `SPANISH_EXCEL` for those of a workbook
    notes: str  # how the file was read, in Spanish


@dataclass(frozen=True)
class NoticeFile(TableFile):
    """A file of notices, from `data.notices.read`."""

    columns: dict[str, str]  # column name per role: the description, the text fields, the labels
    text_columns: tuple[str, ...]  # of which the texts are composed
    passed_over: dict[str, tuple[str, str]]  # other columns with such a name: their role, and the reason in Spanish
    ids: pd.Series  # the number of each notice, or its row in a spreadsheet
    texts: pd.Series  # "" for a row without a description
    labels: pd.DataFrame  # one column per label, "" where it is missing; none if the labels were not read


def read_table(path: str | Path, is_title: IsTitle = lambda name: False, sheet: str = "") -> TableFile:
    """Read a CSV or XLSX file with every cell as text: no cell becomes a number, a date or a missing value.

    Repeated titles are numbered as by pandas (`Denominación.1`). Titles that `is_title` knows are evidence of their
    row. Without a sheet of that name in an XLSX, the first is read. Raises `UserError` if the file is missing, empty,
    damaged or not a table, or it is not certain which row has the titles.
    """
    path = plain_path(path)
    if not path.exists():
        raise UserError(f"No existe el archivo «{path}». Revise la ruta; la carpeta actual es {Path.cwd()}.")
    if path.is_dir():
        raise UserError(f"«{path}» es una carpeta. Indique el archivo CSV o XLSX que está dentro.")
    try:
        content = read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(
            f"No se puede leer «{path}»: {reason(error)}. Si otro programa lo tiene abierto, ciérrelo."
        ) from error
    if not content:
        raise UserError(EMPTY.format(path=path))
    if len(content) > LARGE:
        logger.info(f"Leyendo «{path}» ({len(content) / 2**20:,.0f} MiB)…")
    if table_suffix(path) == ".xlsx":
        table, skipped, notes = read_excel(path, content, is_title, sheet)
        csv_format = SPANISH_EXCEL
    else:
        table, skipped, separator, encoding = read_csv(path, content, is_title)
        name = "tabulador" if separator == "\t" else f"«{separator}»"
        notes, csv_format = f"CSV, separador {name}, codificación {encoding}", detect_format(table, separator, encoding)
    if note := skipped_note(skipped):
        notes += f"; {note}"
    table.columns = [re.sub(CONTROL, " ", str(name)).strip() for name in table.columns]
    if not table.columns.is_unique:
        twice = listed(f"«{clipped(name)}»" for name in table.columns[table.columns.duplicated()])
        raise UserError(f"«{path}» tiene columnas que solo se distinguen por espacios: {twice}. Cambie un nombre.")
    if table.empty:
        raise UserError(f"«{path}» no tiene filas de datos: solo los títulos {listed(table.columns)}.")
    return TableFile(path, table, blank_missing(table), skipped + 2, csv_format, notes)


def blank_missing(table: pd.DataFrame) -> pd.DataFrame:
    return table.apply(lambda column: column.where(~column.str.strip().str.lower().isin(_MISSING), ""))


def table_suffix(path: str | Path) -> str:
    return ".xlsx" if Path(path).suffix.lower() in EXCEL_SUFFIXES else ".csv"


def detect_format(table: pd.DataFrame, separator: str, encoding: str) -> CsvFormat:
    """Return the format to write the table of a CSV in; UTF-8 gets a byte-order mark, which Excel needs."""
    sample = table.head(max(1, SAMPLED_CELLS // max(1, table.shape[1])))
    commas, points = (
        sum(int(sample[name].str.fullmatch(pattern).sum()) for name in sample) for pattern in (_WITH_COMMA, _WITH_POINT)
    )
    usual = "." if separator == "," else ","
    decimal = usual if commas == points else "," if commas > points else "."
    return CsvFormat(separator, "utf-8-sig" if encoding == "utf-8" else encoding, decimal)
