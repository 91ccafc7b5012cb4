"""Review the predictions of a file: which notices a person should look at, and a summary of the rest."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ocensa_nb.data.canonical import blank_missing, normalise
from ocensa_nb.data.columns import notice_ids
from ocensa_nb.data.corrections import ID, RIGHT, TEXT
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import UserError, clipped
from ocensa_nb.evaluation import predictor
from ocensa_nb.evaluation.evaluate import read_as_trained
from ocensa_nb.evaluation.predict import add_predictions, read_unlabelled
from ocensa_nb.files.header import SKIPPED
from ocensa_nb.paths import SAMPLE_DATA
from ocensa_nb.review.automation import Scored, automation
from ocensa_nb.review.selection import select, uncertainty
from ocensa_nb.runs.run import Run

logger = logging.getLogger(__name__)

ROWS = 200  # some two hours of a person
MOST_ROWS = 2_000  # the clustering takes seconds
LIKELIEST = 3  # classes that are shown


@dataclass(frozen=True)
class Review:
    """The predictions of a file, the notices to review, and a summary.

    Attributes
    ----------
    predictions
        Every row and column of the file, with `pred_` and `conf_` per label.
    doubtful
        One row per notice to review: `id_aviso`, `texto` and, per label, the likeliest classes `pred1_`, `pred2_`, …
        with their probabilities `conf1_`, …, and `correcta_`, empty.
    classes
        Names of the classes, per label.
    counts
        One row per label and class: predicted notices, their share, and the share of the class in the training.
    automation
        From `automation.automation`.
    tested_on
        What the errors were estimated on, in Spanish.
    """

    predictions: pd.DataFrame
    doubtful: pd.DataFrame
    classes: dict[str, list[str]]
    counts: pd.DataFrame
    automation: pd.DataFrame
    tested_on: str


def review(run: Run, data: str | Path, rows: int = ROWS) -> Review:
    """Predict the notices of a file and choose those to review.

    Parameters
    ----------
    run
        A finished run.
    data
        A CSV or XLSX with a description column; its labels, if any, are ignored.
    rows
        How many notices to choose.

    Raises
    ------
    UserError
        If `rows` is out of range, the file cannot be read, it has no text, or the run was trained on all of them.
    """
    if not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= MOST_ROWS:
        raise UserError(f"rows = {clipped(repr(rows))}: debe ser un número entero, de 1 a {MOST_ROWS:,}.")
    table, texts = read_unlabelled(run, data)
    ids = notice_ids(blank_missing(table), table.attrs[SKIPPED] + 2)
    filled = np.flatnonzero(texts != "")
    if not len(filled):
        raise UserError(f"En «{data}» la columna «{table.attrs['text_column']}» está vacía en todas las filas.")
    own = texts.iloc[filled].tolist()
    trained = _notices_of(run)
    test = trained.split["test"] if trained else np.array([], dtype=np.int64)
    tested_texts = [trained.texts[row] for row in test]
    both = predictor.class_probabilities(run, [*own, *tested_texts], "Prediciendo")
    shares = {head: values[: len(own)] for head, values in both.items()}

    known = {normalise(text) for text in trained.texts} if trained else set()
    chosen = select(own, uncertainty(shares), rows, known)
    if not len(chosen):
        raise UserError(
            f"«{data}» no tiene avisos que revisar: la corrida «{run.path}» ya conoce todos sus textos, con sus "
            "etiquetas. Indique en data un archivo con avisos nuevos."
        )
    if len(chosen) < rows:
        logger.info(f"Avisos que revisar: {len(chosen):,}, y no {rows:,}. Los demás repiten un texto o ya se conocen.")
    tested = {head: values[len(own) :] for head, values in both.items()}
    return Review(
        predictions=add_predictions(table, filled, shares, run.classes),
        doubtful=_doubtful(ids.iloc[filled[chosen]], texts.iloc[filled[chosen]], _rows(shares, chosen), run.classes),
        classes=run.classes,
        counts=_counts(shares, trained, run.classes),
        automation=automation(_confidence(shares), _scored(tested, trained) if trained else None),
        tested_on=f"los {len(test):,} avisos de prueba de la corrida, que no se usaron para entrenar"
        if trained
        else "",
    )


def _notices_of(run: Run) -> Notices | None:
    """Return the notices that a run was trained on; None, with a message, if its file is missing or has changed."""
    path = SAMPLE_DATA if not run.config.data else Path(run.metadata["data"]["path"])
    try:
        trained = read_as_trained(run, path)[1]
    except UserError:
        trained = None
    if trained is None:
        logger.warning(
            f"No se encuentra «{path}» como era al entrenar: no se puede estimar el error, ni saber qué avisos conoce "
            "ya la corrida."
        )
    return trained


def _doubtful(
    ids: pd.Series, texts: pd.Series, shares: Mapping[str, np.ndarray], classes: Mapping[str, list[str]]
) -> pd.DataFrame:
    """Return the table of the notices to review."""
    columns = {ID: ids.to_numpy(), TEXT: texts.to_numpy()}
    for head, names in classes.items():
        order = np.argsort(-shares[head], axis=1, kind="stable")[:, :LIKELIEST]
        for place, best in enumerate(order.T, 1):
            columns[f"pred{place}_{head}"] = np.array(names)[best]
            columns[f"conf{place}_{head}"] = np.take_along_axis(shares[head], best[:, None], axis=1)[:, 0].astype(float)
        columns[f"{RIGHT}{head}"] = ""
    return pd.DataFrame(columns)


def _counts(
    shares: Mapping[str, np.ndarray], trained: Notices | None, classes: Mapping[str, list[str]]
) -> pd.DataFrame:
    """Return the predicted notices of each class, the most frequent first, beside its share in the training."""
    parts = []
    for head, names in classes.items():
        predicted = np.bincount(shares[head].argmax(axis=1), minlength=len(names))
        share = predicted / predicted.sum()
        learnt = np.full(len(names), np.nan)
        if trained:
            rows = np.bincount(trained.labels[head][trained.split["train"]], minlength=len(names))
            learnt = rows / rows.sum()
        part = pd.DataFrame(
            {
                "etiqueta": head,
                "clase": names,
                "avisos": predicted,
                "parte de los avisos": share,
                "parte en entrenamiento": learnt,
                "diferencia": share - learnt,
            }
        )
        parts.append(part.sort_values("avisos", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def _scored(shares: Mapping[str, np.ndarray], trained: Notices) -> Scored:
    rows = trained.split["test"]
    right = {head: values.argmax(axis=1) == trained.labels[head][rows] for head, values in shares.items()}
    return Scored(_confidence(shares), right)


def _confidence(shares: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {head: values.max(axis=1) for head, values in shares.items()}


def _rows(shares: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {head: values[rows] for head, values in shares.items()}
