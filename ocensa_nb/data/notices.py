"""Maintenance notices: read the columns, drop unusable rows, encode the labels and split the rows."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.config import TEXT_FIELDS, TrainConfig
from ocensa_nb.data import corrections
from ocensa_nb.data.canonical import appended, blank_missing, compose, group_texts
from ocensa_nb.data.columns import find_columns, notice_ids, title_predicate
from ocensa_nb.data.corrections import CORRECTED, ID, TEXT
from ocensa_nb.data.report import DataReport
from ocensa_nb.data.splits import balanced_weights, split_corrected_rows, split_rows
from ocensa_nb.errors import CONTROL, UserError
from ocensa_nb.files.header import SKIPPED
from ocensa_nb.files.read_csv import read_table
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runtime.logs import progress

OTHER = "Other"
MIN_ROWS = 10
FEWEST_CLASSES = 6  # a label with fewer has no class to spare: a rare priority is not «other»


@dataclass(frozen=True)
class Notices:
    """Texts, labels and split, ready to be tokenised.

    Attributes
    ----------
    texts
        One string per row.
    labels
        Class index of each row, int64 (rows,), per head.
    classes
        Class names per head, in the order of the indices.
    split
        Row numbers of `train`, `val` and `test`.
    class_weights
        float64 (classes,), only for the heads that are weighted.
    report
        What was read and dropped.
    fingerprint
        SHA-256 of texts, labels and split.
    """

    texts: list[str]
    labels: dict[str, np.ndarray]
    classes: dict[str, list[str]]
    split: dict[str, np.ndarray]
    class_weights: dict[str, np.ndarray]
    report: DataReport
    fingerprint: str

    def class_rows(self) -> dict[str, np.ndarray]:
        """Return the training rows of each class, int64 (classes,), per head."""
        train = self.split["train"]
        return {head: np.bincount(y[train], minlength=len(self.classes[head])) for head, y in self.labels.items()}


@dataclass(frozen=True)
class FileRows:
    """Every row of a file, also those that no training uses."""

    table: pd.DataFrame
    frame: pd.DataFrame
    columns: dict[str, str]
    text: tuple[str, ...]
    passed_over: dict[str, tuple[str, str]]
    how: str


def read_rows(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    heads: Sequence[str] = ("modo", "causa", "prioridad"),
    text_fields: Sequence[str] = TEXT_FIELDS,
    recorded: Collection[str] | None = None,
) -> FileRows:
    """Read every row of a CSV or XLSX file of notices; the parameters are those of `read`.

    Raises
    ------
    UserError
        If the file cannot be read, a column is missing, or no row has a description.
    """
    columns = columns or {}
    read, how = read_table(path, title_predicate((*heads, *text_fields), columns))
    first_row = read.attrs[SKIPPED] + 2
    table = blank_missing(read)
    table.attrs = read.attrs
    used, passed_over = find_columns(table, heads, text_fields, columns, str(path), recorded)
    texts = compose(table, used, text_fields, heads, first_row)
    frame = pd.DataFrame({ID: notice_ids(table, first_row), TEXT: texts})
    for head in heads:
        frame[head] = table[used[head]].str.replace(CONTROL, " ", regex=True).str.strip()
    if not (frame[TEXT] != "").any():
        raise UserError(f"En «{path}» la columna «{used['descripcion']}» está vacía en las {len(frame):,} filas.")
    text = tuple(used[role] for role in ("descripcion", *appended(used, text_fields, heads)))
    return FileRows(table, frame, used, text, passed_over, how)


def read(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    heads: Sequence[str] = ("modo", "causa", "prioridad"),
    text_fields: Sequence[str] = TEXT_FIELDS,
    recorded: Collection[str] | None = None,
    given: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Read the labelled notices of a CSV or XLSX file.

    Parameters
    ----------
    path
        The file.
    columns
        Column name per role, for names that are not in `ALIASES`, e.g. `{"causa": "Mi columna"}`.
    heads
        Labels to read; rows with an empty label are dropped.
    text_fields
        Columns appended to the description, if present.
    recorded
        Roles of a trained run: no other column is used in the text. None for a new run.
    given
        Corrections to merge, from `corrections.read_corrections`.

    Returns
    -------
    DataFrame
        Columns `id_aviso` (the file's own, or the row in a spreadsheet), `texto` and one per head; `attrs["report"]`
        is the `DataReport`. With corrections, also the columns of `corrections.merge`.

    Raises
    ------
    UserError
        If the file cannot be read, or a column is missing or mostly empty.
    """
    rows = read_rows(path, columns, heads, text_fields, recorded)
    frame, used = rows.frame, rows.columns
    total, merged = len(frame), None
    if given is not None:
        frame, merged = corrections.merge(frame, given, heads, also=(OTHER,))
    has_text = frame[TEXT] != ""
    labelled = frame[list(heads)] != ""
    keep = has_text & labelled.all(axis=1)
    report = DataReport(
        source=str(path),
        how=rows.how,
        columns=used,
        rows=total,
        text=rows.text,
        without_text=int((~has_text).sum()),
        without_label={head: int((has_text & ~labelled[head])[:total].sum()) for head in heads},
        kept=int(keep[:total].sum()),
        passed_over=rows.passed_over,
        corrections=merged,
    )
    _require_labels(report, heads)
    frame = frame[keep].reset_index(drop=True)
    frame.attrs["report"] = report
    frame.attrs.update(rows.table.attrs)  # the format of a CSV, for the tables about it
    return frame


