"""Predict the labels of new notices: the given table plus a prediction and its confidence per label."""

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.data.columns import same_title
from ocensa_nb.data.notices import read
from ocensa_nb.data.report import reading_lines
from ocensa_nb.errors import UserError, unknown
from ocensa_nb.evaluation.blend import AUTO, describe_sources
from ocensa_nb.evaluation.metrics import predictions_of
from ocensa_nb.evaluation.predictor import Predictor, require_source
from ocensa_nb.evaluation.rows import unlike_training
from ocensa_nb.evaluation.verdict import apply_verdict, check_predictions
from ocensa_nb.files.append import append_columns
from ocensa_nb.files.notice_file import NoticeFile, table_suffix
from ocensa_nb.files.write import DECIMALS, free_table, write_table
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import distributed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedFile:
    """The predictions of a file: its table with `add_predictions`, and what the user has to know, in Spanish."""

    file: NoticeFile
    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def predict(run: Run, data: str | Path, source: str = AUTO, columns: Mapping[str, str] | None = None) -> PredictedFile:
    """Predict the labels of a CSV or XLSX file: its table with two columns more per head, `pred_` and `conf_`.

    `columns` has the column name of roles that are not named as in the run's file.

    Raises
    ------
    UserError
        If the file cannot be read, has no description column, or already has one of the new columns, or the source does
        not exist; see `Predictor.probabilities`.
    """
    require_source(source)
    world = distributed.world()
    with world.agreed():
        file = read_unlabelled(run, data, columns)
        predictor = Predictor.load(run)
    rows = np.flatnonzero(file.texts != "")
    world.require_same(
        lambda: [hashlib.sha256("\n".join(file.texts).encode()).hexdigest(), run.metadata["fingerprint"]],
        "Los procesos no leen el mismo archivo de avisos o la misma corrida. Use los mismos en todas las máquinas.",
    )
    probabilities = predictor.probabilities(file.texts.iloc[rows].tolist(), source, world=world)
    table = add_predictions(file.table, rows, probabilities, run.classes)
    return PredictedFile(file, table, _notes(predictor, file, probabilities, source) if len(rows) else [])


def read_unlabelled(run: Run, data: str | Path, columns: Mapping[str, str] | None = None) -> NoticeFile:
    """Read a file of notices without its labels; raises `UserError` if it already has a column of predictions.

    `columns` has the column name of roles that are not named as in the run's file.
    """
    config, recorded = run.config, run.metadata["data"]["columns"]
    file = read(
        data, {**config.columns, **(columns or {})}, list(run.classes), config.text_fields, recorded, labelled=False
    )
    for role, name in (columns or {}).items():
        if file.columns.get(role) != same_title(name, file.table.columns):
            raise UserError(f"«{data}»: " + unknown(f"La columna de {role},", name, file.table.columns))
    logger.info("\n".join(reading_lines(file)))
    added = [f"{kind}_{head}" for head in run.classes for kind in ("pred", "conf")]
    if taken := [name for name in added if name in file.table.columns]:
        raise UserError(
            f"«{data}» ya tiene estas columnas: {', '.join(taken)}. Quítelas o cámbieles el nombre, y repita."
        )
    return file


def add_predictions(
    table: pd.DataFrame, rows: np.ndarray, shares: Mapping[str, np.ndarray], classes: Mapping[str, list[str]]
) -> pd.DataFrame:
    """Return a table with two columns more per head: `pred_`, the name of a class, and `conf_`, its probability.

    `rows` are the positions of the rows with text, and `shares` their probabilities (rows, classes); others have NaN.
    """
    result = table.copy()
    for head, names in classes.items():
        result[f"pred_{head}"], result[f"conf_{head}"] = "", np.nan
        result.loc[result.index[rows], f"pred_{head}"] = np.array(names)[shares[head].argmax(axis=1)]
        result.loc[result.index[rows], f"conf_{head}"] = shares[head].max(axis=1).astype(float).round(DECIMALS)
    return result


def _notes(predictor: Predictor, file: NoticeFile, probabilities: Mapping[str, np.ndarray], source: str) -> list[str]:
    """Return, in Spanish, what predicts each label, what it is good for, and what is unusual in the predictions."""
    run, predictions = predictor.run, predictions_of(probabilities)
    differences = unlike_training(run, file, predictor.linear)
    notes = [*differences, describe_sources(predictor.blends, source)]
    if source == AUTO and not differences:  # a verdict is about notices like those of the run
        verdicts = run.metrics["verdict"]
        notes += [apply_verdict(head, verdicts[head], part.confidence) for head, part in predictions.items()]
    class_rows = {head: np.array(rows) for head, rows in run.metadata["data"]["class_rows"].items()}
    return notes + check_predictions(run.classes, class_rows, predictions)


def save(predicted: PredictedFile, out: str | Path, kind: str = "auto") -> Path:
    """Write predictions as `csv`, `xlsx`, or `auto`: by the suffix of `out`, else in the format of the file read.

    In that format, it is a copy of the file with columns more. Returns the path with its suffix; raises `UserError`
    if the file exists or cannot be written, or the kind contradicts its suffix.
    """
    file = predicted.file
    path = free_table(out, kind, table_suffix(file.path))
    if path.suffix.lower() == file.copy_suffix:
        with contextlib.suppress(UnicodeEncodeError):  # `write_table` writes UTF-8 then, and says so
            append_columns(file, predicted.table.iloc[:, file.table.shape[1] :], path)
            return path
    return write_table(predicted.table, path, file.csv_format)
