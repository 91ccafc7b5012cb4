"""Audit a file: can its labels be learnt, and which F1 is to be expected, before any training."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ocensa_nb.audit import label_errors, verdict
from ocensa_nb.audit.columns import column_scores
from ocensa_nb.audit.label_errors import OutOfFold, fold_rows, predict_out, sample_rows
from ocensa_nb.audit.repeats import find_repeats
from ocensa_nb.audit.report import EXACT, NORMALISED, Audit, NearEffect
from ocensa_nb.audit.rows import AuditRows, LabelRows, read_audit_rows
from ocensa_nb.config import TrainConfig
from ocensa_nb.data.labels import MIN_ROWS
from ocensa_nb.errors import UserError, clipped, num
from ocensa_nb.evaluation.metrics import flat_metrics
from ocensa_nb.models.linear import count_ngrams
from ocensa_nb.models.near_duplicates import NearDuplicates, find_near_duplicates
from ocensa_nb.training.field_choice import FieldChoice, choose_fields

logger = logging.getLogger(__name__)

WITHOUT_NEAR, HALF = "without near-duplicates", "half of the rows"  # smaller training sets
SAMPLED = "De {} avisos, el modelo simple se ajusta a {}, elegidos al azar: con todos acertaría algo más."


def settings(data: str, heads: Iterable[str] = ("modo", "causa", "prioridad"), **fields: Any) -> TrainConfig:
    """Return the config of an audit; raises `UserError` if a value is not valid."""
    labels = list(heads)
    if not labels:
        raise UserError("heads está vacío: indique al menos una etiqueta, p. ej. causa.")
    weights = dict.fromkeys(labels, 1.0)
    return TrainConfig(data=data, heads=weights, monitor=f"{labels[0]}_f1", **fields).validate()


def named_settings(data: str, heads: str | Sequence[str], columns: str | Mapping[str, str], seed: int) -> TrainConfig:
    """Return the config of a form: labels and columns as text, or as `papermill -y` gives a list and a mapping."""
    if isinstance(heads, str):
        heads = [head.strip() for head in heads.split(",") if head.strip()]
    if isinstance(columns, str):
        pairs = [pair.partition(":") for pair in columns.split(",") if pair.strip()]
        for role, colon, name in pairs:
            if not (colon and role.strip() and name.strip()):
                raise UserError(f"columns: «{clipped(role)}» no es un par papel: columna, como causa: Mi columna.")
        columns = {role.strip(): name.strip() for role, _, name in pairs}
    for name, value, kind, example in (
        ("heads", heads, list | tuple, "modo, causa"),
        ("columns", columns, Mapping, "causa: Mi columna"),
    ):
        if not isinstance(value, kind):
            raise UserError(f'{name} = {clipped(repr(value))}: debe ser un texto entre comillas, como "{example}".')
    return settings(data, heads, columns=columns, seed=seed)


def audit(config: TrainConfig) -> Audit:
    """Audit the file of a config; raises `UserError` if it cannot be read, or no row has a text and a label."""
    data = read_audit_rows(config)
    logger.info("\n".join(data.lines()))
    if not label_errors.has_cleanlab():
        logger.info(label_errors.MISSING)
    kinds = {EXACT: pd.factorize(data.file.texts)[0], NORMALISED: data.groups}
    repeats = {
        head: {kind: find_repeats(label.labels, texts[label.rows], config.seed) for kind, texts in kinds.items()}
        for head, label in data.labels.items()
        if len(label.rows)
    }
    columns = column_scores(data, config.seed)
    result = Audit(config, data, repeats, columns)
    reasons = {head: _too_few(label) for head, label in data.labels.items()}
    together: dict[bytes, list[str]] = {}  # labels with the same rows
    for head, label in data.labels.items():
        if not reasons[head]:
            together.setdefault(label.rows.tobytes(), []).append(head)
    for heads in together.values():
        try:
            choices, answers, duplicates = _measure(data, heads, config)
        except UserError as error:
            reasons |= dict.fromkeys(heads, str(error))
            continue
        result.choices.update(choices)
        for head in heads:
            result.answers[head] = answers
            result.near[head], result.doubled[head] = _effects(data, head, answers, duplicates)
    for head, label in data.labels.items():
        groups, answers = data.groups[label.rows], result.answers.get(head)
        result.classes[head] = verdict.class_table(label, groups, answers, head)
        if answers is None:
            result.verdicts[head] = verdict.cannot_measure(head, len(label.rows), len(label.classes), reasons[head])
            continue
        repeated, test_rows = repeats[head][NORMALISED], len(answers.split["test"])
        expected = verdict.expect_f1(label.labels, answers.predicted(head), groups, test_rows, repeated, config.seed)
        result.expected[head] = expected
        result.review[head], result.suspects[head] = label_errors.review_list(data, head, answers)
        result.verdicts[head] = verdict.judge_label(
            head, repeated, columns[head], result.classes[head], expected, result.doubled[head], result.suspects[head]
        )
    return result


def _too_few(label: LabelRows) -> str:
    if len(label.rows) < MIN_ROWS:
        return f"Hacen falta al menos {MIN_ROWS} avisos con texto y etiqueta, y unos cientos para que sirva de algo."
    if len(label.classes) < 2:
        return f"Tiene una sola clase, «{label.classes[0]}»: no hay nada que aprender."
    return ""


def _measure(
    data: AuditRows, heads: list[str], config: TrainConfig
) -> tuple[dict[str, FieldChoice], OutOfFold, NearDuplicates]:
    """Return, for labels with the same rows, the columns that help the simple model, its answers, near-duplicates.

    The near-duplicates are those across the split of a training.
    """
    rows = data.labels[heads[0]].rows
    texts = data.file.texts.iloc[rows].tolist()
    groups = pd.factorize(data.groups[rows])[0]  # numbered as a training numbers them
    labels = {head: data.labels[head].labels for head in heads}
    split, folds = fold_rows(groups, labels, config)
    train = split["train"]
    duplicates = find_near_duplicates(texts, train, np.flatnonzero(folds == 0))
    half = np.random.default_rng(config.seed).random(groups.max() + 1) < 0.5
    smaller = {HALF: train[half[groups[train]]]}
    if len(duplicates.repeated):
        smaller[WITHOUT_NEAR] = np.setdiff1d(train, duplicates.repeated)
    smaller = {name: fewer for name, fewer in smaller.items() if len(fewer)}
    sample, fields = sample_rows(labels, config.seed), data.file.fields.iloc[rows]
    if len(sample) < len(rows):
        logger.info(SAMPLED.format(num(len(rows)), num(len(sample))))
    counts, of_sample = count_ngrams([texts[row] for row in sample]), {head: y[sample] for head, y in labels.items()}
    # Chosen on all rows, so also on those that each fold holds out: the F1 of a few columns hardly gains from it.
    choices = choose_fields(counts, fields.iloc[sample], data.file.known_fields, of_sample, groups[sample])
    terms = {head: choice.terms for head, choice in choices.items()}
    return choices, predict_out(texts, counts, sample, fields, terms, labels, split, folds, smaller), duplicates


def _effects(
    data: AuditRows, head: str, answers: OutOfFold, duplicates: NearDuplicates
) -> tuple[NearEffect, float | None]:
    """Return what the near-duplicates and twice the training rows add to the simple model's F1."""
    labels, asked = data.labels[head].labels, np.sort(np.r_[answers.split["val"], answers.split["test"]])
    f1 = flat_metrics({"": labels[asked]}, {"": answers.predicted(head)[asked]})["_f1"]
    close = duplicates.close
    without = {name: scores[f"{head}_f1"] for name, scores in answers.without.items()}
    same = labels[asked[close]] == labels[duplicates.nearest[close]]
    agreement = float(same.mean()) if close.any() else None
    effect = NearEffect(int(close.sum()), len(asked), agreement, f1, without.get(WITHOUT_NEAR, f1))
    return effect, f1 - without[HALF] if HALF in without else None
