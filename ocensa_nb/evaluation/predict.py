"""Predict the labels of new notices: the given table plus a prediction and its confidence per label."""

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from openpyxl import Workbook

from ocensa_nb.config import AUTO
from ocensa_nb.data.columns import Columns, same_title
from ocensa_nb.data.notices import fingerprint_of
from ocensa_nb.data.report import reading_lines
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError, unknown
from ocensa_nb.evaluation.blend import describe_sources
from ocensa_nb.evaluation.predictor import CHUNK, Predictor, Scored, require_source
from ocensa_nb.evaluation.rows import read_as_trained, unlike_training
from ocensa_nb.evaluation.suggestion import COLUMNS, TARGET, Suggestion
from ocensa_nb.evaluation.verdict import describe_decisions, far_shares, percent
from ocensa_nb.files.append import append_columns
from ocensa_nb.files.notice_file import NoticeFile, TableFile, table_suffix
from ocensa_nb.files.write import book_of, free_sheet, free_table, write_table
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import distributed

logger = logging.getLogger(__name__)

PREDICTIONS = "Predicciones"  # the sheet
MOST_UNSEEN = 0.05  # share of the notices; on real ones, 0.1 to 0.9 %


@dataclass
class Tally:
    """What the predictions of a file, or of its parts, amount to."""

    rows: int
    scored: int  # those with a text
    classes: dict[str, list[int]]  # rows of each predicted class, per label
    decisions: dict[str, dict[str, int]]  # rows of each decision, per label
    unseen: int  # rows with classes of the first two labels that no training row has both
    differences: list[str]  # from the notices that the run learnt from, in Spanish
    left_out: dict[str, int]  # rows that are no notices, by kind in Spanish

    def add(self, other: "Tally") -> None:
        self.rows += other.rows
        self.scored += other.scored
        self.unseen += other.unseen
        for head, counts in self.classes.items():
            self.classes[head] = [sum(pair) for pair in zip(counts, other.classes[head], strict=True)]
            self.decisions[head] = dict(Counter(self.decisions[head]) + Counter(other.decisions[head]))
        self.left_out = dict(Counter(self.left_out) + Counter(other.left_out))
        self.differences = self.differences or other.differences  # of the first part that has any

    def notes(self, predictor: Predictor, source: str, target: float) -> list[str]:
        """Return what the user has to know, in Spanish."""
        if not self.scored:
            return []
        run, notes = predictor.run, [*self.differences, describe_sources(predictor.blends, source)]
        if not self.differences:  # what was measured holds of notices like those of the run
            for head, (suggestion, tested) in predictor.suggestions(source, target).items():
                measured = suggestion.measure(tested, run.classes[head])
                notes.append(describe_decisions(head, measured, self.decisions[head]))
        for head, names in run.classes.items():
            predicted = np.repeat(np.arange(len(names)), self.classes[head])
            notes += far_shares(head, names, run.class_rows[head], predicted)
        if (share := self.unseen / self.scored) > MOST_UNSEEN:
            named = " y ".join(list(run.classes)[:2])
            notes.append(
                f"En el {percent(share)} de los avisos, {named} no se dan juntos en ningún aviso del entrenamiento: "
                "revíselos."
            )
        return notes


@dataclass(frozen=True)
class PredictedFile:
    """The predictions of a file: its table with `add_predictions`, and what the user has to know, in Spanish."""

    file: NoticeFile
    table: pd.DataFrame
    rows: np.ndarray  # those with a text, int64
    probabilities: dict[str, np.ndarray]  # of them, float32 (rows, classes), per label
    tally: Tally
    predictor: Predictor
    source: str
    target: float

    @cached_property
    def notes(self) -> list[str]:
        return self.tally.notes(self.predictor, self.source, self.target)

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """The test rows of the run of each predicted class, int64 (classes,), per label."""
        suggestions, classes = self.predictor.suggestions(self.source, self.target), self.predictor.run.classes
        return {
            head: np.bincount(tested.shares.argmax(axis=1), minlength=len(classes[head]))
            for head, (_, tested) in suggestions.items()
        }


def predict(
    run: Run, data: str | Path, source: str = AUTO, columns: Columns | None = None, target: float = TARGET
) -> PredictedFile:
    """Predict the labels of a CSV or XLSX file: its table with the columns of `add_predictions` more.

    `columns` has the column name of roles that are not named as in the run's file, and `target` is the share of right
    answers for which a prediction is accepted, and of sets with the right class.

    Raises
    ------
    UserError
        If the file cannot be read, has no description column, or already has one of the new columns, the source does
        not exist, or the target is out of range; see `Predictor.probabilities`.
    """
    require_source(source)
    with distributed.world().agreed():
        file, predictor = read_unlabelled(run, data, columns), Predictor.load(run)
    return predict_file(predictor, file, source, target)


