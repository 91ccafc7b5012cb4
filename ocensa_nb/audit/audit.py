"""Audit a file: can its labels be learnt, and which F1 is to be expected, before any training."""

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ocensa_nb.audit import label_errors, verdict
from ocensa_nb.audit.columns import column_scores
from ocensa_nb.audit.expected_f1 import expect_f1
from ocensa_nb.audit.out_of_fold import OutOfFold, fold_rows, predict_out
from ocensa_nb.audit.repeats import NearDuplicates, find_near_duplicates, find_repeats
from ocensa_nb.audit.report import EXACT, NORMALISED, Audit, NearEffect
from ocensa_nb.audit.rows import AuditRows, read_audit_rows
from ocensa_nb.config import TEXT_FIELDS, TrainConfig
from ocensa_nb.data.notices import MIN_ROWS, TEXT
from ocensa_nb.errors import UserError, clipped
from ocensa_nb.evaluation.metrics import flat_metrics

logger = logging.getLogger(__name__)

WITHOUT_NEAR, HALF = "without near-duplicates", "half of the rows"  # smaller training sets


def settings(
    data: str,
    heads: Iterable[str] = ("modo", "causa", "prioridad"),
    columns: Mapping[str, str] | None = None,
    text_fields: Iterable[str] = TEXT_FIELDS,
    min_class_count: int = 2,
    seed: int = 42,
) -> TrainConfig:
    """Return the config of an audit; the parameters are fields of `TrainConfig`, and the labels have no weights.

    Raises
    ------
    UserError
        If a value is not valid.
    """
    labels = list(heads)
    if not labels:
        raise UserError("heads está vacío: indique al menos una etiqueta, p. ej. causa.")
    return TrainConfig(
        data=data,
        heads=dict.fromkeys(labels, 1.0),
        columns=dict(columns or {}),
        text_fields=tuple(text_fields),
        min_class_count=min_class_count,
        monitor=f"{labels[0]}_f1",
        seed=seed,
    ).validate()


def named_settings(data: str, heads: str, columns: str, seed: int) -> TrainConfig:
    """Return the config of an audit from the texts of a form.

    Parameters
    ----------
    data
        The file.
    heads
        Labels, separated by commas.
    columns
        Pairs of role and column, such as `causa: Mi columna`, separated by commas.
    seed
        Of the folds.

    Raises
    ------
    UserError
        If a pair has no colon, or a value is not valid.
    """
    for name, value, example in (("heads", heads, "modo, causa"), ("columns", columns, "causa: Mi columna")):
        if not isinstance(value, str):
            raise UserError(f'{name} = {clipped(repr(value))}: debe ser un texto entre comillas, como "{example}".')
    pairs = [pair.partition(":") for pair in columns.split(",") if pair.strip()]
    for role, colon, name in pairs:
        if not (colon and role.strip() and name.strip()):
            raise UserError(f"columns: «{clipped(role)}» no es un par papel: columna, como causa: Mi columna.")
    labels = [head.strip() for head in heads.split(",") if head.strip()]
    return settings(data, labels, {role.strip(): name.strip() for role, _, name in pairs}, seed=seed)


