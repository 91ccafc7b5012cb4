"""A verdict per label: its predictions can be used as they are, above a confidence, or not yet.

The rule, for a target accuracy of 90 %:

1. `useful` if the lower bound of the accuracy on all test rows (one-sided Wilson, 95 %) reaches the target.
2. `useful_above` a threshold if, on the validation rows, the lower bound of the accuracy from that confidence on
   reaches the target, and on the test rows the measured accuracy does too, with at least 20 rows and 10 % of all rows.
3. `not_yet` otherwise, with the reason and what to try.

The threshold is chosen on validation rows, and its coverage and accuracy are those of the test rows, which chose
nothing. Validation has chosen the epoch and the temperature too, so only the test rows are evidence.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocensa_nb.data.notices import OTHER
from ocensa_nb.errors import clipped
from ocensa_nb.evaluation.calibration import ONE_SIDED, threshold_for, wilson
from ocensa_nb.files.write import DECIMALS

TARGET = 0.9
LEAST_ROWS = 20  # test rows above the threshold
LEAST_COVERAGE = 0.1  # of the test rows: less saves no work
FEW_ROWS = 50  # training rows of a class, below which more of them are the first thing to try
RARE_ERRORS = 0.1  # share of the errors that makes the classes with few rows worth naming
NAMED_CLASSES = 3
USEFUL, USEFUL_ABOVE, NOT_YET = "useful", "useful_above", "not_yet"


@dataclass(frozen=True)
class Answers:
    """Calibrated predictions of one label on some rows.

    Attributes
    ----------
    confidence
        Calibrated probability of the predicted class, float (rows,).
    predicted, labels
        Predicted and true class indices, int64 (rows,).
    """

    confidence: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is right, bool (rows,)."""
        return self.predicted == self.labels


def answers_of(probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, Answers]:
    """Return the answers of each label, from probabilities (rows, classes) and true class indices (rows,)."""
    return {
        head: Answers(shares.max(axis=1), shares.argmax(axis=1), labels[head]) for head, shares in probabilities.items()
    }


def judge(
    head: str,
    classes: Sequence[str],
    class_rows: np.ndarray,
    val: Answers,
    test: Answers | None = None,
    target: float = TARGET,
) -> dict[str, Any]:
    """Return the verdict on a label.

    Parameters
    ----------
    head
        Name of the label.
    classes
        Names of its classes.
    class_rows
        Training rows of each class, int64 (classes,).
    val
        The validation rows, which choose the threshold.
    test
        The rows that measure it. None or empty if there are none: then the verdict is that of the validation rows,
        and its sentence says so.
    target
        Accuracy, from 0 to 1, at which predictions can be used without a review.

    Returns
    -------
    dict
        `status` (`useful`, `useful_above`, `not_yet`), `target`, `threshold` (float or None: use the predictions whose
        confidence is equal or higher), `coverage` and `accuracy` (of these, float or None), `measured_on` (`test` or
        `val`), `rows` (measured, all), `accuracy_all`, `accuracy_all_low` (its lower bound) and `accuracy_top` (of
        the 10 % with the highest confidence); `sentence` and `advice` (what to try, or ""), in Spanish. It can be
        written as JSON.
    """
    side, measured = ("val", val) if test is None or not len(test.labels) else ("test", test)
    rows, correct = len(measured.labels), measured.correct
    found: dict[str, Any] = {
        "status": NOT_YET,
        "target": target,
        "threshold": None,
        "coverage": None,
        "accuracy": None,
        "measured_on": side,
        "rows": rows,
        "accuracy_all": float(correct.mean()) if rows else None,
        "accuracy_all_low": float(wilson(correct.sum(), rows, -ONE_SIDED)) if rows else None,
        "accuracy_top": _accuracy_of_the_surest(measured) if rows else None,
    }
    threshold = threshold_for(val.confidence, val.correct, target)
    if rows and found["accuracy_all_low"] >= target:
        found |= {"status": USEFUL, "threshold": 0.0, "coverage": 1.0, "accuracy": found["accuracy_all"]}
    elif rows and threshold is not None:
        found["threshold"] = _rounded_up(threshold)
        above = measured.confidence >= found["threshold"]
        found["coverage"] = float(above.mean())
        found["accuracy"] = float(correct[above].mean()) if above.any() else None
        enough = above.sum() >= LEAST_ROWS and found["coverage"] >= LEAST_COVERAGE
        if enough and found["accuracy"] >= target:
            found["status"] = USEFUL_ABOVE
    found["sentence"] = _sentence(head, found)
    found["advice"] = _what_to_try(classes, class_rows, measured) if found["status"] == NOT_YET else ""
    return found


