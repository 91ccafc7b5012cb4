"""Which rows of a file a run was trained, validated and tested on; `RUN/splits.safetensors`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ocensa_nb.data.canonical import canonical
from ocensa_nb.data.columns import Columns
from ocensa_nb.data.corrections import ID, TEXT, read_corrections
from ocensa_nb.data.notices import Notices, fingerprint_of, labelled_rows, read
from ocensa_nb.errors import UserError, clipped, listed
from ocensa_nb.files import tensors
from ocensa_nb.files.notice_file import NoticeFile, TableFile
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.runs.manifest import CORRECTIONS, SPLITS
from ocensa_nb.runs.run import Run

LEAST_FILLED = 0.05  # share of the training rows from which a column matters
# A text is unlike the training rows if they know fewer of its n-grams than 9 of 10, and than of most test rows.
FAMILIAR, PERCENTILE = 0.9, 5
# Share of the texts of a file that may be so. With 7,100 real notices: 0.1 % of those of validation, 14 % if only the
# description is left of the text, and all that are invented or in English.
MOST_FOREIGN = 0.25
LEAST_TEXTS = 20
NAMED_VALUES = 3
SAMPLED_TEXTS = 1_000
UNRELIABLE = "las predicciones son peores que las medidas, y no hay que fiarse de su confianza."


@dataclass(frozen=True)
class TrainingRows:
    """The rows of the file that a run was trained on: class indices per label, and row numbers per split."""

    ids: list[str]
    texts: list[str]
    fields: pd.DataFrame
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


def read_as_trained(
    run: Run, data: str | Path | TableFile, columns: Columns | None = None, labelled: bool = True
) -> NoticeFile:
    """Read a file with the columns that a run was trained on; `columns` has those with another name, by role."""
    config, recorded = run.config, run.metadata["data"]
    names, heads = {**config.columns, **(columns or {})}, list(run.classes)
    known = recorded["fields"]
    return read(data, names, heads, config.text_fields, recorded["columns"], labelled, known_fields=known)


def read_rows(run: Run, data: str | Path, columns: Columns | None = None) -> tuple[NoticeFile, TrainingRows | None]:
    """Read a labelled file, and its rows, with the corrections, if the run was trained on its content; else None."""
    file, path = read_as_trained(run, data, columns), run.path / CORRECTIONS
    try:
        corrections = read_corrections(path, run.classes) if path.exists() else None
        rows = labelled_rows(file, corrections)
    except UserError:  # another file: it lacks labels, or the classes of the corrections
        return file, None
    split, _ = tensors.read_arrays(run.path / SPLITS, {side: (torch.int64, side) for side in ("train", "val", "test")})
    texts, labels = rows.frame[TEXT].tolist(), class_indices(run, rows.frame)
    if fingerprint_of(texts, rows.fields, labels, split) != run.metadata["data"]["fingerprint"]:
        return file, None
    return file, TrainingRows(rows.frame[ID].tolist(), texts, rows.fields, labels, split)


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


def unlike_training(run: Run, file: NoticeFile, linear: LinearModel) -> list[str]:
    """Return, in Spanish, how a file differs from the one that a run learnt from and was measured on.

    It lacks columns that the run learnt from or has them in few of its rows, or with values never seen; or many texts
    have few n-grams of the training rows.
    """
    texts, warnings, missing, recorded = [text for text in file.texts if text], [], [], run.metadata["data"]
    unread = set(recorded["fields"]) - set(linear.used_fields) - set(recorded["columns"].values())
    for role, share in recorded["filled"].items():
        now = file.filled.get(role, 0.0)
        if share >= LEAST_FILLED and now < share / 2 and texts and role not in unread:
            name = clipped(recorded["columns"].get(role, role))
            missing.append(f"«{name}» (aquí, el {100 * now:.0f} %; al entrenar, el {100 * share:.0f} %)")
    if missing:
        warnings.append(f"Faltan datos de los que la corrida aprendió: {', '.join(missing)}. Por eso, {UNRELIABLE}")
    for role, known in recorded["values"].items():
        counts, seen = file.values.get(role, {}), set(map(canonical, known))
        unseen = {value: count for value, count in counts.items() if canonical(value) not in seen}
        if (rows := sum(unseen.values())) > MOST_FOREIGN * sum(counts.values()) and role not in unread:
            name, values = clipped(file.columns.get(role, role)), listed(unseen, NAMED_VALUES)
            part = f"el {100 * rows / len(texts):.0f} % de los avisos"
            warnings.append(f"«{name}» tiene valores que la corrida no ha visto ({values}; {part}): {UNRELIABLE}")
    foreign = foreign_share(run, linear, texts)
    if foreign > MOST_FOREIGN and len(texts) >= LEAST_TEXTS:
        warnings.append(
            f"El {100 * foreign:.0f} % de los textos tiene poco en común con los avisos de entrenamiento (entre los de "
            f"prueba, el {PERCENTILE} % o menos). Puede ser otro idioma, otra planta u otra columna: {UNRELIABLE}"
        )
    return warnings


def foreign_share(run: Run, linear: LinearModel, texts: Sequence[str]) -> float:
    """Return the share of the texts, none of them empty, that are unlike the training rows; of a sample if many."""
    step = -(-len(texts) // SAMPLED_TEXTS)
    return float(np.mean(linear.known_share(texts[::step]) < run.metrics["familiar"])) if texts else 0.0


def familiar_share(linear: LinearModel, texts: Sequence[str]) -> float:
    """Return the share of known n-grams below which a text is unlike the training rows; `texts`: of the test rows."""
    return min(FAMILIAR, float(np.percentile(linear.known_share(texts), PERCENTILE))) if texts else 0.0