def load_notices(config: TrainConfig) -> Notices:
    """Read and prepare the data of a config, corrected; an empty path means the synthetic data of the project."""
    given = corrections.read_corrections(config.corrections, config.heads) if config.corrections else None
    path = config.data or SAMPLE_DATA
    return prepare(read(path, config.columns, tuple(config.heads), config.text_fields, given=given), config)


def prepare(frame: pd.DataFrame, config: TrainConfig) -> Notices:
    """Encode the labels and split the rows.

    Classes with fewer than `min_class_count` rows are merged into `Other`. Rows whose texts are equal after
    `normalise` stay on one side of the split, so that no test text is in the training set.

    Parameters
    ----------
    frame
        From `read`.
    config
        Heads, sizes of the split, `min_class_count` and seed.

    Returns
    -------
    Notices
        Texts, labels and split, with the report.

    Raises
    ------
    UserError
        If a label has a single class, or there are too few rows or distinct texts.
    """
    frame = frame.copy()
    heads = list(config.heads)
    report: DataReport = frame.attrs.get("report") or DataReport("tabla", "en memoria", {}, len(frame), kept=len(frame))
    if len(frame) < MIN_ROWS:
        raise UserError(
            f"{report.source}: quedan {len(frame)} filas con texto y etiquetas, y hacen falta al menos {MIN_ROWS} "
            "para entrenar, validar y probar (unos cientos para que sirva de algo)."
        )
    joined = {}
    for head in heads:
        frame[head], other, rare = join_rare(frame[head], config.min_class_count)
        if rare:
            joined[head] = (other, rare)
    classes = {head: sorted(frame[head].unique()) for head in heads}
    for head, names in classes.items():
        if len(names) < 2:
            raise UserError(
                f"{report.source}: la etiqueta «{head}» tiene una sola clase, «{names[0]}», en las {len(frame):,} "
                f"filas útiles: no hay nada que aprender. Use otra columna (columns) o quite «{head}» de heads."
            )
    labels = {
        head: pd.Categorical(frame[head], categories=names).codes.astype(np.int64) for head, names in classes.items()
    }
    texts = frame[TEXT].tolist()
    groups = group_texts(progress(texts, "Avisos que repiten un texto", "aviso"))
    if CORRECTED in frame:
        split, report = _corrected_split(frame, groups, labels, config, report)
    else:
        split = split_rows(groups, labels, config.val_size, config.test_size, config.seed)
    report = dataclasses.replace(
        report,
        joined=joined,
        split={name: len(rows) for name, rows in split.items()},
        repeated_texts=len(groups) - len(np.unique(groups)),
    )
    weights = {}
    if config.class_weights and "causa" in labels:
        weights["causa"] = balanced_weights(labels["causa"][split["train"]], len(classes["causa"]))
    return Notices(texts, labels, classes, split, weights, report, _fingerprint(texts, labels, split))


def _corrected_split(
    frame: pd.DataFrame,
    groups: np.ndarray,
    labels: Mapping[str, np.ndarray],
    config: TrainConfig,
    report: DataReport,
) -> tuple[dict[str, np.ndarray], DataReport]:
    """Return the split of corrected notices, which extends that of the uncorrected ones, and the report about it."""
    before, useful = corrections.uncorrected(frame, list(config.heads))
    before.attrs["report"] = dataclasses.replace(report, kept=len(before), corrections=None)
    positions = np.flatnonzero(useful)
    earlier = {name: positions[rows] for name, rows in prepare(before, config).split.items()}
    split = split_corrected_rows(groups, labels, earlier, frame[CORRECTED].to_numpy())
    left = len(np.setdiff1d(earlier["test"], split["test"]))
    return split, dataclasses.replace(report, corrections=dataclasses.replace(report.corrections, left_test=left))


def _require_labels(report: DataReport, heads: Sequence[str]) -> None:
    """Raise `UserError` if most texts have no label, which usually means that the wrong column was used."""
    texts = report.rows - report.without_text
    worst = max(heads, key=lambda head: report.without_label[head])
    if report.without_label[worst] > texts / 2:
        raise UserError(
            f"{report.source}: la etiqueta «{worst}» (columna «{report.columns[worst]}») está vacía en "
            f"{report.without_label[worst]:,} de {texts:,} filas con texto. Si la etiqueta está en otra columna, diga "
            f"cuál con columns (p. ej. --columns {worst} «nombre»); si es esa, deje solo las filas que la tienen."
        )


def join_rare(labels: pd.Series, least: int) -> tuple[pd.Series, str, dict[str, int]]:
    """Merge classes with fewer than `least` rows into the file's «Other» class, or a new one; return both.

    The classes of a label with fewer than `FEWEST_CLASSES` are never merged.
    """
    counts = labels.value_counts()
    if len(counts) < FEWEST_CLASSES:
        return labels, OTHER, {}
    own = next((name for name in counts.index if name == OTHER or name.startswith(f"{OTHER} (")), OTHER)
    rare = {str(name): int(count) for name, count in counts.items() if count < least and name != own}
    return labels.where(~labels.isin(rare), own), own, rare


def _fingerprint(texts: list[str], labels: Mapping[str, np.ndarray], split: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass"))
    for name, values in (*labels.items(), *split.items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()
