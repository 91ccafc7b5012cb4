"""Read CSV files as plant systems export them: encoding, separator and header row are detected."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ocensa_nb.errors import UserError, num
from ocensa_nb.files.header import SCANNED_ROWS, Header, IsTitle, check_certain, check_width, find_header

SEPARATORS = ",;\t|"
LONGEST_HEADER = 100_000  # characters; the csv module takes no field of over 131,072
SCANNED_CHARACTERS = 1_000_000  # of a CSV, in which its header is looked for
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Encodings with a byte per letter, and the letters of evidence they need: of Windows, of DOS ("CSV (MS-DOS)" of Excel)
# and of the Mac. From three lines on, 40 of 40 files of each are read right; charset-normalizer reads 4 to 40 of them.
SINGLE_BYTE = {"cp1252": 0, "cp850": 0, "mac_roman": 2}
SAMPLED_BYTES = 10_000
_FOREIGN = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8, as `surrogateescape` gives them
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_UTF_8 = re.compile("[\x80-\xff]")  # two bytes of UTF-8 that no Spanish text has in another encoding
# The bytes in UTF-8 of a Spanish letter, and of a dash, a curly quote or a byte-order mark, read as Windows-1252.
_WITHIN = f"[\x80-\xbf{bytes(range(0x80, 0xA0)).decode('cp1252', 'ignore')}]"
_TWICE = re.compile(f"[ÂÃÅ]{_WITHIN}|[âï]{_WITHIN}{{2}}")
codecs.register_error("as latin-1", lambda error: (error.object[error.start : error.end].encode("latin-1"), error.end))
_SUITABLE = re.compile("(?<=[a-z])[áéíóúüñ]|[áéíóúüñ](?=[a-z])|(?<=[A-Z])[ÁÉÍÓÚÜÑ]|[ÁÉÍÓÚÜÑ](?=[A-Za-z])")
_SPANISH = "\x00-\x7fáéíóúüñÁÉÍÓÚÜÑºª°"
_UNSUITABLE = re.compile(
    f"(?<=[A-Za-z])[^{_SPANISH}](?=[A-Za-z])|(?<=[A-Za-z])[^{_SPANISH}”’»…–—²³®]|(?<=[a-z])[ÁÉÍÓÚÜÑ]|\x81|�"
)
_STRAY_QUOTE = {  # a closing quote before other text than a separator or a quote
    separator: re.compile(rf'(?:^|{re.escape(separator)})"(?:[^"]|"")*"[^"{re.escape(separator)}]')
    for separator in SEPARATORS
}
EMPTY = "El archivo «{path}» está vacío. Vuelva a exportarlo."
_AS_TEXT = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}
_HOW_TO_EXPORT = "Ábralo en Excel y guárdelo como «CSV UTF-8» o como libro .xlsx."
_UNQUOTE = f"Quite esa comilla, o escríbala dos veces dentro de un texto entre comillas. {_HOW_TO_EXPORT}"


def read_csv(
    path: Path, content: bytes, is_title: IsTitle, encoding: str = "", separator: str = "", line: int = 0
) -> tuple[pd.DataFrame, int, str, str, bool, list[str]]:
    """Return a CSV's table, rows above the titles, separator, encoding, whether it has quotes, and notes in Spanish.

    An encoding that is known is not detected; with a separator, the titles are in the first line. For a part of a file,
    `line` is how many lines of it the content lacks between the titles and the records.
    """
    text, encoding, notes = decode(path, content, encoding)
    if not text.strip():
        raise UserError(EMPTY.format(path=path))
    text, breaks = with_newlines(text)
    if breaks:
        notes.append(f"retornos dentro de un texto, leídos como espacios: {num(breaks)}")
    blank = len(text) - len(text.lstrip("\n"))
    text = text[blank:]
    if separator:
        header, start = Header(), 0
    else:
        separator, header, start = find_layout(text, is_title)
        check_certain(path, header, blank)
    text, above = text[start:].rstrip("\n\x1a"), blank + header.row
    with contextlib.suppress(csv.Error):  # a field of over 131,072 characters
        check_width(
            path, len(next(csv.reader(io.StringIO(text[:SCANNED_CHARACTERS], newline=""), delimiter=separator)))
        )
    line += above
    quoting, records = _count_records(path, text, separator, line, notes)
    try:
        # A StringIO would take four bytes a character.
        table = pd.read_csv(io.BytesIO(text.encode()), sep=separator, quoting=quoting, **_AS_TEXT)
        if not isinstance(table.index, pd.RangeIndex):
            raise pd.errors.ParserError("more cells than titles, in every row")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(_misshapen(path, text, separator, line, quoting)) from error
    if len(table) != records - 1:
        raise UserError(
            f"«{path}» tiene {num(records - 1)} filas bajo los títulos y se leyeron {num(len(table))}. {_HOW_TO_EXPORT}"
        )
    # A row shorter than the header leaves NaN even so.
    return table.fillna(""), above, separator, encoding, quoting == csv.QUOTE_MINIMAL and '"' in text, notes


def _count_records(path: Path, text: str, separator: str, above: int, notes: list[str]) -> tuple[int, int]:
    """Return how quotes are to be read, as a constant of `csv`, and the number of records, counted before parsing.

    A quote that is never closed joins lines. If every line has as many separators as the titles, and quotes would give
    other records than the lines, quotes are part of the text. If a line that they would join is a record by itself, the
    file is refused.
    """
    lines = text.split("\n")
    if '"' not in text:
        return csv.QUOTE_MINIMAL, len(lines)
    cells = lines[0].count(separator)
    is_plain = all(line.count(separator) == cells for line in lines if line)
    records, fault, odd = len(lines), None, False
    numbers: list[int] = []  # of the lines of a record

    def with_quotes() -> Iterator[str]:  # every other line is a record by itself
        for number, line in enumerate(lines):
            if numbers or '"' in line:
                numbers.append(number)
                yield line

    try:
        for record in csv.reader(with_quotes(), delimiter=separator):
            joined = lines[numbers[0] : numbers[-1] + 1]
            odd = odd or len(joined) > 1 or len(record) != cells + 1
            if fault is None and len(joined) > 1 and not _is_quoted_text(joined, separator, cells):
                fault = numbers[0]
            records -= len(joined) - 1
            numbers.clear()
    except csv.Error:  # a field of over 131,072 characters
        fault, odd = numbers[0] if fault is None else fault, True
    if is_plain and (odd or any('"' in line and _STRAY_QUOTE[separator].search(line) for line in lines)):
        notes.append("las comillas se leyeron como parte del texto")
        return csv.QUOTE_NONE, len(lines)
    if fault is not None:
        raise UserError(
            f"«{path}», línea {above + fault + 1}: una comilla se abre y no se cierra en esa fila, y uniría varias. "
            f"{_UNQUOTE}"
        )
    return csv.QUOTE_MINIMAL, records


def _misshapen(path: Path, text: str, separator: str, above: int, quoting: int) -> str:
    """Return what is wrong with a table that pandas does not take: the first row that is too wide, or an open quote."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    titles, line = len(next(reader)), 1
    for record in reader:
        if len(record) > titles:
            return (
                f"«{path}», línea {above + line + 1}: tiene más celdas que títulos ({len(record)} y {titles}, "
                f"separador «{separator}»). Suele ser un separador dentro de un texto sin comillas, o al final de la "
                "fila, u otra tabla unida a esta. Corrija esa línea; si encima de los títulos hay otras, bórrelas."
            )
        last, line = line, reader.line_num
    return f"«{path}», línea {above + last + 1}: una comilla se abre y no se cierra. {_UNQUOTE}"


