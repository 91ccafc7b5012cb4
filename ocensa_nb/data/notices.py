"""Maintenance notices: read a file, drop unusable rows, encode the labels and split the rows."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.config import TEXT_FIELDS, TrainConfig
from ocensa_nb.data.canonical import group_texts, map_values, merge_spellings, plain
from ocensa_nb.data.columns import (
    Columns,
    appended,
    compose,
    find_columns,
    find_other_lines,
    notice_ids,
    same_title,
    title_predicate,
)
from ocensa_nb.data.corrections import CORRECTED, ID, TEXT, Corrections, merge, read_corrections
from ocensa_nb.data.fields import find_fields, read_fields
from ocensa_nb.data.labels import OTHER, encode_labels, require_labels
from ocensa_nb.data.report import DataReport, reading_lines
from ocensa_nb.data.splits import Arrays, split_corrected_rows, split_rows
from ocensa_nb.errors import UserError, num
from ocensa_nb.files.notice_file import NoticeFile, TableFile, read_table
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runtime.logs import progress

LEAST_REPEATS = 5  # rows of a value of a catalogue, in the mean; the number of an equipment has fewer
MAX_CHARACTERS = 5_000  # of a text; SAP's long texts stay far below, and a model reads a few hundred


@dataclass(frozen=True)
class LabelledRows:
    """The rows of a file that have a text and every label."""

    frame: pd.DataFrame
    fields: pd.DataFrame  # canonical values of the other columns, a row per row of `frame`
    report: DataReport


@dataclass(frozen=True)
class Notices:
    """Texts, labels and split, ready to be tokenised."""

    ids: list[str]
    texts: list[str]
    fields: pd.DataFrame  # canonical values of the other columns that the linear model may read, a row per text
    known_fields: tuple[str, ...]  # those of them that are filled when a notice is created
    labels: dict[str, np.ndarray]  # class index of each row, int64 (rows,), per head
    classes: dict[str, list[str]]  # class names in the order of the indices, per head
    split: dict[str, np.ndarray]  # row numbers of `train`, `val` and `test`
    class_weights: dict[str, np.ndarray]  # float64 (classes,), only for the heads that are weighted
    report: DataReport
    fingerprint: str  # SHA-256 of texts, fields, labels and split

    def class_rows(self) -> dict[str, np.ndarray]:
        """Return the training rows of each class, int64 (classes,), per head."""
        train = self.split["train"]
        return {head: np.bincount(y[train], minlength=len(self.classes[head])) for head, y in self.labels.items()}


def read(
    path: str | Path | TableFile,
    columns: Columns | None = None,
    heads: Sequence[str] = ("modo", "causa", "prioridad"),
    text_fields: Sequence[str] = TEXT_FIELDS,
    recorded: Columns | None = None,
    labelled: bool = True,
    fields: Sequence[str] = (),
    known_fields: Sequence[str] | None = None,
) -> NoticeFile:
    """Read every row of a CSV or XLSX file of notices, or of a table that was read.

    Parameters
    ----------
    columns
        Column name per role, for names that are not in `ALIASES`, e.g. `{"causa": "Mi columna"}`.
    recorded
        Column name per role of a trained run: no other role is used in the text. None for a new run.
    labelled
        Whether the labels are read; otherwise their columns, which `recorded` names, are ignored.
    fields
        Columns that the linear model may read besides those that SAP fills when a notice is created.
    known_fields
        The columns that a trained run may read; None for a new run.

    Raises
    ------
    UserError
        If the file cannot be read or a column is missing; with labels, also if no row has a description.
    """
    columns = columns or {}
    if isinstance(path, TableFile):
        file, path = path, path.path
    else:
        file = read_table(path, title_predicate((*heads, *text_fields), columns))
    cells = candidates = file.cells
    columns = {role: same_title(name, cells.columns) for role, name in columns.items()}
    labels = list(heads) if labelled else []
    if not labelled:  # what the run learnt as a label is never text
        candidates = cells.drop(columns=[recorded[head] for head in heads], errors="ignore")
        text_fields = [field for field in text_fields if field not in heads]
        columns = {role: name for role, name in columns.items() if role not in heads and name in cells}
    used, passed_over = find_columns(candidates, labels, text_fields, columns, str(path), recorded)
    others = find_other_lines(cells, used["descripcion"], str(path), file.first_row)
    if others:
        cells = cells.copy()
        cells.loc[np.any(list(others.values()), axis=0)] = ""
    merged = {head: merge_spellings(map_values(cells[used[head]], plain)) for head in labels}
    texts = compose(cells, used, text_fields, labels)
    notes, long = file.notes, np.flatnonzero(texts.str.len() > MAX_CHARACTERS)
    if len(long):
        row = long[0] + file.first_row
        notes += f"; textos cortados a {num(MAX_CHARACTERS)} caracteres: {num(len(long))} "
        notes += f"(el primero, en la fila {num(row)})"
        texts = texts.str[:MAX_CHARACTERS]
    has_text = texts != ""
    if labelled and not has_text.any():
        name, rows = used["descripcion"], len(cells)
        raise UserError(f"En «{path}» ({file.notes}) la columna «{name}» está vacía en las {num(rows)} filas.")
    roles = ("descripcion", *appended(used, text_fields, labels))
    if known_fields is None:
        taken = {used["descripcion"], *(used[head] for head in labels)}
        known_fields, tried = find_fields(cells, fields, taken, str(path))
    else:
        tried = []
    values = read_fields(cells, [*known_fields, *tried])
    counted = {role: cells[used[role]] for role in roles[1:]}
    present = {title for title in known_fields if same_title(title, cells.columns) in cells}
    counted |= {title: values[title] for title in known_fields if title in present - set(used.values())}
    return NoticeFile(
        **{**vars(file), "notes": notes},
        columns=used,
        text_columns=tuple(used[role] for role in roles),
        values={name: part[has_text & (part != "")].value_counts().to_dict() for name, part in counted.items()},
        passed_over=passed_over,
        ids=notice_ids(cells, file.first_row),
        texts=texts,
        fields=values,
        known_fields=tuple(known_fields),
        labels=pd.DataFrame({head: names for head, (names, _) in merged.items()}),
        left_out={kind: int(rows.sum()) for kind, rows in others.items()},
        spellings={head: several for head, (_, several) in merged.items() if several},
    )


def labelled_rows(file: NoticeFile, corrections: Corrections | None = None) -> LabelledRows:
    heads = list(file.labels)
    frame, corrected = pd.DataFrame({ID: file.ids, TEXT: file.texts, **file.labels}), None
    if corrections is not None:
        frame, corrected = merge(frame, corrections, heads, also=(OTHER,))
    has_text = frame[TEXT] != ""
    labelled = frame[heads] != ""
    keep = has_text & labelled.all(axis=1)
    rows = len(file.table)
    left_out = sum(file.left_out.values())
    report = DataReport(
        source=str(file.path),
        reading=reading_lines(file),
        columns=file.columns,
        filled=file.filled,
        values={
            role: list(counts)
            for role, counts in file.values.items()
            if LEAST_REPEATS * len(counts) <= sum(counts.values())
        },
        rows=rows,
        left_out=left_out,
        without_text=int((~has_text).sum()) - left_out,
        without_label={head: int((has_text & ~labelled[head])[:rows].sum()) for head in heads},
        kept=int(keep[:rows].sum()),
        corrections=corrected,
    )
    require_labels(report, heads)
    frame = frame[keep]
    return LabelledRows(frame, file.fields.reindex(frame.index, fill_value="").reset_index(drop=True), report)


def load_notices(config: TrainConfig) -> Notices:
    """Read and prepare the data of a config, corrected; an empty path means the synthetic data of the project."""
    file = read(
        config.data or SAMPLE_DATA, config.columns, tuple(config.heads), config.text_fields, fields=config.fields
    )
    return prepare(file, config, read_corrections(config.corrections, config.heads) if config.corrections else None)


def prepare(file: NoticeFile, config: TrainConfig, corrections: Corrections | None = None) -> Notices:
    """Encode the labels of a file and split its rows; no corrected row is in the test set.

    Rows with texts that are equal after `normalise` stay on one side. Raises `UserError` if a label has a single class
    or is mostly empty, or there are too few rows or distinct texts.
    """
    rows = labelled_rows(file, corrections)
    frame, report = rows.frame, rows.report
    labels, classes, joined = encode_labels(frame[list(file.labels)], config.min_class_count, report.source)
    texts = frame[TEXT].tolist()
    groups = group_texts(progress(texts, "Avisos que repiten un texto", "aviso"))
    if corrections is None:
        split = split_rows(groups, labels, config.val_size, config.test_size, config.seed)
    else:
        earlier = _uncorrected_split(file, frame.index, groups, config)
        split = split_corrected_rows(groups, labels, earlier, frame[CORRECTED].to_numpy())
        left = len(np.setdiff1d(earlier["test"], split["test"]))
        report = dataclasses.replace(report, corrections=dataclasses.replace(report.corrections, left_test=left))
    report = dataclasses.replace(
        report,
        joined=joined,
        split={name: len(rows) for name, rows in split.items()},
        repeated_texts=len(groups) - len(np.unique(groups)),
    )
    weights = {}
    if config.class_weights and "causa" in labels:
        counts = np.bincount(labels["causa"][split["train"]])  # every class has a training row
        weights["causa"] = counts.sum() / (len(counts) * counts)  # scikit-learn's "balanced"
    return Notices(
        ids=frame[ID].tolist(),
        texts=texts,
        fields=rows.fields,
        known_fields=file.known_fields,
        labels=labels,
        classes=classes,
        split=split,
        class_weights=weights,
        report=report,
        fingerprint=fingerprint_of(texts, rows.fields[list(file.known_fields)], labels, split),
    )


def _uncorrected_split(
    file: NoticeFile, kept: pd.Index, groups: np.ndarray, config: TrainConfig
) -> dict[str, np.ndarray]:
    useful = np.flatnonzero((file.texts != "") & (file.labels != "").all(axis=1))
    positions = kept.get_indexer(useful)
    labels, _, _ = encode_labels(file.labels.iloc[useful], config.min_class_count, str(file.path))
    texts = pd.factorize(groups[positions])[0]
    split = split_rows(texts, labels, config.val_size, config.test_size, config.seed)
    return {name: positions[rows] for name, rows in split.items()}


def fingerprint_of(texts: list[str], fields: pd.DataFrame, labels: Arrays, split: Arrays) -> str:
    cells = (cell for title in fields for cell in (title, *fields[title]))
    digest = hashlib.sha256("\0".join([*texts, *cells]).encode("utf-8", "surrogatepass"))
    for name, values in (*labels.items(), *split.items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()
