"""Write a copy of the user's file with columns and sheets more: all that it had stays as it was, byte for byte."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring
from xml.sax.saxutils import escape, quoteattr

import pandas as pd
from openpyxl.packaging.relationship import get_dependents, get_rels_path
from openpyxl.utils import column_index_from_string, get_column_letter
from openpyxl.xml.constants import ARC_CONTENT_TYPES, ARC_ROOT_RELS, ARC_STYLE, ARC_WORKBOOK, REL_NS, WORKSHEET_TYPE

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
_SHEET_ID = re.compile(rb'\bsheetId="(\d+)"')
# Of the styles of a book, by the attribute that refers to each by its place.
_FORMATS = {b"fontId": "fonts", b"fillId": "fills", b"borderId": "borders", b"s": "cellXfs"}
_FORMAT, _STYLE = re.compile(rb'() (fontId|fillId|borderId)="(\d+)"'), re.compile(rb'(<c r="[A-Z]+\d+") (s)="(\d+)"')
CHANGED = "«{path}» ha cambiado desde que se leyó. Repita el comando."
_BOM = codecs.BOM_UTF8.decode("latin-1")


def append_columns(
    file: TableFile, added: pd.DataFrame, path: Path, sheets: bytes = b"", sheets_first: bool = False
) -> None:
    """Write a copy of a file to a new path, in its own format, with columns more at the right.

    Parameters
    ----------
    added
        One row per row of `file.table`; floats are rounded, and NaN and "" leave a cell empty.
    sheets
        A book of openpyxl whose sheets are put at the end of a copy of a book, or at the start, where the book opens.
        Their names must be free.

    Raises
    ------
    UserError
        If the path exists or cannot be written, or the file has changed since it was read.
    UnicodeEncodeError
        If the encoding of a CSV lacks a character of the new columns.
    """
    content = read_regular(file.path, LARGEST)
    with create_new(path) as temporary:
        if file.book:
            _append_to_book(file, content, rounded(added), sheets, sheets_first, temporary)
        else:
            temporary.write_bytes(append_to_csv(file, content, added))


def append_to_csv(file: TableFile, content: bytes, added: pd.DataFrame, titles: bool = True) -> bytes:
    """Return a CSV, or a part of it without its titles, with columns more at the right; see `append_columns`."""
    layout = file.csv_format
    # A character per byte, so that every byte comes back; separators, quotes and line breaks are ASCII.
    encoding = layout.encoding if layout.encoding.startswith("utf-16") else "latin-1"
    parts = _appended_csv(file, content.decode(encoding).removeprefix(_BOM), inert(rounded(added)))
    if not titles:
        parts = parts[2 * _lines_of_records(parts[::2], layout.separator, 1) :]
    mark = _BOM if titles and layout.encoding == "utf-8-sig" else ""  # Excel needs it
    return (mark + "".join(parts)).encode(encoding)


def _appended_csv(file: TableFile, text: str, added: pd.DataFrame) -> list[str]:
    """Return the lines of a copy and their breaks, in turns."""
    layout = file.csv_format
    parts = re.split(r"(\r*\n)" if "\n" in text else r"(\r)", text)
    lines = parts[::2]
    above = _lines_of_records(lines, layout.separator, file.above)
    cells = _cells_of_records(lines[above:], layout.separator, layout.quoted)
    records = list(islice(cells, 1 + len(added)))
    if len(records) < 1 + len(added):
        raise UserError(CHANGED.format(path=file.path))
    for (last, width), values in zip(records, chain([added.columns], _shown(added, layout.decimal)), strict=True):
        line = io.StringIO()
        csv.writer(line, delimiter=layout.separator, lineterminator="").writerow(values)
        new = line.getvalue()
        if not layout.encoding.startswith("utf-16"):
            new = new.encode(layout.encoding.removesuffix("-sig")).decode("latin-1")
        short = layout.separator * max(0, records[0][1] - width)  # a row that ends before its last columns
        parts[2 * (above + last)] += short + layout.separator + new
    return parts


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


def _append_to_book(
    file: TableFile, content: bytes, added: pd.DataFrame, sheets: bytes, sheets_first: bool, temporary: Path
) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        parts = {file.book.part: _with_cells(source.read(file.book.part), file, added)}
        parts |= _with_sheets(source, sheets, sheets_first) if sheets else {}
        for member in source.infolist():
            part = parts.pop(member.filename) if member.filename in parts else source.read(member)
            if sheets and sheets_first and member.filename.startswith(("xl/worksheets/", "xl/chartsheets/")):
                part = part.replace(b' tabSelected="1"', b"", 1)
            target.writestr(member, part)
        for name, part in parts.items():
            target.writestr(name, part)


def _with_sheets(source: zipfile.ZipFile, sheets: bytes, first: bool) -> dict[str, bytes]:
    """Return the parts of a book that are new or change with the sheets of another book, of openpyxl."""
    main = next(get_dependents(source, ARC_ROOT_RELS).find(f"{REL_NS}/officeDocument")).target
    relations, members = get_rels_path(main), source.namelist()
    parts = {name: source.read(name) for name in (main, relations, ARC_CONTENT_TYPES)}
    last = max(int(number) for number in _SHEET_ID.findall(parts[main]))
    with zipfile.ZipFile(io.BytesIO(sheets)) as other:
        styles = source.read(ARC_STYLE) if ARC_STYLE in members else b"<none/>"
        formats = {key: len(fromstring(styles).findall(f"{{*}}{name}/*")) for key, name in _FORMATS.items()}
        if formatted := all(formats.values()):
            parts[ARC_STYLE] = styles
            for name in _FORMATS.values():
                new = re.search(
                    rb"<%b\b[^>]*>(.*)</" % name.encode() + name.encode(), other.read(ARC_STYLE), re.DOTALL
                )[1]
                _insert(parts, ARC_STYLE, name, _shifted(new, _FORMAT, formats))
        for number, sheet in enumerate(fromstring(other.read(ARC_WORKBOOK)).findall(".//{*}sheet"), 1):
            key = f"ocensa{len(members) + number}"
            name, title, state = f"xl/worksheets/{key}.xml", quoteattr(sheet.get("name")), sheet.get("state")
            xml = other.read(f"xl/worksheets/sheet{number}.xml")
            # What is typed in one of several selected sheets is written to all: the user's stays the only one.
            xml = xml if first else xml.replace(b' tabSelected="1"', b"")
            parts[name] = _shifted(xml, _STYLE, formats) if formatted else _STYLE.sub(rb"\1", xml)
            entry = f'<sheet name={title} sheetId="{last + number}" state="{state}" xmlns:r="{REL_NS}" r:id="{key}"/>'
            relation = f'<Relationship Id="{key}" Type="{REL_NS}/worksheet" Target="/{name}"/>'
            kind = f'<Override PartName="/{name}" ContentType="{WORKSHEET_TYPE}"/>'
            _insert(parts, main, "sheets", entry.encode(), first)
            _insert(parts, relations, "Relationships", relation.encode())
            _insert(parts, ARC_CONTENT_TYPES, "Types", kind.encode())
    if first:  # names of the book refer to its sheets by their place
        names = re.sub(rb'\blocalSheetId="(\d+)"', lambda m: b'localSheetId="%d"' % (int(m[1]) + number), parts[main])
        parts[main] = re.sub(rb' (?:activeTab|firstSheet)="\d+"', b"", names)
    return parts


def _shifted(part: bytes, reference: re.Pattern[bytes], by: Mapping[bytes, int]) -> bytes:
    """Return XML whose references to formats are greater by the number of formats before theirs."""
    return reference.sub(lambda match: b'%b %b="%d"' % (match[1], match[2], int(match[3]) + by[match[2]]), part)


def _insert(parts: dict[str, bytes], name: str, parent: str, children: bytes, first: bool = False) -> None:
    """Put children at the end, or the start, of the only element of a name in a part, in its namespace."""
    part = parts[name]
    start = re.search(rb"<((?:\w+:)?)%b\b[^>]*>" % parent.encode(), part)
    end = part.index(b"</%b%b>" % (start[1], parent.encode()))
    children = re.sub(rb"<(/?)(?=\w)", rb"<\1" + start[1], children)
    uncounted = re.sub(rb' count="\d+"', b"", start[0])  # it is optional
    inside = part[start.end() : end]
    inside = children + inside if first else inside + children
    parts[name] = part[: start.start()] + uncounted + inside + part[end:]


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
        )
        tag = prefix.encode() + b"row"
        return b"<%b%b>%b%b</%b>" % (tag, _SPANS.sub(b"", row["attributes"]), row["cells"] or b"", new.encode(), tag)

    result = _ROW.sub(extended, _DIMENSION.sub(b"", sheet, count=1))
    if any(_has_value(value) for row in values.values() for value in row):
        raise UserError(CHANGED.format(path=file.path))
    return result


def _has_value(value: Any) -> bool:
    return not (pd.isna(value) or value == "")


def _cell(ns: str, where: str, value: Any) -> str:
    if isinstance(value, float | int):
        return f'<{ns}c r="{where}"><{ns}v>{value}</{ns}v></{ns}c>'
    text = escape(re.sub(CONTROL, " ", str(value)))
    return f'<{ns}c r="{where}" t="inlineStr"><{ns}is><{ns}t xml:space="preserve">{text}</{ns}t></{ns}is></{ns}c>'
