"""Read, write and merge corrections: the right class of a label of a notice, which wins over that of the file."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ocensa_nb.data.canonical import without_accents
from ocensa_nb.data.report import CorrectionsReport
from ocensa_nb.errors import CONTROL, UserError, listed, unknown
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.notice_file import SPANISH_EXCEL, read_table
from ocensa_nb.files.write import inert

ID, TEXT = "id_aviso", "texto"
SHEET = "Dudosos"  # of the workbook of a review
RIGHT = "correcta_"  # + label: the column of the right class
CORRECTED = "corregida"  # the column of merged notices: whether a row has a correction


@dataclass(frozen=True)
class Corrections:
    """The corrections of a file."""

    source: str
    table: pd.DataFrame  # `id_aviso`, `texto` and one column per head, "" if not corrected; indexed by spreadsheet row


def read_corrections(path: str | Path, heads: Collection[str]) -> Corrections:
    """Read the corrections of a review: its CSV, or its workbook with the cells of `SHEET` filled in."""
    wanted = {f"{RIGHT}{head}": head for head in heads}
    file = read_table(path, lambda cell: cell in (ID, TEXT, *wanted), SHEET)
    missing = [name for name in (ID, TEXT) if name not in file.table]
    if missing or not any(name in file.table for name in wanted):
        raise UserError(
            f"«{path}» no es un archivo de correcciones: le falta la columna {(missing or list(wanted))[0]}. Use el "
            f"CSV del cuaderno 07, o el libro de review con las clases correctas en la hoja «{SHEET}»."
        )
    cells = file.cells
    table = pd.DataFrame({ID: cells[ID].str.strip(), TEXT: cells[TEXT].map(_one_line)})
    for name, head in wanted.items():
        table[head] = cells[name].map(_one_line) if name in cells else ""
    table.index = pd.RangeIndex(file.first_row, file.first_row + len(table))
    table = table[(table[TEXT] != "") & (table[list(heads)] != "").any(axis=1)]
    if table.empty:
        raise UserError(f"«{path}» no tiene ninguna corrección: las columnas {listed(wanted)} están vacías.")
    return Corrections(str(path), _without_repeats(table, heads, str(path)))


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
    row_of_key = dict(zip(find_keys(table), table.index, strict=True))
    keys = find_keys(frame)
    in_file = set(keys)
    added = table[[key not in in_file for key in row_of_key]]
    before = pd.concat([frame[[ID, TEXT, *heads]], added[[ID, TEXT]]], ignore_index=True).fillna("")
    rows = pd.Series([*(row_of_key.get(key) for key in keys), *added.index], dtype=object)  # None: not corrected

    merged = before.assign(**{CORRECTED: rows.notna()})
    changed = {}
    for head in heads:
        answer = rows.map(table[head]).fillna("")
        changed[head] = int(((answer != "") & (answer != before[head]) & (before[head] != "")).sum())
        merged[head] = answer.where(answer != "", before[head])

    complete, was_complete = _complete(merged, heads), _complete(before, heads)
    is_new = merged.index >= len(frame)
    report = CorrectionsReport(
        source=corrections.source,
        rows=len(table),
        changed=changed,
        labelled=int((complete & ~was_complete & ~is_new).sum()),
        added=int((complete & is_new).sum()),
        other_text=tuple(added[ID][added[ID].isin(set(frame[ID]))]),
        incomplete=tuple(merged[ID][merged[CORRECTED] & ~complete]),
        table=table,
    )
    return merged, report


def find_class(answer: str, names: Sequence[str]) -> str | None:
    def fold(name: str) -> str:
        return " ".join(without_accents(name.lstrip("'")).casefold().split())  # the apostrophe of `inert`

    return answer if answer in names else next((name for name in names if fold(name) == fold(answer)), None)


def _one_line(text: str) -> str:
    return " ".join(re.sub(CONTROL, " ", text).split())


def _complete(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    return (table[list(columns)] != "").all(axis=1)


def find_keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what identifies each notice, also after a CSV has put an apostrophe before what looks like a formula."""
    plain = inert(table[[ID, TEXT]])
    return [(number.strip(), " ".join(text.split())) for number, text in zip(plain[ID], plain[TEXT], strict=True)]


def _without_repeats(table: pd.DataFrame, heads: Collection[str], source: str) -> pd.DataFrame:
    """Return one row per notice; raises `UserError` if a notice has different corrections."""
    first: dict[tuple[str, str], int] = {}
    for row, key in zip(table.index, find_keys(table), strict=True):
        other = first.setdefault(key, row)
        if different := [head for head in heads if table.at[row, head] != table.at[other, head]]:
            raise UserError(
                f"{source}: las filas {other} y {row} corrigen el mismo aviso, «{key[0]}», con distinta "
                f"clase de {different[0]}. Deje una."
            )
    return table.loc[list(first.values())]


def _with_known_classes(
    corrections: Corrections, frame: pd.DataFrame, heads: Sequence[str], also: Collection[str]
) -> pd.DataFrame:
    """Return the corrections with the names of the notices' classes, regardless of case and accents."""
    table = corrections.table.copy()
    for head in heads:
        names = [name for name in frame[head].value_counts().index if name]
        for answer in set(table[head]) - {""}:
            if (name := find_class(answer, [*names, *also])) is None:
                row = table.index[table[head] == answer][0]
                raise UserError(unknown(f"{corrections.source}, fila {row}: en {RIGHT}{head}, la clase", answer, names))
            table[head] = table[head].replace(answer, name)
    return table