def audit(config: TrainConfig) -> Audit:
    """Audit the file of a config.

    Parameters
    ----------
    config
        Its data, columns, heads, text fields, `min_class_count`, sizes of the split and seed are used.

    Raises
    ------
    UserError
        If the file cannot be read, or no row has a text and a label.
    """
    data = read_audit_rows(config)
    logger.info("\n".join(data.lines()))
    if not label_errors.has_cleanlab():
        logger.info(label_errors.MISSING)
    repeats = {
        head: {
            kind: find_repeats(found.labels, texts[found.rows], config.seed)
            for kind, texts in ((EXACT, data.exact), (NORMALISED, data.groups))
        }
        for head, found in data.labels.items()
        if len(found.rows)
    }
    columns = column_scores(data, config.seed)
    answers, near, doubled, reasons = {}, {}, {}, {}
    for heads in _by_rows(data):
        try:
            found, close = _measure(data, heads, config)
        except UserError as error:
            reasons |= dict.fromkeys(heads, str(error))
            continue
        for head in heads:
            answers[head] = found
            near[head], doubled[head] = _effects(data, head, found, close)
    expected = {
        head: expect_f1(
            data.labels[head].labels,
            found.predicted(head),
            data.groups[found.rows],
            len(found.split["test"]),
            repeats[head][NORMALISED],
            config.seed,
        )
        for head, found in answers.items()
    }
    classes = {head: _classes(data, head, answers.get(head)) for head in data.labels}
    review = {head: label_errors.review_list(data, head, found) for head, found in answers.items()}
    verdicts = {}
    for head, found in data.labels.items():
        if head not in answers:
            verdicts[head] = verdict.cannot_measure(head, found, reasons.get(head, _too_few(data, head)))
            continue
        verdicts[head] = verdict.judge(
            head,
            repeats[head][NORMALISED],
            columns[head],
            classes[head],
            expected[head],
            doubled[head],
            review[head].attrs["suspects"],
            config.text_fields,
        )
    return Audit(
        data=data,
        repeats=repeats,
        columns=columns,
        classes=classes,
        answers=answers,
        expected=expected,
        near=near,
        doubled=doubled,
        review=review,
        verdicts=verdicts,
    )


def _by_rows(data: AuditRows) -> list[list[str]]:
    """Return the labels that can be measured, those with the same rows together, for one model."""
    together: dict[bytes, list[str]] = {}
    for head, found in data.labels.items():
        if not _too_few(data, head):
            together.setdefault(found.rows.tobytes(), []).append(head)
    return list(together.values())


def _too_few(data: AuditRows, head: str) -> str:
    """Return, in Spanish, why a label cannot be measured; empty if it can."""
    found = data.labels[head]
    if len(found.rows) < MIN_ROWS:
        return f"Hacen falta al menos {MIN_ROWS} avisos con texto y etiqueta, y unos cientos para que sirva de algo."
    if len(found.classes) < 2:
        return f"Tiene una sola clase, «{found.classes[0]}»: no hay nada que aprender."
    return ""


def _measure(data: AuditRows, heads: list[str], config: TrainConfig) -> tuple[OutOfFold, NearDuplicates]:
    """Return the simple model's answers for labels with the same rows, and the near-duplicates across their split."""
    rows = data.labels[heads[0]].rows
    texts = data.frame[TEXT].iloc[rows].tolist()
    groups = pd.factorize(data.groups[rows])[0]  # numbered as a training numbers them
    labels = {head: data.labels[head].labels for head in heads}
    split, folds = fold_rows(groups, labels, config)
    train = split["train"]
    close = find_near_duplicates(texts, train, np.flatnonzero(folds == 0))
    half = np.random.default_rng(config.seed).random(groups.max() + 1) < 0.5
    smaller = {HALF: train[half[groups[train]]]}
    if len(close.repeated):
        smaller[WITHOUT_NEAR] = np.setdiff1d(train, close.repeated)
    smaller = {name: fewer for name, fewer in smaller.items() if len(fewer)}
    return predict_out(texts, rows, labels, split, folds, smaller), close


def _effects(data: AuditRows, head: str, answers: OutOfFold, close: NearDuplicates) -> tuple[NearEffect, float | None]:
    """Return what the near-duplicates and twice the training rows add to the simple model's F1."""
    labels, asked = data.labels[head].labels, answers.held_out()
    f1 = flat_metrics({"": labels[asked]}, {"": answers.predicted(head)[asked]})["_f1"]
    name = f"{head}_f1"
    same = labels[asked] == labels[close.nearest]
    effect = NearEffect(
        close=int(close.close.sum()),
        asked=len(asked),
        agreement=float(same[close.close].mean()) if close.close.any() else None,
        f1=f1,
        f1_without=answers.without.get(WITHOUT_NEAR, {}).get(name, f1),
    )
    return effect, f1 - answers.without[HALF][name] if HALF in answers.without else None


def _classes(data: AuditRows, head: str, answers: OutOfFold | None) -> pd.DataFrame:
    found = data.labels[head]
    predicted, test = (None, None) if answers is None else (answers.predicted(head), answers.split["test"])
    return verdict.class_table(found, data.groups[found.rows], predicted, test)