def predict_file(
    predictor: Predictor,
    file: NoticeFile,
    source: str = AUTO,
    target: float = TARGET,
    scored: Scored | None = None,
) -> PredictedFile:
    """Predict the labels of a file, or a part of it, from `read_unlabelled`; see `predict`."""
    run, world = predictor.run, distributed.world()
    with world.agreed():
        suggestions = predictor.suggestions(source, target)
    rows = np.flatnonzero(file.texts != "")
    world.require_same(
        lambda: [fingerprint_of(file.texts.tolist(), file.fields, {}, {}), run.metadata["fingerprint"]],
        "Los procesos no leen el mismo archivo de avisos o la misma corrida. Use los mismos en todas las máquinas.",
    )
    texts, fields = file.texts.iloc[rows].tolist(), file.fields.iloc[rows]
    probabilities = predictor.probabilities(texts, fields, source, world, scored)
    differences = unlike_training(run, file, predictor.linear)
    fitted = {head: suggestion for head, (suggestion, _) in suggestions.items()}
    table = add_predictions(file.table, rows, probabilities, run.classes, fitted, not differences)
    classes = {head: shares.argmax(axis=1) for head, shares in probabilities.items()}
    heads, seen = list(run.classes)[:2], set(map(tuple, run.metrics["pairs"]))
    tally = Tally(
        rows=len(table),
        scored=len(rows),
        classes={head: np.bincount(classes[head], minlength=len(run.classes[head])).tolist() for head in classes},
        decisions={head: dict(Counter(table[f"decision_{head}"].iloc[rows])) for head in classes},
        unseen=sum(pair not in seen for pair in zip(*(classes[head].tolist() for head in heads), strict=True)),
        differences=differences,
        left_out=file.left_out,
    )
    return PredictedFile(file, table, rows, probabilities, tally, predictor, source, target)


def read_unlabelled(run: Run, data: str | Path | TableFile, columns: Columns | None = None) -> NoticeFile:
    """Read a file of notices without its labels; raises `UserError` if it already has a column of predictions.

    `columns` has the column name of roles that are not named as in the run's file.
    """
    file = read_as_trained(run, data, columns, labelled=False)
    data = file.path
    for role, name in (columns or {}).items():
        if file.columns.get(role) != same_title(name, file.table.columns):
            raise UserError(f"«{data}»: " + unknown(f"La columna de {role},", name, file.table.columns))
    logger.info("\n".join(reading_lines(file)))
    added = [f"{kind}_{head}" for head in run.classes for kind in COLUMNS]
    if taken := [name for name in added if name in file.table.columns]:
        raise UserError(
            f"«{data}» ya tiene estas columnas: {', '.join(taken)}. Quítelas o cámbieles el nombre, y repita."
        )
    return file


def add_predictions(
    table: pd.DataFrame,
    rows: np.ndarray,
    shares: Arrays,
    classes: Mapping[str, list[str]],
    suggestions: Mapping[str, Suggestion],
    reliable: bool = True,
) -> pd.DataFrame:
    """Return a table with six columns more per head, `suggestion.COLUMNS`.

    They are the most probable class, its probability, the second and the third class, the set, and the decision; none
    but `revisar` if the predictions are not `reliable`. `rows` are the positions of the rows with text, and `shares`
    their probabilities (rows, classes); others have "" and NaN.
    """
    added = {
        f"{kind}_{head}": np.full(len(table), *((np.nan, float) if kind == "conf" else ("", object)))
        for head in classes
        for kind in COLUMNS
    }
    for head, names in classes.items():
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            for kind, values in suggestions[head].columns(shares[head][part], names, reliable).items():
                added[f"{kind}_{head}"][rows[part]] = values
    return table.assign(**added)


def save(predicted: PredictedFile, out: str | Path, kind: str = "auto") -> Path:
    """Write predictions as `csv`, `xlsx`, or `auto`: by the suffix of `out`, else in the format of the file read.

    In that format, it is a copy of the file with columns more. Returns the path with its suffix; raises `UserError`
    if the file exists or cannot be written, or the kind contradicts its suffix.
    """
    file = predicted.file
    path = free_table(out, kind, table_suffix(file.path))
    is_book = path.suffix.lower() == ".xlsx"
    first = {free_sheet(PREDICTIONS, file.book): [("", _beside_the_text(predicted))]} if is_book else {}
    if path.suffix.lower() == file.copy_suffix:
        with contextlib.suppress(UnicodeEncodeError):  # `write_table` writes UTF-8 then, and says so
            sheets = book_of(first, path, _select_first) if first else b""
            append_columns(file, predicted.table.iloc[:, file.table.shape[1] :], path, sheets, sheets_first=True)
            return path
    return write_table(predicted.table, path, file.csv_format, first)


def _select_first(book: Workbook) -> None:
    book.active = 0
    book.active.sheet_view.tabSelected = True


def _beside_the_text(predicted: PredictedFile) -> pd.DataFrame:
    """Return what people read of a prediction, side by side: the text and each answer, then the other columns."""
    file, heads = predicted.file, list(predicted.probabilities)
    added = predicted.table.iloc[:, file.table.shape[1] :]
    read = file.cells[list(dict.fromkeys(file.text_columns))]
    answers = [f"{kind}_{head}" for head in heads for kind in ("pred", "conf", "decision")]
    others = [name for name in added if name not in answers]
    return pd.concat(
        [file.ids.rename("aviso"), read.iloc[:, :1], added[answers], read.iloc[:, 1:], added[others]], axis=1
    )
