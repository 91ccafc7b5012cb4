"""What can be expected of a label before any training, why, and what to do about it.

A run predicts with the better of encoder and simple model, or their blend: it starts where the simple model ends.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ocensa_nb.audit.columns import SOME, column_sentence, majority_f1
from ocensa_nb.audit.label_errors import OutOfFold
from ocensa_nb.audit.repeats import Repeats
from ocensa_nb.audit.rows import LabelRows
from ocensa_nb.data.labels import FEWEST_CLASSES, OTHER
from ocensa_nb.errors import listed, num
from ocensa_nb.evaluation.metrics import bootstrap, flat_metrics

CAN, PARTLY, CANNOT, UNKNOWN = "se puede aprender", "se aprende en parte", "no se puede aprender", "no se puede medir"
GOOD, POOR = 0.8, 0.5  # weighted F1: all of the range above the first, or all of it below the second
FEWEST_ROWS = 50  # of a label: with fewer, a model that is no better than chance says nothing of the label
FEWEST_TEST = 10  # test rows of a class below which its F1 says little
FEWEST_TEXTS = 10  # distinct texts of a class below which there is little to learn from
NO_MEASURE, NO_LEARNING = "muy pocos avisos de prueba para medirla", "muy pocos textos para aprenderla"
CONTRADICTORY = 0.8  # ceiling of the repeated texts below which the labels need a review
HELPS = 0.02  # F1 that twice the rows must gain to be worth collecting
RESAMPLES = 500
INTERVAL = (0.025, 0.975)
# The part of the distance between the simple model and the ceiling that the blend gains in weighted F1. On 7,100 real
# notices (MiniLM, 8 epochs, splits 1 to 3): modo -0.06 to 0.05, causa 0.15 to 0.21, prioridad -0.04 to 0.04. Splits 4
# to 6 and the synthetic notices, which did not choose it: at most 0.17.
GAIN = 0.2
MACRO_LOSS = 0.05  # macro F1 that the blend lost at most on splits 1 to 3, for more weighted F1; it gained 0.02 at most


@dataclass(frozen=True)
class ExpectedF1:
    """Expected scores of one label on the test rows of a training."""

    f1: tuple[float, float]  # from the simple model's on an unlucky test set to what an encoder has added
    f1_macro: tuple[float, float]  # the lowest includes what the blend has lost
    linear_f1: float  # of the simple model on every row, out of fold
    majority: float  # weighted F1 of always predicting the most frequent class
    # Whether the simple model's kappa is positive in at least 97.5 % of the resamples of the whole file: it agrees with
    # the labels more often than its predictions, shuffled, would (Cohen, *A coefficient of agreement for nominal
    # scales*, 1960). A constant answer has kappa 0.
    beats_chance: bool
    ceiling: float  # highest accuracy that notices with the same text allow, upper end of its interval; 1 if unknown


def expect_f1(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, test_rows: int, repeats: Repeats, seed: int
) -> ExpectedF1:
    """Return the expected range of F1: a bootstrap over texts, of as many rows as the test set (m out of n)."""

    def resampled(share: float) -> dict[str, np.ndarray]:
        return bootstrap(labels, {"linear": predicted}, groups, RESAMPLES, seed, share)["linear"]

    flat = flat_metrics({"": labels}, {"": predicted})
    _, best, ceiling = (1.0, 1.0, 1.0) if repeats.ceiling is None else repeats.ceiling
    gain = GAIN * max(0.0, best - flat["_f1"])
    test = resampled(test_rows / len(labels))
    (low, high), (macro_low, macro_high) = (np.quantile(test[name][1:], INTERVAL) for name in ("f1", "f1_macro"))
    return ExpectedF1(
        f1=(float(low), float(min(high + gain, repeats.f1, 1.0))),
        f1_macro=(float(max(macro_low - MACRO_LOSS, 0.0)), float(min(macro_high, repeats.f1_macro))),
        linear_f1=flat["_f1"],
        majority=majority_f1(labels),
        beats_chance=bool(np.quantile(resampled(1.0)["kappa"][1:], INTERVAL[0]) > 0),
        ceiling=ceiling,
    )


@dataclass(frozen=True)
class Verdict:
    """What can be expected of a label."""

    level: str
    sentence: str
    reasons: list[str]
    actions: list[str]


def class_table(label: LabelRows, groups: np.ndarray, answers: OutOfFold | None, head: str) -> pd.DataFrame:
    """Return the rows of each class and whether they are enough, the most frequent class first."""
    labels, size = label.labels, len(label.classes)
    texts = np.bincount(np.unique(np.stack([labels, groups]), axis=1)[0], minlength=size)
    tested, f1 = np.zeros(size, np.int64), np.full(size, np.nan)
    if answers is not None:
        tested = np.bincount(labels[answers.split["test"]], minlength=size)
        f1 = f1_score(labels, answers.predicted(head), labels=np.arange(size), average=None, zero_division=0)
    table = pd.DataFrame(
        {
            "clase": label.classes,
            "avisos": np.bincount(labels, minlength=size),
            "textos distintos": texts,
            "avisos de prueba": tested,
            "F1": f1,
        }
    )
    table["nota"] = np.select([texts < FEWEST_TEXTS, tested < FEWEST_TEST], [NO_LEARNING, NO_MEASURE], "")
    return table.sort_values("avisos", ascending=False, kind="stable").reset_index(drop=True)


def judge_label(
    head: str,
    repeats: Repeats,
    columns: pd.DataFrame,
    classes: pd.DataFrame,
    expected: ExpectedF1,
    doubled: float | None,
    suspects: int,
) -> Verdict:
    low, high = expected.f1
    rows = int(classes["avisos"].sum())
    if (level := _level(expected, rows)) == UNKNOWN:
        return cannot_measure(head, rows, len(classes), "Son pocos para saber si se aprende.")
    sentence = (
        f"{head}: {level}. F1 esperado en prueba, de {num(low, 2)} a {num(high, 2)} (macro, de "
        f"{num(expected.f1_macro[0], 2)} a {num(expected.f1_macro[1], 2)})."
    )
    columns = columns[columns["F1"] >= expected.majority + SOME]  # the others say nothing
    reasons, actions = [column_sentence(head, columns, expected.majority, expected.linear_f1)], []
    if not expected.beats_chance:
        reasons.append(
            "El modelo simple no acierta más que al azar, o respondiendo siempre lo mismo: el texto no dice nada de "
            "esta etiqueta."
        )
    if repeats.ceiling is None:
        reasons.append("Muy pocos avisos repiten un texto para saber si la etiqueta se contradice.")
    else:
        agreement, low, value, high = (round(100 * share) for share in (repeats.agreement, *repeats.ceiling))
        reasons.append(
            f"Dos avisos con el mismo texto tienen la misma clase el {agreement} % de las veces: en esos "
            f"{num(repeats.rows)} avisos, quien decide solo por el texto no pasa del {value} % ({low} a {high} %)."
            if low < 100
            else "Los avisos que repiten un texto tienen siempre la misma clase."
        )
        if repeats.ceiling[1] < CONTRADICTORY:
            actions.append(
                f"Revise los avisos contradictorios (review_{head}.xlsx, los primeros) y acuerde cuándo se usa cada "
                "clase; si depende de algo que el texto no dice, añada esa columna al texto."
            )
    actions += _about_rare(classes)
    if level != CAN:
        actions.append(
            f"Revise las etiquetas en el orden de review_{head}.xlsx: el modelo simple daría otra clase a "
            f"{num(suspects)} avisos. Los primeros son los más sospechosos."
        )
    if doubled is not None:
        reasons.append(f"Duplicar los avisos {'subió' if doubled >= 0 else 'bajó'} el F1 {num(abs(doubled), 3)}.")
        if doubled >= HELPS and level != CAN:
            actions.append("Reúna más avisos etiquetados: todavía mejora con ellos.")
        elif level != CAN:
            reasons.append("Más avisos del mismo tipo apenas ayudarían.")
    return Verdict(level, sentence, reasons, actions)


def _level(expected: ExpectedF1, rows: int) -> str:
    """Return what can be expected; of a label that is nearly always the same class, only what exceeds that answer."""
    low, high = expected.f1
    if not expected.beats_chance:
        return UNKNOWN if rows < FEWEST_ROWS else CANNOT
    if low >= GOOD and expected.linear_f1 >= (1 + expected.majority) / 2:
        return CAN
    return CANNOT if high < POOR else PARTLY


def cannot_measure(head: str, rows: int, classes: int, reason: str) -> Verdict:
    what = f"{head}: {UNKNOWN}. Avisos con texto: {num(rows)}; clases: {num(classes)}. {reason}"
    more = "Use otra columna" if classes == 1 else "Reúna más avisos con esta etiqueta"
    return Verdict(UNKNOWN, what, [], [f"{more}, o quítela de heads."])


def _about_rare(classes: pd.DataFrame) -> list[str]:
    rare = classes[classes["nota"] == NO_LEARNING]
    few = classes[classes["nota"] == NO_MEASURE]
    sentences = []
    if len(rare):
        advice = (
            f"Combine las clases de menos de {FEWEST_TEXTS} textos ({len(rare)}: {listed(rare['clase'])}): son "
            "muy pocos para aprenderlas."
        )
        if len(classes) >= FEWEST_CLASSES and (rare["avisos"] < FEWEST_TEXTS).any():
            advice += (
                f" Al entrenar, --min-class-count {FEWEST_TEXTS} une en «{OTHER}» las de menos de {FEWEST_TEXTS} "
                "avisos de las etiquetas con seis clases o más."
            )
        sentences.append(advice)
    if len(few):
        sentences.append(
            f"No confíe en el F1 de las clases con menos de {FEWEST_TEST} avisos de prueba ({len(few)} más)."
        )
    return sentences
