"""How good a training is: the linear model that it has to exceed, the metrics of an epoch, and those of the run.

The models of a run are the encoder of its best epoch, the linear model, and their blend.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ocensa_nb.config import AUTO, ENCODER, LINEAR, SOURCES, TrainConfig
from ocensa_nb.data.canonical import group_texts
from ocensa_nb.data.corrections import write_corrections
from ocensa_nb.data.notices import Notices
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import num
from ocensa_nb.evaluation import blend as blending
from ocensa_nb.evaluation.blend import Blend, write_blends
from ocensa_nb.evaluation.calibration import expected_calibration_error
from ocensa_nb.evaluation.metrics import (
    Predictions,
    compare,
    confusion_counts,
    flat_metrics,
    metrics_of,
    predicted_classes,
    predictions_of,
    sentences,
)
from ocensa_nb.evaluation.rows import familiar_share, write_splits
from ocensa_nb.evaluation.suggestion import Evidence
from ocensa_nb.evaluation.verdict import check_predictions, describe_near, judge, measure_near
from ocensa_nb.models.linear import LinearModel, count_ngrams
from ocensa_nb.models.save import save_linear, save_model
from ocensa_nb.runs.manifest import CORRECTIONS
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.logs import PREFIXES
from ocensa_nb.training.field_choice import choose_fields
from ocensa_nb.training.inputs import Inputs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedLinear:
    """The linear model of the training rows, and the columns that each of its labels uses."""

    model: LinearModel
    fields: dict[str, dict[str, Any]]  # per label, its `FieldChoice`, and `lines` about it in Spanish


def fit_linear(config: TrainConfig, notices: Notices) -> FittedLinear:
    """Choose columns and fit the linear model, on the training rows; print its validation F1, the encoder's hurdle."""
    train, val = notices.split["train"], notices.split["val"]
    labels, fields = _rows(notices.labels, train), notices.fields.iloc[train]
    texts = _texts(notices, train)
    counts = count_ngrams(texts)
    choices = choose_fields(counts, fields, notices.known_fields, labels, group_texts(texts))
    sizes = {head: len(names) for head, names in notices.classes.items()}
    terms = {head: choice.terms for head, choice in choices.items()}
    model = LinearModel.fit(counts, labels, sizes, fields, terms)
    used = {head: asdict(choice) | {"lines": choice.lines(head, config)} for head, choice in choices.items()}
    for line in field_lines({"fields": used}):
        logger.info(line)
    predicted = predicted_classes(model.logits(_texts(notices, val), notices.fields.iloc[val]))
    scores = flat_metrics(_rows(notices.labels, val), predicted)
    f1 = ", ".join(f"{head} {num(scores[f'{head}_f1'], 3)}" for head in notices.classes)
    logger.info(f"Modelo simple (TF-IDF): F1 de validación {f1}. Es lo que el codificador tiene que superar.")
    return FittedLinear(model, used)


def validate(config: TrainConfig, notices: Notices, logits: Arrays) -> tuple[dict[str, float], list[list[int]]]:
    """Return the metrics of the validation rows, and the confusion of the monitored head (`confusion_counts`)."""
    labels, predicted = _rows(notices.labels, notices.split["val"]), predicted_classes(logits)
    head = config.monitored_head
    return flat_metrics(labels, predicted), confusion_counts(labels[head], predicted[head])


def save_models(
    run: Run, notices: Notices, inputs: Inputs, linear: FittedLinear, logits: Mapping[str, Arrays]
) -> dict[str, Any]:
    """Save the models; `logits`: float32 (rows, classes) per side and head; return the content of metrics.json."""
    blends, evidence, metrics = measure_quality(notices, linear, logits)
    save_model(run, inputs.model, inputs.tokenizer)
    save_linear(run, linear.model)
    write_blends(run, blends)
    evidence.write(run)
    write_splits(run, notices)
    if corrections := notices.report.corrections:
        # The run depends on them, and their file may get lost.
        write_corrections(corrections.table, notices.classes, run.path / CORRECTIONS)
    return metrics


def measure_quality(
    notices: Notices, linear: FittedLinear, encoder: Mapping[str, Arrays]
) -> tuple[dict[str, Blend], Evidence, dict[str, Any]]:
    """Fit the blends on the validation rows, and measure every model on the validation and test rows."""
    labels = {side: _rows(notices.labels, notices.split[side]) for side in encoder}
    texts = {side: _texts(notices, notices.split[side]) for side in encoder}
    fields = {side: notices.fields.iloc[notices.split[side]] for side in encoder}
    logits = {
        side: {ENCODER: encoder[side], LINEAR: linear.model.logits(texts[side], fields[side])} for side in encoder
    }
    blends = blending.fit(logits["val"], labels["val"])
    predicted = {
        source: {side: predictions_of(blending.apply(blends, logits[side], source), labels[side]) for side in encoder}
        for source in (AUTO, *SOURCES)
    }
    by_source = {
        source: {side: metrics_of(predictions) for side, predictions in by_side.items()}
        for source, by_side in predicted.items()
    }
    test = predicted[AUTO]["test"]
    uncalibrated = predictions_of(blending.apply(blending.uncalibrated(blends), logits["test"]), labels["test"])
    counts = notices.class_rows()
    groups = {side: group_texts(part) for side, part in texts.items()}
    evidence = Evidence(logits, labels, groups)
    suggestions = evidence.suggestions(blends, counts)
    measured = {head: part.measure(rows, notices.classes[head]) for head, (part, rows) in suggestions.items()}
    metrics = {
        **by_source.pop(AUTO),
        **by_source,
        "sources": {head: blend.source for head, blend in blends.items()},
        "comparison": compare({source: predicted[source]["test"] for source in SOURCES}, groups["test"]),
        "calibration": {
            head: {"before": _calibration_error(uncalibrated[head]), "after": _calibration_error(test[head])}
            for head in blends
        },
        "suggestion": measured,
        "verdict": {
            head: judge(head, names, counts[head], suggestions[head][0], measured[head], test[head])
            for head, names in notices.classes.items()
        },
        "pairs": np.unique(
            np.stack(list(_rows(notices.labels, notices.split["train"]).values())[:2], 1), axis=0
        ).tolist(),
        "fields": linear.fields,
        "familiar": familiar_share(linear.model, texts["test"]),
        "near_duplicates": measure_near(notices.texts, notices.split, test),
        "warnings": check_predictions(notices.classes, counts, test),
    }
    return blends, evidence, metrics


def field_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return, in Spanish, what columns add to the text, and how to use another that helps."""
    return [line for choice in metrics["fields"].values() for line in choice["lines"]]


def report(metrics: Mapping[str, Any], verbose: bool = False) -> list[str]:
    """Return, in Spanish, what each label is good for, the warnings, and, if `verbose`, which model is better."""
    lines = [f"{verdict['sentence']} {verdict['advice']}".strip() for verdict in metrics["verdict"].values()]
    lines += describe_near(metrics["near_duplicates"])
    lines += [PREFIXES[logging.WARNING] + warning for warning in metrics["warnings"]]
    return lines + sentences(metrics["comparison"]) * verbose


def _texts(notices: Notices, rows: np.ndarray) -> list[str]:
    return [notices.texts[row] for row in rows]


def _rows(values: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {head: array[rows] for head, array in values.items()}


def _calibration_error(predictions: Predictions) -> float:
    return expected_calibration_error(predictions.confidence, predictions.correct)
