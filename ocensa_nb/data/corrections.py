"""Read, write and merge corrections: the right class of a label of a notice, which wins over that of the file."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from openpyxl.utils.cell import coordinate_to_tuple

from ocensa_nb.data.canonical import canonical, canonical_id, fold, plain
from ocensa_nb.data.report import CorrectionsReport
from ocensa_nb.errors import UserError, listed, unknown
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.notice_file import ERROR, SPANISH_EXCEL, TableFile, read_table
from ocensa_nb.files.write import inert, protected

ID, TEXT = "id_aviso", "texto"
SHEET = "Dudosos"  # of the workbook of a review
RIGHT = "correcta_"  # + label: the column of the right class
_PREDICTED = re.compile(r"(pred|conf)\d+_")  # columns of that sheet
Key = tuple[str, str]  # the number and the text of a notice
CORRECTED = "corregida"  # the column of merged notices: whether a row has a correction


@dataclass(frozen=True)
class Corrections:
    """The corrections of a file."""

    source: str
    table: pd.DataFrame  # `id_aviso`, `texto` and one column per head, "" if not corrected; indexed by spreadsheet row
    absent: tuple[str, ...] = ()  # columns of answers that the file does not have
    others: pd.DataFrame = field(default_factory=pd.DataFrame)  # columns of the file that `review` does not write


def read_corrections(path: str | Path, heads: Collection[str]) -> Corrections:
    """Read the corrections of a review: its CSV, or its workbook with the cells of `SHEET` filled in."""
    wanted = {f"{RIGHT}{head}": head for head in heads}
    file = read_table(path, lambda cell: fold(cell) in (ID, TEXT, *wanted), SHEET)
    names = [fold(name) for name in file.table]
    _refuse_unread(file, [place for place, name in enumerate(names) if name in wanted])
    cells = file.cells.set_axis(names, axis=1)
    if twice := [name for name in (ID, TEXT, *wanted) if names.count(name) > 1]:
        raise UserError(f"«{path}» tiene dos columnas {twice[0]}. Deje una.")
    required = [name for name in (ID, TEXT) if name not in cells]
    absent = [name for name in wanted if name not in cells]
    if required or len(absent) == len(wanted):
        raise UserError(
            f"«{path}» no es un archivo de correcciones: le falta la columna {(required or absent)[0]}. Use el CSV "
            f"del cuaderno 06, o el libro de review con las clases correctas en la hoja «{SHEET}»."
        )
    others = file.cells.loc[:, [not (name in (ID, TEXT, *wanted) or _PREDICTED.match(name)) for name in names]]
    table = cells.assign(**dict.fromkeys(absent, ""))[[ID, TEXT, *wanted]].rename(columns=wanted).map(plain)
    table.index = pd.RangeIndex(file.first_row, file.first_row + len(table))
    table = table[(table[list(heads)] != "").any(axis=1)]
    if table.empty:
        raise UserError(f"«{path}» no tiene ninguna corrección: las columnas {listed(wanted)} están vacías.")
    return Corrections(str(path), _without_repeats(table, find_keys(table), heads, str(path)), tuple(absent), others)


def _refuse_unread(file: TableFile, answers: Sequence[int]) -> None:
    """Raise `UserError` if an answer is an error value, or a formula that no program has calculated."""
    failed = file.table.iloc[:, answers].apply(
        lambda column: column.str.strip().str.lower().str.fullmatch(ERROR.pattern)
    )
    rows = set(np.flatnonzero(failed.any(axis=1)) + file.first_row)
    formulas = map(coordinate_to_tuple, file.book.formulas if file.book else ())
    if rows := sorted(rows | {row for row, column in formulas if column - 1 in answers}):
        raise UserError(
            f"«{file.path}»: la clase correcta de las filas {listed(rows)} es un error (#N/A) o una fórmula que ningún "
            "programa ha calculado. Escriba la clase, vacíe la celda, o abra el libro en Excel y guárdelo."
        )


def write_corrections(table: pd.DataFrame, heads: Collection[str], path: Path) -> None:
    """Write corrections as a CSV that `read_corrections` and a spreadsheet read; a file at `path` is replaced."""
    named = inert(table[[ID, TEXT, *heads]].rename(columns={head: f"{RIGHT}{head}" for head in heads}))
    with atomic_write(path) as temporary:
        named.to_csv(temporary, index=False, sep=SPANISH_EXCEL.separator, encoding=SPANISH_EXCEL.encoding)


def merge(
    frame: pd.DataFrame, corrections: Corrections, heads: Sequence[str], also: Collection[str] = ()
) -> tuple[pd.DataFrame, CorrectionsReport]:
    """Return the corrected notices, added rows last, and what changed; raises `UserError` for an unknown class."""
    table = _with_known_classes(corrections, frame, heads, also)
    keys = find_keys(frame)
    key_of_row, lost = _match(table, keys)
    added = table.drop([*key_of_row, *lost])
    matched = _without_repeats(table.loc[list(key_of_row)], list(key_of_row.values()), heads, corrections.source)
    row_of_key = {key_of_row[row]: row for row in matched.index}
    before = pd.concat([frame[[ID, TEXT, *heads]], added[[ID, TEXT]]], ignore_index=True).fillna("")
    rows = pd.Series([*(row_of_key.get(key) for key in keys), *added.index], dtype=object)  # None: not corrected

    merged = before.assign(**{CORRECTED: rows.notna()})
    changed = {}
    for head in heads:
        answer = rows.map(table[head]).fillna("")
        changed[head] = int(((answer != "") & (answer != before[head]) & (before[head] != "")).sum())
        merged[head] = answer.where(answer != "", before[head])

    numbers, texts = {number for number, _ in keys if number}, {text for _, text in keys}
    complete, was_complete = _complete(merged, heads), _complete(before, heads)
    is_new = merged.index >= len(frame)
    report = CorrectionsReport(
        source=corrections.source,
        absent=corrections.absent,
        rows=len(table),
        changed=changed,
        labelled=int((complete & ~was_complete & ~is_new).sum()),
        added=int((complete & is_new).sum()),
        other_text=tuple(added[ID][[number in numbers for number, _ in find_keys(added)]]),
        other_id=tuple(added[ID][[text in texts for _, text in find_keys(added)]]),
        lost=tuple(lost),
        incomplete=tuple(merged[ID][merged[CORRECTED] & ~complete]),
        table=table,
    )
    return merged, report


def _match(table: pd.DataFrame, keys: Sequence[Key]) -> tuple[dict[int, Key], list[int]]:
    """Return the notice of each correction, and those without a text, or without a number if several have the text."""
    in_file, with_text = set(keys), Counter(text for _, text in keys)
    key_of_text = {text: (number, text) for number, text in keys}
    key_of_row, lost = {}, []
    for row, (number, text) in zip(table.index, find_keys(table), strict=True):
        if not text or (not number and with_text[text] > 1):
            lost.append(row)
        elif (number, text) in in_file:
            key_of_row[row] = number, text
        elif not number and text in with_text:
            key_of_row[row] = key_of_text[text]
    return key_of_row, lost


def find_class(answer: str, names: Sequence[str]) -> str | None:
    return answer if answer in names else next((name for name in names if _key(name) == _key(answer)), None)


def _key(text: str) -> str:
    return canonical(protected(text))  # a CSV has apostrophes before signs, also within a text


def _complete(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    return (table[list(columns)] != "").all(axis=1)


def find_keys(table: pd.DataFrame) -> list[Key]:
    """Return what identifies each notice: its number, "" if a spreadsheet has lost digits of it, and its text."""
    return [(canonical_id(number), _key(text)) for number, text in zip(table[ID], table[TEXT], strict=True)]


def _without_repeats(table: pd.DataFrame, keys: Sequence[Key], heads: Collection[str], source: str) -> pd.DataFrame:
    """Return one row per notice; raises `UserError` if a notice has different corrections."""
    first: dict[Key, int] = {}
    for row, key in zip(table.index, keys, strict=True):
        other = first.setdefault(key, row)
        if different := [head for head in heads if table.at[row, head] != table.at[other, head]]:
            raise UserError(
                f"{source}: las filas {other} y {row} corrigen el mismo aviso, «{key[0]}», con otra clase de "
                f"{different[0]}. Deje una."
            )
    return table.loc[list(first.values())]


def _with_known_classes(
    corrections: Corrections, frame: pd.DataFrame, heads: Sequence[str], also: Collection[str]
) -> pd.DataFrame:
    """Return the corrections with the names of the notices' classes, regardless of case and accents."""
    table = corrections.table.copy()
    for head in heads:
        names = [name for name in frame[head].value_counts().index if name]
        if (table[head] == "").all():
            for title, column in corrections.others.items():
                if any(find_class(value, names) for value in set(column.map(plain))):
                    raise UserError(
                        f"{corrections.source}: la columna «{title}» tiene clases de {head}, y las respuestas de esa "
                        f"etiqueta se leen de {RIGHT}{head}. Cámbiele el título, o bórrela si no son respuestas."
                    )
        for answer in set(table[head]) - {""}:
            if (name := find_class(answer, [*names, *also])) is None:
                row = table.index[table[head] == answer][0]
                raise UserError(unknown(f"{corrections.source}, fila {row}: en {RIGHT}{head}, la clase", answer, names))
            table[head] = table[head].replace(answer, name)
    return table
