"""What an audit looks at: the rows that have each label, and the other columns of the file."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.canonical import group_texts
from ocensa_nb.data.labels import join_rare
from ocensa_nb.data.notices import read
from ocensa_nb.data.report import reading_lines
from ocensa_nb.errors import UserError, num
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runtime.logs import progress


@dataclass(frozen=True)
class LabelRows:
    """The rows with a text and one label: their positions, class indices and class names."""

    rows: np.ndarray
    labels: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class AuditRows:
    """A file, its groups of texts that are equal without codes and numbers, and the rows of each label."""

    file: NoticeFile
    groups: np.ndarray
    labels: dict[str, LabelRows]

    def lines(self) -> list[str]:
        """Return, in Spanish, how many rows have a text and each label."""
        file = self.file
        with_text = file.texts != ""
        complete = int((with_text & (file.labels != "").all(axis=1)).sum())
        counts = ", ".join(f"{head} {num(len(label.rows))}" for head, label in self.labels.items())
        lines = [*reading_lines(file), f"Avisos con texto: {num(int(with_text.sum()))}; con cada etiqueta: {counts}."]
        if complete < max(len(label.rows) for label in self.labels.values()):
            lines.append(f"Un entrenamiento con estas etiquetas usa los que las tienen todas: {num(complete)}.")
        return lines


def read_audit_rows(config: TrainConfig) -> AuditRows:
    """Read the file of a config; an empty path means the synthetic data of the project."""
    file = read(
        config.data or SAMPLE_DATA, config.columns, list(config.heads), config.text_fields, fields=config.fields
    )
    labels = {head: _label_rows(file, head, config.min_class_count) for head in config.heads}
    if not any(len(label.rows) for label in labels.values()):
        raise UserError(
            f"{file.path}: ningún aviso tiene texto y alguna de las etiquetas {', '.join(config.heads)}. Indique "
            f'sus columnas con --columns, p. ej. --columns {next(iter(config.heads))} "Mi columna".'
        )
    groups = group_texts(progress(file.texts.tolist(), "Avisos que repiten un texto", "aviso"))
    return AuditRows(file, groups, labels)


def _label_rows(file: NoticeFile, head: str, least: int) -> LabelRows:
    rows = np.flatnonzero((file.texts != "") & (file.labels[head] != ""))
    names, _, _ = join_rare(file.labels[head].iloc[rows], least)
    labels, classes = pd.factorize(names, sort=True)
    return LabelRows(rows, labels.astype(np.int64), [str(name) for name in classes])
