"""Which rows of a file a run was trained, validated and tested on; `RUN/splits.safetensors`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ocensa_nb.data.canonical import canonical
from ocensa_nb.data.corrections import ID, TEXT, read_corrections
from ocensa_nb.data.notices import Notices, fingerprint_of, labelled_rows, read
from ocensa_nb.errors import UserError, clipped
from ocensa_nb.files import tensors
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runs.manifest import CORRECTIONS, SPLITS
from ocensa_nb.runs.run import Run

LEAST_FILLED = 0.05  # share of the training rows from which a column matters


@dataclass(frozen=True)
class TrainingRows:
    """The rows of the file that a run was trained on: class indices per label, and row numbers per split."""

    ids: list[str]
    texts: list[str]
    labels: dict[str, np.ndarray]
    split: dict[str, np.ndarray]


def write_splits(run: Run, notices: Notices) -> None:
    run.check_held()
    tensors.write(run.path / SPLITS, {side: torch.from_numpy(rows) for side, rows in notices.split.items()})


def training_file(run: Run) -> Path:
    return Path(run.metadata["data"]["path"]) if run.config.data else SAMPLE_DATA


def training_rows(run: Run) -> TrainingRows | None:
    """Return the rows that a run was trained on; None if their file is missing or has changed."""
    try:
        return read_rows(run, training_file(run))[1]
    except UserError:
        return None


def read_rows(run: Run, data: str | Path) -> tuple[NoticeFile, TrainingRows | None]:
    """Read a labelled file, and its rows, with the corrections, if the run was trained on its content; else None."""
    config = run.config
    file = read(data, config.columns, list(run.classes), config.text_fields, run.metadata["data"]["columns"])
    path = run.path / CORRECTIONS
    try:
        corrections = read_corrections(path, run.classes) if path.exists() else None
        frame = labelled_rows(file, corrections).frame
    except UserError:  # another file: it lacks labels, or the classes of the corrections
        return file, None
    stored, _ = tensors.read(run.path / SPLITS)
    split = {side: stored[side].numpy() for side in ("train", "val", "test")}
    texts, labels = frame[TEXT].tolist(), class_indices(run, frame)
    if fingerprint_of(texts, labels, split) != run.metadata["data"]["fingerprint"]:
        return file, None
    return file, TrainingRows(frame[ID].tolist(), texts, labels, split)


def class_indices(run: Run, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the class index of each label, int64 (rows,), per head, after merging; -1 if the run does not know it."""
    merged = run.metadata["data"]["merged"]
    indices = {}
    for head, names in run.classes.items():
        index = {canonical(name): number for number, name in enumerate(names)}
        index |= {canonical(rare): names.index(into) for rare, into in merged.get(head, {}).items()}
        of_label = {label: index.get(canonical(label), -1) for label in frame[head].unique()}
        indices[head] = frame[head].map(of_label).to_numpy(np.int64)
    return indices


def missing_columns(run: Run, file: NoticeFile) -> list[str]:
    """Return, in Spanish, the columns of text that a run learnt from and a file lacks, or has in few of its rows."""
    rows, columns, warnings = int((file.texts != "").sum()), run.metadata["data"]["columns"], []
    for role, share in run.metadata["data"]["filled"].items():
        now = file.filled.get(role, 0.0)
        if share >= LEAST_FILLED and now < share / 2 and rows:
            state = "tiene casi vacía" if role in file.filled else "no tiene"
            warnings.append(
                f"La corrida aprendió también de «{clipped(columns.get(role, role))}», que este archivo "
                f"{state} ({round(now * rows):,} de {rows:,} avisos; al entrenar, el {100 * share:.0f} %): las "
                "predicciones son peores que las medidas, y no hay que fiarse de su confianza."
            )
    return warnings
