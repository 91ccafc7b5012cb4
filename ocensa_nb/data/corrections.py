"""Corrections of a review: read them, merge them into the notices, and undo that.

A correction says the right class of one label of a notice. It wins over the label of the file, and no row with one is
ever in the test set (`splits.split_corrected_rows`).
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from ocensa_nb.data.accents import without_accents
from ocensa_nb.data.canonical import blank_missing
from ocensa_nb.data.report import CorrectionsReport
from ocensa_nb.errors import CONTROL, UserError, listed, unknown
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.csv_format import SPANISH_EXCEL
from ocensa_nb.files.header import SKIPPED
from ocensa_nb.files.read_csv import read_table
from ocensa_nb.files.write import inert

ID, TEXT = "id_aviso", "texto"
SHEET = "Dudosos"  # of the workbook of a review
RIGHT = "correcta_"  # + label: the column of the right class
CORRECTED, BEFORE = "corregida", "antes_"  # columns of merged notices: whether a row has one; + label: that of the file


def read_corrections(path: str | Path, heads: Collection[str]) -> pd.DataFrame:
    """Read the corrections of a review: its CSV, or its workbook with the cells of `SHEET` filled in.

    Parameters
    ----------
    path
        The file.
    heads
        Labels; the columns of other labels are ignored.

    Returns
    -------
    DataFrame
        One row per notice with at least one corrected label: `id_aviso`, `texto` and one column per head, "" if not
        corrected. The index is the row in a spreadsheet; `attrs["source"]` is the path.

    Raises
    ------
    UserError
        If the file cannot be read, has no corrections, or corrects a notice twice in different ways.
    """
    wanted = {f"{RIGHT}{head}": head for head in heads}
    read, _ = read_table(path, lambda cell: cell in (ID, TEXT, *wanted), SHEET)
    missing = [name for name in (ID, TEXT) if name not in read]
    if missing or not any(name in read for name in wanted):
        raise UserError(
            f"«{path}» no es un archivo de correcciones: le falta la columna {(missing or list(wanted))[0]}. Use el "
            f"CSV del cuaderno 07, o el libro de review con las clases correctas en la hoja «{SHEET}»."
        )
    table = blank_missing(read)
    given = pd.DataFrame({ID: table[ID].str.strip(), TEXT: table[TEXT].map(_one_line)})
    for name, head in wanted.items():
        given[head] = table[name].map(_one_line) if name in table else ""
    first_row = read.attrs[SKIPPED] + 2
    given.index = pd.RangeIndex(first_row, first_row + len(given))
    given = given[(given[TEXT] != "") & (given[list(heads)] != "").any(axis=1)]
    given.attrs = {"source": str(path)}
    if given.empty:
        raise UserError(f"«{path}» no tiene ninguna corrección: las columnas {listed(wanted)} están vacías.")
    return _without_repeats(given, heads)


def write_corrections(table: pd.DataFrame, heads: Collection[str], path: Path) -> None:
    """Write corrections as a CSV that `read_corrections` and a spreadsheet read; a file at `path` is replaced.

    Parameters
    ----------
    table
        As `read_corrections` returns it.
    heads
        Labels.
    path
        The file.
    """
    named = inert(table[[ID, TEXT, *heads]].rename(columns={head: f"{RIGHT}{head}" for head in heads}))
    with atomic_write(path) as fresh:
        named.to_csv(fresh, index=False, sep=SPANISH_EXCEL.separator, encoding=SPANISH_EXCEL.encoding)


def merge(
    frame: pd.DataFrame, given: pd.DataFrame, heads: Sequence[str], also: Collection[str] = ()
) -> tuple[pd.DataFrame, CorrectionsReport]:
    """Merge corrections into notices; a notice is recognised by its id and its text.

    Parameters
    ----------
    frame
        Notices: `id_aviso`, `texto` and one column per head, "" if it has no label.
    given
        From `read_corrections`.
    heads
        Labels.
    also
        Names of classes that are accepted although no notice has them.

    Returns
    -------
    merged : DataFrame
        The rows of `frame`, then the added ones, with their labels; `CORRECTED`, and the label of the file of each
        head in `BEFORE` + head: "" if there is none.
    report : CorrectionsReport
        What changed.

    Raises
    ------
    UserError
        If a class is not one of the notices'.
    """
    given = _with_known_classes(given, frame, heads, also)
    by_key = dict(zip(find_keys(given), given.index, strict=True))
    keys = find_keys(frame)
    found = pd.Series([by_key.get(key, -1) for key in keys], frame.index)
    there = set(keys)
    fresh = given[[key not in there for key in by_key]]

    merged = pd.concat([frame[[ID, TEXT, *heads]], fresh[[ID, TEXT, *heads]]], ignore_index=True)
    source = [*found, *fresh.index]  # row of the correction, or -1
    merged[CORRECTED] = [row >= 0 for row in source]
    changed = {}
    for head in heads:
        merged[f"{BEFORE}{head}"] = [*frame[head], *[""] * len(fresh)]
        answers = given[head].to_dict() | {-1: ""}
        answer = pd.Series([answers[row] for row in source])
        changed[head] = int(((answer != "") & (answer != merged[head]) & (merged[head] != "")).sum())
        merged[head] = answer.where(answer != "", merged[head])

    complete, before = _complete(merged, heads), _complete(merged, [f"{BEFORE}{head}" for head in heads])
    is_new = merged.index >= len(frame)
    report = CorrectionsReport(
        source=given.attrs["source"],
        rows=len(given),
        changed=changed,
        labelled=int((complete & ~before & ~is_new).sum()),
        added=int((complete & is_new).sum()),
        other_text=tuple(fresh[ID][fresh[ID].isin(set(frame[ID]))]),
        incomplete=tuple(merged[ID][merged[CORRECTED] & ~complete]),
        table=given,
    )
    return merged, report


def uncorrected(frame: pd.DataFrame, heads: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Return the notices before `merge`, and which rows of the merged ones they are, bool (rows,)."""
    useful = _complete(frame, [f"{BEFORE}{head}" for head in heads])
    before = frame.loc[useful, [ID, TEXT]].assign(**{head: frame.loc[useful, f"{BEFORE}{head}"] for head in heads})
    return before.reset_index(drop=True), useful


