"""What an audit looks at: the rows that have each label, and the other columns of the file."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.canonical import blank_missing, normalise
from ocensa_nb.data.corrections import ID, TEXT
from ocensa_nb.data.notices import join_rare, read
from ocensa_nb.errors import UserError
from ocensa_nb.files.notice_file import CsvFormat
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runtime.logs import progress


@dataclass(frozen=True)
class LabelRows:
    """The rows with a text and one label."""

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]
    merged: dict[str, int]


@dataclass(frozen=True)
class AuditRows:
    """A file as the audit sees it."""

    source: str
    frame: pd.DataFrame
    table: pd.DataFrame
    exact: np.ndarray
    groups: np.ndarray
    labels: dict[str, LabelRows]
    columns: dict[str, str]
    text: tuple[str, ...]
    csv_format: CsvFormat

    def lines(self) -> list[str]:
        """Return, in Spanish, how many rows have a text and each label."""
        with_text = int((self.frame[TEXT] != "").sum())
        complete = int((self.frame[[TEXT, *self.labels]] != "").all(axis=1).sum())
        counts = ", ".join(f"{head} {len(found.rows):,}" for head, found in self.labels.items())
        lines = [
            f"Archivo: {self.source}, {len(self.frame):,} filas, {with_text:,} con texto.",
            "Columnas usadas: " + ", ".join(f"{role} ← «{name}»" for role, name in self.columns.items()) + ".",
            f"Avisos con cada etiqueta: {counts}.",
        ]
        if complete < max(len(found.rows) for found in self.labels.values()):
            lines.append(f"Un entrenamiento con estas etiquetas usa los que las tienen todas: {complete:,}.")
        return lines


def read_audit_rows(config: TrainConfig) -> AuditRows:
    """Read the file of a config; an empty path means the synthetic data of the project."""
    path = config.data or SAMPLE_DATA
    file = read(path, config.columns, list(config.heads), config.text_fields)
    frame = pd.DataFrame({ID: file.ids, TEXT: file.texts, **file.labels})
    texts = frame[TEXT].tolist()
    shown = progress(texts, "Avisos que repiten un texto", "aviso")
    labels = {head: _label_rows(frame, head, config.min_class_count) for head in config.heads}
    if not any(len(rows.rows) for rows in labels.values()):
        raise UserError(
            f"{path}: ningún aviso tiene texto y alguna de las etiquetas {', '.join(config.heads)}. Diga qué columnas "
            f'son con columns, p. ej. --columns {next(iter(config.heads))} "Mi columna".'
        )
    return AuditRows(
        source=str(path),
        frame=frame,
        table=blank_missing(file.table),
        exact=pd.factorize(pd.Series(texts, dtype=object))[0],
        groups=pd.factorize(pd.Series([normalise(text) for text in shown], dtype=object))[0],
        labels=labels,
        columns=file.columns,
        text=file.text_columns,
        csv_format=file.csv_format,
    )


def _label_rows(frame: pd.DataFrame, head: str, least: int) -> LabelRows:
    rows = np.flatnonzero((frame[TEXT] != "") & (frame[head] != ""))
    names, _, merged = join_rare(frame[head].iloc[rows], least)
    labels, classes = pd.factorize(names, sort=True)
    return LabelRows(rows, labels.astype(np.int64), [str(name) for name in classes], merged)
