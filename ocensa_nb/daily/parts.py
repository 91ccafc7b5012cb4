"""Read a CSV of any size in parts, in bounded memory."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ocensa_nb.files.header import IsTitle
from ocensa_nb.files.notice_file import Part
from ocensa_nb.files.read_csv import SCANNED_CHARACTERS, decode, find_layout, strict_records, with_newlines
from ocensa_nb.files.verify import open_regular

PART_BYTES = 2**23  # some 20,000 notices of SAP: a table takes twenty times as much
BLOCK = 2**20  # bytes
MOST_EVIDENCE = 2**21  # bytes of lines with letters beyond ASCII, by which the encoding is detected
COUNTED_LINES = 200  # at the end of a part, of which most have the usual cells
_NOT_TEXT = (b"PK", b"\xd0\xcf", b"\xff\xfe", b"\xfe\xff")  # books, and UTF-16


def split(path: Path, is_title: IsTitle) -> Iterator[Part | None]:
    """Yield the parts of a CSV, of equal size, each a table by itself; None for a file that is to be read as a whole.

    What concerns all of a file is decided once: its encoding, its separator and its titles.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size <= PART_BYTES:
        yield None
        return
    with open_regular(path) as file:
        encoding = _encoding(file)
        file.seek(0)
        titles, separator = _layout(path, file.read(BLOCK), encoding, is_title) if encoding else (b"", "")
        if not titles:
            yield None
            return
        file.seek(0)
        line, block = 0, b""  # lines of the file before the block
        while new := file.read(-(-size // -(-size // PART_BYTES))):
            block += new
            cut = _last_start(block, separator) if file.tell() < size else len(block)
            if cut:
                if line:
                    yield Part(titles + block[:cut], encoding, separator, line=line - titles.count(b"\n"))
                else:  # it has its own titles, perhaps below other lines
                    yield Part(block[:cut], encoding)
                line += block.count(b"\n", 0, cut)
                block = block[cut:]


def _encoding(file: BinaryIO) -> str:
    """Return the encoding of a CSV, from its lines with letters beyond ASCII; "" if it is not read in parts."""
    start = file.read(BLOCK)
    if start.startswith(_NOT_TEXT) or b"\0" in start or b"\n" not in start:
        return ""
    # Lines that are UTF-8, first the one that may have a byte-order mark; and others.
    evidence = {True: bytearray(start[: start.index(b"\n") + 1]), False: bytearray()}
    file.seek(0)
    rest = b""
    while min(map(len, evidence.values())) < MOST_EVIDENCE and (block := file.read(BLOCK)):
        *lines, rest = (rest + block).split(b"\n")
        if block.isascii() and rest.isascii():
            continue
        for line in lines:
            if not line.isascii() and len(evidence[valid := _is_utf_8(line)]) < MOST_EVIDENCE:
                evidence[valid] += line + b"\n"
    return decode(Path(), b"".join(evidence.values()) + rest)[1]


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _layout(path: Path, start: bytes, encoding: str, is_title: IsTitle) -> tuple[bytes, str]:
    """Return the line or lines of the titles, and the separator; nothing if the file is not read in parts."""
    text = with_newlines(decode(path, start, encoding)[0])[0]
    blank = len(text) - len(text.lstrip("\n"))
    separator, _, position = find_layout(text[blank:], is_title)
    text = text[blank:][position:]
    reader = csv.reader(io.StringIO(text[:SCANNED_CHARACTERS], newline=""), delimiter=separator)
    if len(next(reader)) == 1:
        return b"", ""  # any line may be a record, also one within quotes
    lines = start.split(b"\n")
    first = start.count(b"\n") - text.count("\n")
    return b"\n".join(lines[first : first + reader.line_num]) + b"\n", separator


def _last_start(block: bytes, separator: str) -> int:
    """Return where the last line starts that, as the one before it, is a record by itself; 0 if there is none."""
    lines = block[: block.rfind(b"\n") + 1].decode("latin-1").split("\n")[:-1]
    widths = [_width(line, separator) for line in lines[-COUNTED_LINES:]]
    usual = Counter(widths).most_common(1)[0][0] if widths else 0
    after = block.rfind(b"\n") + 1
    for place in range(len(lines) - 1, 0, -1):
        after -= len(lines[place]) + 1
        if usual > 1 and all(_width(line, separator) == usual for line in lines[place - 1 : place + 1]):
            return after
    return 0


def _width(line: str, separator: str) -> int:
    """Return how many cells a line has, 0 if it is no record by itself."""
    records = strict_records([line.removesuffix("\r")], separator)
    return len(records[0]) if len(records) == 1 else 0