def apply_verdict(head: str, verdict: Mapping[str, Any], confidence: np.ndarray) -> str:
    """Return, in Spanish, what a verdict means for new notices without labels."""
    rows, target = len(confidence), f"{100 * verdict['target']:.0f} %"
    if verdict["status"] == USEFUL:
        return f"{head}: sirve; se espera un {_percent(verdict['accuracy'])} de acierto en estos {rows:,} avisos."
    if verdict["status"] == NOT_YET:
        return f"{head}: todavía no sirve sin revisión: no se ha comprobado que acierte el {target}."
    above = int((np.asarray(confidence) >= verdict["threshold"]).sum())
    return (
        f"{head}: {above:,} de {rows:,} avisos ({_percent(above / max(rows, 1))}) pasan de {verdict['threshold']:g} de "
        f"confianza, y ahí se espera un {_percent(verdict['accuracy'])} de acierto; revise los demás."
    )


def _accuracy_of_the_surest(measured: Answers) -> float:
    """Return the accuracy of the 10 % of the rows with the highest confidence, ties included; there is a row."""
    least = np.sort(measured.confidence)[::-1][max(math.ceil(LEAST_COVERAGE * len(measured.labels)), 1) - 1]
    return float(measured.correct[measured.confidence >= least].mean())


def _rounded_up(threshold: float) -> float:
    """Return a threshold with two decimals; one that would be 1 is rounded down to the decimals of predictions."""
    short = math.ceil(threshold * 100 - 1e-9) / 100
    return short if short < 1 else math.floor(threshold * 10**DECIMALS + 1e-9) / 10**DECIMALS


def _sentence(head: str, found: Mapping[str, Any]) -> str:
    """Return the verdict in Spanish: what can be used, or why not."""
    side = "prueba" if found["measured_on"] == "test" else "validación, sin comprobar en otros avisos"
    rows, threshold = found["rows"], found["threshold"]
    if not rows:
        return f"{head}: todavía no se sabe si sirve: no hay avisos de validación ni de prueba."
    overall, target = _percent(found["accuracy_all"]), f"{100 * found['target']:.0f} %"
    if found["status"] == USEFUL:
        return f"{head}: sirve ({overall} de acierto en {rows:,} avisos de {side})."
    if threshold is None:
        return (
            f"{head}: todavía no sirve: acierta el {overall} ({rows:,} avisos de {side}) y, del 10 % con más "
            f"confianza, el {_percent(found['accuracy_top'])}; no se comprueba que llegue al {target}."
        )
    coverage, above = _percent(found["coverage"]), f"por encima de {threshold:g} de confianza"
    if found["accuracy"] is None:
        return f"{head}: todavía no sirve: ninguno de {rows:,} avisos de {side} pasa de {threshold:g} de confianza."
    covered = f"({coverage} de los avisos, {_percent(found['accuracy'])} de acierto)"
    if found["status"] == USEFUL_ABOVE:
        unchecked = "" if found["measured_on"] == "test" else f" en {side}"
        return f"{head}: sirve {above} {covered}{unchecked}; revise los demás."
    if found["accuracy"] < found["target"]:
        return f"{head}: todavía no sirve: {above} {covered} debía acertar el {target}."
    return f"{head}: todavía no sirve: solo acierta el {target} {above}, y son muy pocos avisos {covered}."


def _what_to_try(classes: Sequence[str], class_rows: np.ndarray, measured: Answers) -> str:
    """Return what to try, by the classes whose notices are predicted wrong most often."""
    wrong = ~measured.correct
    pairs = Counter(zip(measured.labels[wrong].tolist(), measured.predicted[wrong].tolist(), strict=True))
    named = {pair: count for pair, count in pairs.items() if OTHER not in (classes[pair[0]], classes[pair[1]])}
    errors: Counter[int] = Counter()
    for (true, _), count in named.items():
        errors[true] += count
    rare = Counter({true: count for true, count in errors.items() if class_rows[true] < FEW_ROWS})
    advice = []
    if rare.total() > RARE_ERRORS * wrong.sum():
        names = [f"«{clipped(classes[true])}» ({class_rows[true]:,})" for true, _ in rare.most_common(NAMED_CLASSES)]
        advice.append(f"Etiquete más avisos de las clases con pocos en el entrenamiento: {', '.join(names)}.")
    often = Counter({pair: count for pair, count in named.items() if min(class_rows[list(pair)]) >= FEW_ROWS})
    if often:
        ((true, predicted), count) = often.most_common(1)[0]
        advice.append(
            f"Lo que más se confunde: {count:,} avisos de «{clipped(classes[true])}» se predicen como "
            f"«{clipped(classes[predicted])}»; revise sus etiquetas con el cuaderno 06, que dice cuáles se contradicen "
            "y si otra columna, como un código de SAP, ya da la respuesta."
        )
    return " ".join(advice)


def _percent(share: float) -> str:
    """Return a share as a whole percentage, rounded down from 99.5 on, so that 100 % is said of all rows only."""
    return f"{100 if share == 1 else min(99.0, 100 * share):.0f} %"
