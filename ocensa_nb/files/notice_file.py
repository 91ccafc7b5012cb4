"""Read a file of notices as a table of text; what is known of the file."""

import io
import logging
import re
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.errors import CONTROL, UserError, clipped, listed, num
from ocensa_nb.files.header import IsTitle, skipped_note
from ocensa_nb.files.read_csv import EMPTY, read_csv
from ocensa_nb.files.read_excel import Book, read_excel
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


_MISSING = {"", "nan", "none", "null", "nat", "n/a", "na", "n/d", "<na>", "-"}
# Of Excel and Google Sheets, in English and in Spanish; of LibreOffice; of a column too narrow for a date.
ERROR = re.compile(r"#[¡¿]?[a-z]+(?:/0)?[!?]|#n/[ad]|#getting_data|#obteniendo_datos|err:\d{3}|#{3,}")
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
SNIFFED_BYTES = 4096
_PARTS = {"xl/workbook.bin": "un libro binario de Excel (.xlsb)", "content.xml": "un libro de LibreOffice (.ods)"}
_PACKED = "un archivo comprimido"
_SAVE_AS = "Ábralo en Excel o LibreOffice y guárdelo como .xlsx."
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_QUOTED = re.compile(r'="(.*)"')
_APOSTROPHE = re.compile(r"^'(?=[=+\-@\d])")


@dataclass(frozen=True)
class CsvFormat:
    """Separator, Python encoding and decimal mark of a CSV."""

    separator: str = ","
    encoding: str = "utf-8-sig"
    decimal: str = "."
    quoted: bool = True  # whether quotes are no part of the texts


SPANISH_EXCEL = CsvFormat(";", "utf-8-sig", ",")  # what Excel opens with a double click where decimals have a comma


@dataclass(frozen=True)
class Part:
    """A part of a CSV that is read by parts: its titles and some of its records."""

    content: bytes
    encoding: str = ""  # of the file; "" if it is to be detected
    separator: str = ""  # the same; without it, there may be rows above the titles
    before: int = 0  # rows of the file before those of the part
    line: int = 0  # lines of the file that are not in the content, before its first record


@dataclass(frozen=True)
class TableFile:
    """A CSV or XLSX file."""

    path: Path
    table: pd.DataFrame  # the rows below the titles, as they came, every cell as text
    cells: pd.DataFrame  # the same, with "" for every way of writing «no value» (`nan`, `N/A`, …)
    above: int  # rows above the titles
    first_row: int  # number of the first of them in a spreadsheet; 2 if the titles are in the first row
    csv_format: CsvFormat  # in which tables about the file are written; `SPANISH_EXCEL` for those of a workbook
    notes: str  # how the file was read, in Spanish
    book: Book | None  # None for a CSV

    @property
    def copy_suffix(self) -> str:
        """The suffix of a copy; "" if a table has to do: a copy of a book with macros may not be named .xlsx."""
        return ".csv" if self.book is None else ".xlsx" if self.path.suffix.lower() == ".xlsx" else ""


@dataclass(frozen=True)
class NoticeFile(TableFile):
    """A file of notices, from `data.notices.read`."""

    columns: dict[str, str]  # column name per role: the description, the text fields, the labels
    text_columns: tuple[str, ...]  # of which the texts are composed
    values: dict[str, dict[str, int]]  # per role in the text, and title in `fields`, the rows of each value
    passed_over: dict[str, tuple[str, str]]  # other columns with such a name: their role, and the reason in Spanish
    ids: pd.Series  # the number of each notice, or its row in a spreadsheet
    texts: pd.Series  # "" for a row without a description
    fields: pd.DataFrame  # canonical values of the other columns that a model may read, by title, a row per row
    known_fields: tuple[str, ...]  # those of them that are filled when a notice is created
    labels: pd.DataFrame  # one column per label, "" where it is missing; none if the labels were not read
    left_out: dict[str, int]  # rows that are no notices, by kind in Spanish: they have no text and no labels
    spellings: dict[str, dict[str, dict[str, int]]]  # per label, the classes with several spellings, and rows of each

    @property
    def filled(self) -> dict[str, float]:
        """The share of the rows with a text in which each role or title of `values` has one."""
        rows = int((self.texts != "").sum())
        return {role: sum(counts.values()) / max(rows, 1) for role, counts in self.values.items()}


