"""Write a copy of the user's file with columns more: all that it had stays as it was, byte for byte."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pandas as pd
from openpyxl.utils import column_index_from_string, get_column_letter

from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.files.atomic import create_new
from ocensa_nb.files.notice_file import LARGEST, TableFile
from ocensa_nb.files.verify import read_regular
from ocensa_nb.files.write import inert, rounded

_ROW = re.compile(rb"<(?P<prefix>\w+:)?row\b(?P<attributes>[^>]*?)(?:/>|>(?P<cells>.*?)</(?:\w+:)?row>)", re.DOTALL)
_NUMBER = re.compile(rb'\br="(\d+)"')
_COLUMN = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)\d+"')
# Both are optional, and would be wrong with more columns.
_DIMENSION, _SPANS = re.compile(rb"<(?:\w+:)?dimension\b[^>]*/>"), re.compile(rb'\bspans="[^"]*"')
CHANGED = "«{path}» ha cambiado desde que se leyó. Repita el comando."
_BOM = codecs.BOM_UTF8.decode("latin-1")


def append_columns(file: TableFile, added: pd.DataFrame, path: Path) -> None:
    """Write a copy of a file to a new path, in its own format, with columns more at the right.

    Parameters
    ----------
    added
        One row per row of `file.table`; floats are rounded, and NaN and "" leave a cell empty.

    Raises
    ------
    UserError
        If the path exists or cannot be written, or the file has changed since it was read.
    UnicodeEncodeError
        If the encoding of a CSV lacks a character of the new columns.
    """
    content = read_regular(file.path, LARGEST)
    added = rounded(added)
    with create_new(path) as temporary:
        if file.sheet_part:
            _append_to_book(file, content, added, temporary)
        else:
            temporary.write_bytes(_appended_csv(file, content, inert(added)))


def _appended_csv(file: TableFile, content: bytes, added: pd.DataFrame) -> bytes:
    layout = file.csv_format
    wide = layout.encoding.startswith("utf-16")
    # A character per byte, so that every byte comes back; separators, quotes and line breaks are ASCII.
    text = content.decode(layout.encoding) if wide else content.decode("latin-1").removeprefix(_BOM)
    parts = re.split(r"(\r*\n)" if "\n" in text else r"(\r)", text)
    lines = parts[::2]
    above = _lines_of_records(lines, layout.separator, file.first_row - 2)
    cells = _cells_of_records(lines[above:], layout.separator, layout.quoted)
    rows = [list(added.columns), *_shown(added, layout.decimal)]
    records = [record for record, _ in zip(cells, rows, strict=False)]
    if len(records) < len(rows):
        raise UserError(CHANGED.format(path=file.path))
    for (last, width), values in zip(records, rows, strict=True):
        line = io.StringIO()
        csv.writer(line, delimiter=layout.separator, lineterminator="").writerow(values)
        new = line.getvalue()
        if not wide:
            new = new.encode(layout.encoding.removesuffix("-sig")).decode("latin-1")
        short = layout.separator * max(0, records[0][1] - width)  # a row that ends before its last columns
        parts[2 * (above + last)] += short + layout.separator + new
    result = "".join(parts)
    if wide:
        return result.encode(layout.encoding)
    return ((_BOM if layout.encoding == "utf-8-sig" else "") + result).encode("latin-1")  # Excel needs the mark


def _lines_of_records(lines: list[str], separator: str, records: int) -> int:
    """Return how many lines the first records have: one each, unless a quoted title above the table has several."""
    if not any('"' in line for line in lines[:records]):
        return records
    *_, (last, _) = islice(_cells_of_records(lines, separator, quoted=True), records)
    return last + 1


def _cells_of_records(lines: list[str], separator: str, quoted: bool) -> Iterator[tuple[int, int]]:
    """Yield the last line of each record, and how many cells it has."""
    if not quoted:
        yield from ((number, line.count(separator) + 1) for number, line in enumerate(lines))
        return
    reader = csv.reader((line.replace("\r", " ") + "\n" for line in lines), delimiter=separator)
    for record in reader:
        yield reader.line_num - 1, max(len(record), 1)


def _shown(added: pd.DataFrame, decimal: str) -> Iterator[list[str]]:
    for row in added.itertuples(index=False):
        yield [
            "" if pd.isna(value) else str(value).replace(".", decimal) if isinstance(value, float) else str(value)
            for value in row
        ]


def _append_to_book(file: TableFile, content: bytes, added: pd.DataFrame, temporary: Path) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            part = source.read(member)
            target.writestr(member, _with_cells(part, file, added) if member.filename == file.sheet_part else part)


def _with_cells(sheet: bytes, file: TableFile, added: pd.DataFrame) -> bytes:
    """Return the XML of a sheet with the new cells at the end of each row."""
    columns = {column_index_from_string(name.decode()) for name in set(_COLUMN.findall(sheet))}
    first = max(columns | {file.table.shape[1]}) + 1
    values: dict[int, list[Any]] = {file.first_row - 1: list(added.columns)}
    values |= {file.first_row + number: list(row) for number, row in enumerate(added.itertuples(index=False))}
    number = 0

    def extended(row: re.Match[bytes]) -> bytes:
        nonlocal number
        own = _NUMBER.search(row["attributes"])
        number = int(own[1]) if own else number + 1
        prefix = (row["prefix"] or b"").decode()
        new = "".join(
            _cell(prefix, f"{get_column_letter(first + place)}{number}", value)
            for place, value in enumerate(values.pop(number, ()))
            if _has_value(value)
        ).encode()
        return b"<%brow%b>%b%b</%brow>" % (
            prefix.encode(),
            _SPANS.sub(b"", row["attributes"]),
            row["cells"] or b"",
            new,
            prefix.encode(),
        )

    result = _ROW.sub(extended, _DIMENSION.sub(b"", sheet, count=1))
    if any(_has_value(value) for row in values.values() for value in row):
        raise UserError(CHANGED.format(path=file.path))
    return result


def _has_value(value: Any) -> bool:
    return not (pd.isna(value) or value == "")


def _cell(prefix: str, where: str, value: Any) -> str:
    if isinstance(value, float | int):
        return f'<{prefix}c r="{where}"><{prefix}v>{value}</{prefix}v></{prefix}c>'
    text = escape(re.sub(CONTROL, " ", str(value)))
    return (
        f'<{prefix}c r="{where}" t="inlineStr"><{prefix}is><{prefix}t xml:space="preserve">{text}</{prefix}t>'
        f"</{prefix}is></{prefix}c>"
    )