def _is_quoted_text(lines: list[str], separator: str, cells: int) -> bool:
    """Return whether lines that quotes join are one record: well quoted, and no line within is a record by itself."""
    within = [strict_records([line], separator) for line in lines[1:-1]]
    return bool(strict_records(lines, separator)) and all(len(row) != cells + 1 for rows in within for row in rows)


def strict_records(lines: list[str], separator: str) -> list[list[str]]:
    """Return the records of lines; none if a quote is misplaced or not closed."""
    try:
        return list(csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True))
    except csv.Error:
        return []


def with_newlines(text: str) -> tuple[str, int]:
    """Return a text whose lines end in a newline, and how many returns inside a line became spaces."""
    text = re.sub(r"\r+\n", "\n", text) if "\r" in text else text
    # In a file whose lines end in \n, a return is a line break inside a text.
    inside = "\n" in text
    return text.replace("\r", " " if inside else "\n"), text.count("\r") * inside


def decode(path: Path, content: bytes, known: str = "") -> tuple[str, str, list[str]]:
    """Return the text of a CSV, its encoding, and what was doubtful, in Spanish.

    By its byte-order mark or its zeros; else UTF-8, with single foreign bytes read as Windows-1252; else the encoding
    of Windows, DOS or the Mac in which the text looks most like Spanish. For a part of a file, its encoding is `known`.
    """
    if known in SINGLE_BYTE and known != "cp1252":  # which may be of a file joined from both
        return content.decode(known, "replace"), known, []
    marked = next((encoding for bom, encoding in _BOMS.items() if content.startswith(bom)), None)
    if marked is None and b"\0" in content:
        zeros = [content[start : 2 * SAMPLED_BYTES : 2].count(0) for start in (0, 1)]
        if max(zeros) < min(len(content) // 2, SAMPLED_BYTES) / 2 or min(zeros):
            raise UserError(f"«{path}» no es un archivo de texto, aunque se llame .csv. {_HOW_TO_EXPORT}")
        marked = "utf-16-be" if zeros[0] else "utf-16-le"
    foreign = []
    try:
        text, encoding = content.decode(marked or "utf-8"), marked or "utf-8"
    except UnicodeDecodeError as error:
        if marked and marked != "utf-8-sig":
            raise UserError(f"«{path}» está dañado: no es {marked} hasta el final. {_HOW_TO_EXPORT}") from error
        text, encoding = content.decode(marked or "utf-8", "surrogateescape"), marked or "utf-8"
        foreign = _FOREIGN.findall(text)
    if foreign and not known and not _UTF_8.search(text):
        return _decode_single_bytes(path, content)
    notes = []
    if foreign:
        # Most of a file that was joined from both encodings is in the other one.
        if not (known or marked) and len(foreign) > len(_BEYOND_ASCII.findall(text)) / 2:
            encoding = "cp1252"
        row = text.count("\n", 0, _FOREIGN.search(text).start()) + 1
        text = _FOREIGN.sub(lambda byte: byte[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace"), text)
        notes.append(
            f"bytes que no son UTF-8, leídos como Windows-1252: {num(len(foreign))} (el primero, en "
            f"la línea {num(row)})"
        )
    letters = 0
    while any(first in text for first in "ÂÃÅâï") and (fixed := _TWICE.subn(_decode_again, text))[0] != text:
        text, letters = fixed[0], letters + fixed[1]
    if letters:
        notes.append(f"letras convertidas dos veces («Ã³» por «ó»), corregidas: {num(letters)}")
    if lost := text.count("�"):
        notes.append(f"letras perdidas al exportar («�» en su lugar): {num(lost)}; expórtelo de nuevo")
    return text.lstrip("\ufeff"), known or encoding, notes


def _decode_single_bytes(path: Path, content: bytes) -> tuple[str, str, list[str]]:
    """Return what `decode` does, in the encoding of Windows if it suits Spanish words, else in the likeliest one."""
    windows = content.decode("cp1252", "replace")
    if not _UNSUITABLE.search(windows):
        return windows, "cp1252", []
    texts = {name: content.decode(name, "replace") for name in SINGLE_BYTE}
    likeness = {name: _likeness(text) for name, text in texts.items()}
    encoding = max(texts, key=lambda name: likeness[name] - SINGLE_BYTE[name])
    if "�" in windows and likeness[encoding] <= 0:
        raise UserError(f"«{path}» tiene caracteres que no son UTF-8 ni Windows-1252. {_HOW_TO_EXPORT}")
    doubt = "no es UTF-8, y no es seguro: compruebe los acentos"
    return texts[encoding], encoding, [doubt] if likeness[encoding] < 0 else []


def _decode_again(match: re.Match[str]) -> str:
    try:
        return match[0].encode("cp1252", "as latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _likeness(text: str) -> int:
    """Return how much a text looks like Spanish: accented letters that suit their word, less other signs in words."""
    return len(_SUITABLE.findall(text)) - len(_UNSUITABLE.findall(text))


def find_layout(text: str, is_title: IsTitle) -> tuple[str, Header, int]:
    """Return the separator of a CSV, its header, and the position in the text where the line of the header starts."""
    # A line above the titles, such as «Reporte de avisos, 2024», says nothing about the separator.
    usual = _separator(text)
    rows, starts = _first_rows(text, usual)
    best = find_header(rows, is_title)
    separator, start = usual, starts[best.row]
    widths = [len(row) for row in rows[best.row :] if row]
    regular = widths[:1] > [1] and widths.count(widths[0]) > len(widths) / 2
    for other in SEPARATORS:
        rows, starts = _first_rows(text, other)
        header = find_header(rows, is_title)
        by_shape = not (header.known or best.known or regular) and len(header.titles) > len(best.titles)
        by_names = header.known > best.known and (best.row or not best.known or header.outweighs(best))
        if header.row and (by_names or by_shape):
            separator, best, start = other, header, starts[header.row]
    return separator, best, start


def _first_rows(text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Return the first rows of a CSV, as far as they can be read, and the position in the text of each and the end."""
    stream = io.StringIO(text[:SCANNED_CHARACTERS], newline="")
    rows, starts = [], [0]
    with contextlib.suppress(csv.Error):
        for row in csv.reader(stream, delimiter=separator):
            rows.append(row)
            starts.append(stream.tell())
            if len(rows) == SCANNED_ROWS:
                break
    return rows, starts


def _separator(text: str) -> str:
    header = re.sub(r"\A\s*\n", "", text[:LONGEST_HEADER])  # its quoted titles may have line breaks
    return max(SEPARATORS, key=lambda sep: len(next(csv.reader(io.StringIO(header, newline=""), delimiter=sep), [])))
