"""How a CSV is written: separator, encoding and decimal mark; those of a table that was read are detected."""

from dataclasses import dataclass

import pandas as pd

ATTRIBUTE = "csv_format"  # the key in `DataFrame.attrs` of a table that came from a CSV
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


def detect_format(table: pd.DataFrame, separator: str, encoding: str) -> CsvFormat:
    """Return the format in which a table of a CSV is written back.

    UTF-8 gets a byte-order mark even if the file had none: without it, Excel takes the text for Windows-1252 and shows
    `vÃ¡lvula`. The decimal mark is that of most numbers of the table; if it has none, the point with the separator `,`
    and the comma with any other, as Excel pairs them.
    """
    sample = table.head(max(1, SAMPLED_CELLS // max(1, table.shape[1])))
    commas, points = (
        sum(int(sample[name].str.fullmatch(pattern).sum()) for name in sample) for pattern in (_WITH_COMMA, _WITH_POINT)
    )
    usual = "." if separator == "," else ","
    decimal = usual if commas == points else "," if commas > points else "."
    return CsvFormat(separator, "utf-8-sig" if encoding == "utf-8" else encoding, decimal)