def find_class(answer: str, names: Sequence[str]) -> str | None:
    """Return the first of some names that is an answer, regardless of case and accents; None if there is none."""
    if answer in names:
        return answer
    return next((name for name in names if _folded(name) == _folded(answer)), None)


def _one_line(text: str) -> str:
    return " ".join(re.sub(CONTROL, " ", text).split())


def _complete(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    return (table[list(columns)] != "").all(axis=1)


def find_keys(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what identifies each notice, also after a CSV has put an apostrophe before what looks like a formula."""
    plain = inert(table[[ID, TEXT]])
    return [(number.strip(), " ".join(text.split())) for number, text in zip(plain[ID], plain[TEXT], strict=True)]


def _without_repeats(given: pd.DataFrame, heads: Collection[str]) -> pd.DataFrame:
    """Return one row per notice; raises `UserError` if a notice has different corrections."""
    first: dict[tuple[str, str], int] = {}
    for row, key in zip(given.index, find_keys(given), strict=True):
        other = first.setdefault(key, row)
        if different := [head for head in heads if given.at[row, head] != given.at[other, head]]:
            raise UserError(
                f"{given.attrs['source']}: las filas {other} y {row} corrigen el mismo aviso, «{key[0]}», con distinta "
                f"clase de {different[0]}. Deje una."
            )
    return given.loc[list(first.values())]


def _with_known_classes(
    given: pd.DataFrame, frame: pd.DataFrame, heads: Sequence[str], also: Collection[str]
) -> pd.DataFrame:
    """Return the corrections with the names of the notices' classes, regardless of case and accents."""
    given = given.copy()
    for head in heads:
        names = [name for name in frame[head].value_counts().index if name]
        for answer in set(given[head]) - {""}:
            if (name := find_class(answer, [*names, *also])) is None:
                row = given.index[given[head] == answer][0]
                raise UserError(
                    unknown(f"{given.attrs['source']}, fila {row}: en {RIGHT}{head}, la clase", answer, names)
                )
            given[head] = given[head].replace(answer, name)
    return given


def _folded(name: str) -> str:
    return " ".join(without_accents(name.lstrip("'")).casefold().split())  # the apostrophe of `inert`
