"""What a file of notices contains: its table as it came, the text of each row, and how its CSV is written."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SAMPLED_CELLS = 100_000
# Numbers with decimals. Three decimals after a whole number, as in 1.234, may be thousands: they do not count.
_WITH_COMMA = r"\s*[+-]?(?:0,\d+|\d+,(?!\d{3}\D*$)\d+|\d{1,3}(?:\.\d{3})+,\d+)-?\s*"
_WITH_POINT = r"\s*[+-]?(?:0\.\d+|\d+\.(?!\d{3}\D*$)\d+|\d{1,3}(?:,\d{3})+\.\d+)-?\s*"


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


def detect_format(table: pd.DataFrame, separator: str, encoding: str) -> CsvFormat:
    """Return the format in which a table of a CSV is written back.

    UTF-8 gets a byte-order mark even if the file had none: without it, Excel takes the text for Windows-1252 and shows
    `vÃ¡lvula`. Without numbers, the decimal mark is the point with the separator `,` and the comma with any other.
    """
    sample = table.head(max(1, SAMPLED_CELLS // max(1, table.shape[1])))
    commas, points = (
        sum(int(sample[name].str.fullmatch(pattern).sum()) for name in sample) for pattern in (_WITH_COMMA, _WITH_POINT)
    )
    usual = "." if separator == "," else ","
    decimal = usual if commas == points else "," if commas > points else "."
    return CsvFormat(separator, "utf-8-sig" if encoding == "utf-8" else encoding, decimal)
