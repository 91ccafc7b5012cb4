"""Before the encoder trains, fit the linear model; afterwards, blend both and report what the run is good for."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ocensa_nb.data.canonical import group_texts
from ocensa_nb.data.notices import Notices
from ocensa_nb.evaluation import blend as blending
from ocensa_nb.evaluation.blend import AUTO, ENCODER, LINEAR, SOURCES, Blend
from ocensa_nb.evaluation.calibration import expected_calibration_error
from ocensa_nb.evaluation.checks import check_predictions
from ocensa_nb.evaluation.comparison import compare, sentences
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.evaluation.predictor import predictions
from ocensa_nb.evaluation.verdict import Answers, answers_of, judge
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.runtime.logs import PREFIXES

logger = logging.getLogger(__name__)

SIDES = ("val", "test")
Arrays = Mapping[str, np.ndarray]  # per head


def fit_linear(notices: Notices) -> LinearModel:
    """Fit the simple model on the training rows and print its validation F1, which the encoder has to exceed."""
    train, val = notices.split["train"], notices.split["val"]
    sizes = {head: len(names) for head, names in notices.classes.items()}
    linear = LinearModel.fit(_texts(notices, train), _rows(notices.labels, train), sizes)
    found = flat_metrics(_rows(notices.labels, val), predictions(linear.logits(_texts(notices, val))))
    scores = ", ".join(f"{head} {found[f'{head}_f1']:.3f}" for head in notices.classes)
    logger.info(f"Modelo simple (TF-IDF): F1 de validación {scores}. Es lo que el codificador tiene que superar.")
    return linear


def class_rows(notices: Notices) -> dict[str, np.ndarray]:
    """Return the training rows of each class, int64 (classes,), per head."""
    labels = _rows(notices.labels, notices.split["train"])
    return {head: np.bincount(labels[head], minlength=len(names)) for head, names in notices.classes.items()}


def measure_quality(
    notices: Notices, linear: LinearModel, encoder: Mapping[str, Arrays]
) -> tuple[dict[str, Blend], dict[str, Any]]:
    """Fit the blends on the validation rows, and measure every model on the validation and test rows."""
    rows = {side: notices.split[side] for side in SIDES}
    labels = {side: _rows(notices.labels, rows[side]) for side in SIDES}
    logits = {side: {ENCODER: encoder[side], LINEAR: linear.logits(_texts(notices, rows[side]))} for side in SIDES}
    blends = blending.fit(logits["val"], labels["val"])
    found = {
        side: {source: blending.apply(blends, logits[side], source) for source in (AUTO, *SOURCES)} for side in SIDES
    }
    predicted = {source: predictions(probabilities) for source, probabilities in found["test"].items()}
    sources = {head: blend.source for head, blend in blends.items()}
    counts = class_rows(notices)
    comparison = compare(
        labels["test"], {source: predicted[source] for source in SOURCES}, group_texts(_texts(notices, rows["test"]))
    )
    before = answers_of(blending.apply(blending.uncalibrated(blends), logits["test"]), labels["test"])
    val, test = (answers_of(found[side][AUTO], labels[side]) for side in SIDES)
    metrics = {
        **{side: flat_metrics(labels[side], predictions(found[side][AUTO])) for side in SIDES},
        **{
            source: {side: flat_metrics(labels[side], predictions(found[side][source])) for side in SIDES}
            for source in SOURCES
        },
        "sources": sources,
        "comparison": comparison,
        "calibration": {
            head: {"before": _calibration_error(before[head]), "after": _calibration_error(test[head])}
            for head in blends
        },
        "verdict": {
            head: judge(head, names, counts[head], val[head], test[head]) for head, names in notices.classes.items()
        },
        "warnings": check_predictions(notices.classes, counts, predicted[AUTO], labels["test"], comparison, sources),
    }
    return blends, metrics


def report(metrics: Mapping[str, Any]) -> list[str]:
    """Return, in Spanish, which model is better, what each label is good for, and the warnings of metrics.json."""
    lines = sentences(metrics["comparison"])
    for verdict in metrics["verdict"].values():
        lines.append(f"{verdict['sentence']} {verdict['advice']}".strip())
    return lines + [PREFIXES[logging.WARNING] + warning for warning in metrics["warnings"]]


def _texts(notices: Notices, rows: np.ndarray) -> list[str]:
    return [notices.texts[row] for row in rows]


def _rows(values: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {head: array[rows] for head, array in values.items()}


def _calibration_error(answers: Answers) -> float:
    return expected_calibration_error(answers.confidence, answers.correct)