def read_table(
    path: str | Path, is_title: IsTitle = lambda name: False, sheet: str = "", part: Part | None = None
) -> TableFile:
    """Read a CSV or XLSX file with every cell as text: no cell becomes a number, a date or a missing value.

    Repeated titles are numbered as by pandas (`Denominación.1`). Titles that `is_title` knows are evidence of their
    row. Without a sheet of that name in an XLSX, the first is read. Of a CSV, a part may be read instead of all.
    Raises `UserError` if the file is missing, empty, damaged or not a table, or it is not certain which row has the
    titles.
    """
    path = plain_path(path)
    if not path.exists():
        raise UserError(f"No existe el archivo «{path}». Revise la ruta; la carpeta actual es {Path.cwd()}.")
    if path.is_dir():
        raise UserError(f"«{path}» es una carpeta. Indique el archivo CSV o XLSX que está dentro.")
    try:
        content = part.content if part else read_regular(path, LARGEST)
    except OSError as error:
        raise UserError(
            f"No se puede leer «{path}»: {reason(error)}. Si otro programa lo tiene abierto, ciérrelo."
        ) from error
    if not content:
        raise UserError(EMPTY.format(path=path))
    if len(content) > LARGE and not part:
        logger.info(f"Leyendo «{path}» ({num(len(content) / 2**20)} MiB)…")
    if is_workbook(path, content):
        table, skipped, notes, book = read_excel(path, content, is_title, sheet)
        csv_format = SPANISH_EXCEL
    else:
        known = (part.encoding, part.separator, part.line) if part else ()
        table, skipped, separator, encoding, quoted, remarks = read_csv(path, content, is_title, *known)
        book = None
        name = "tabulador" if separator == "\t" else f"«{separator}»"
        notes = "; ".join([f"CSV, separador {name}, codificación {encoding}", *remarks])
        csv_format = detect_format(table, separator, encoding, quoted)
    if note := skipped_note(skipped):
        notes += f"; {note}"
    # A title that is wrapped in its cell is one line, as a person types it.
    table.columns = [" ".join(_unprotected(re.sub(CONTROL, " ", str(name))).split()) for name in table.columns]
    if not table.columns.is_unique:
        twice = listed(f"«{clipped(name)}»" for name in table.columns[table.columns.duplicated()])
        raise UserError(f"«{path}» tiene columnas que solo se distinguen por espacios: {twice}. Cambie un nombre.")
    if table.empty:
        raise UserError(f"«{path}» no tiene filas de datos: solo los títulos {listed(table.columns)}.")
    cells, errors = readable(table)
    if errors:
        names = listed(error.upper() for error in errors)
        notes += f"; celdas con un error ({names}), leídas vacías: {num(sum(errors.values()))}"
    first_row = skipped + 2 + (part.before if part else 0)
    return TableFile(path, table, cells, skipped, first_row, csv_format, notes, book)


def is_workbook(path: Path, content: bytes) -> bool:
    """Return whether a file is an XLSX book, whatever its name; raises `UserError` if it is another kind of book."""
    kind = ""
    start = content[:SNIFFED_BYTES].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    if content.startswith(_ZIP):
        try:
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        except zipfile.BadZipFile:
            return True  # a damaged book: its reader says so
        is_book = any(name.startswith("xl/") for name in names)
        kind = next((_PARTS[name] for name in names if name in _PARTS), "" if is_book else _PACKED)
        if not kind:
            return True
    elif content.startswith(_OLE):
        locked = path.suffix.lower() in EXCEL_SUFFIXES or "EncryptedPackage".encode("utf-16-le") in content
        kind = "un libro con contraseña (quítesela)" if locked else "un libro de Excel 97-2003 (.xls)"
    elif content.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")):  # gzip, …
        kind = _PACKED
    elif start.startswith(b"<?xml") and b"<html" not in start:
        kind = "un archivo XML (como los libros de Excel 2003)"
    elif re.match(rb"mime-version|<!|<\?xml|<(html|head|body|style|div|table)\b", start):
        kind = "una página HTML"
    if kind:
        remedy = "Extraiga el archivo de avisos e indíquelo." if kind == _PACKED else _SAVE_AS
        raise UserError(f"«{path}» es {kind}, y aquí no se lee. {remedy}")
    return False


def readable(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the cells as they are meant, "" for every way of writing «no value», and the rows of each error value.

    A spreadsheet protects what it writes: `="007"`, `'007`, `_x000D_` for a return.
    """
    errors: Counter[str] = Counter()

    def read(column: pd.Series) -> pd.Series:
        codes, values = pd.factorize(column)  # a value is read once, however often it is repeated
        meant = [value.strip() for value in values]
        meant = [_unprotected(value) if value[:1] in ("'", "=") or "_x" in value else value for value in meant]
        for code, value in enumerate(meant):
            folded = value.lower()
            if is_error := value[:1] in ("#", "E") and bool(ERROR.fullmatch(folded)):
                errors[folded] += int((codes == code).sum())
            if is_error or folded in _MISSING:
                meant[code] = ""
        unchanged = meant == list(values)
        return column if unchanged else pd.Series(np.array(meant, object)[codes], column.index, column.dtype)

    return table.apply(read), dict(errors)


def _unprotected(text: str) -> str:
    text = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # both halves of a pair, or neither
    return (match[1] if (match := _QUOTED.fullmatch(text)) else _APOSTROPHE.sub("", text)).strip()


def table_suffix(path: str | Path) -> str:
    return ".xlsx" if Path(path).suffix.lower() in EXCEL_SUFFIXES else ".csv"


def detect_format(table: pd.DataFrame, separator: str, encoding: str, quoted: bool = True) -> CsvFormat:
    """Return the format to write the table of a CSV in; UTF-8 gets a byte-order mark, which Excel needs."""
    sample = table.head(max(1, SAMPLED_CELLS // max(1, table.shape[1])))
    commas, points = (
        sum(int(sample[name].str.fullmatch(pattern).sum()) for name in sample) for pattern in (_WITH_COMMA, _WITH_POINT)
    )
    usual = "." if separator == "," else ","
    decimal = usual if commas == points else "," if commas > points else "."
    return CsvFormat(separator, "utf-8-sig" if encoding == "utf-8" else encoding, decimal, quoted)
