"""What the predictions of a label are good for: a verdict, and warnings about the predicted classes.

A verdict has four levels. What a level claims is a bound of the test rows (one-sided, 95 %) for thresholds and sizes
that validation rows chose, and is tested in a fixed sequence, which keeps the chance of a false claim at 5 %
(Angelopoulos et al., *Learn then test*, 2021): a label is `useful` only if it is also `useful_above` a confidence.

1. `useful`: at least 90 % of the answers are right, and more than if the most frequent class is always the answer.
2. `useful_above` a confidence: that holds of the answers above it.
3. `suggestion`: the right class is among 2 to 5 options as often, and surely more often than among the most frequent.
4. `not_yet` otherwise, with the reason and what to try.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from ocensa_nb.data.labels import OTHER
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import clipped, listed, num
from ocensa_nb.evaluation.metrics import Predictions, weighted_f1
from ocensa_nb.evaluation.suggestion import ACCEPT, CHOICES, CHOOSE, LEVEL, REVIEW, Suggestion
from ocensa_nb.models.near_duplicates import find_near_duplicates

Classes = Sequence[str]  # the names of the classes of a label, by index
Measured = Mapping[str, Any]  # what `Suggestion.measure` and `measure_near` return
FEW_ROWS = 50  # training rows of a class, below which more of them are the first thing to try
RARE_ERRORS = 0.1  # share of the errors that makes the classes with few rows worth naming
ADVISED_CLASSES = 3
USEFUL, USEFUL_ABOVE, SUGGESTION, NOT_YET = "useful", "useful_above", "suggestion", "not_yet"

EXPECTED_ROWS = 5  # of a class, by its training share: with fewer, its absence (or a chi-square cell) says little
NAMED_CLASSES = 5
LARGEST_P = 0.001
LEAST_DISTANCE = 0.2  # total variation; below, a difference of shares is too small to matter, however many rows show it


def judge(
    head: str, classes: Classes, class_rows: np.ndarray, suggestion: Suggestion, measured: Measured, test: Predictions
) -> dict[str, Any]:
    """Return the verdict on a label, from its training rows per class, and its suggestion as measured on test rows.

    Its entries are `status`, `target`, `threshold` (None, or the lowest confidence of an answer that needs no review),
    and `sentence` and `advice`, in Spanish.
    """
    needed = max(suggestion.target, class_rows.max() / class_rows.sum())
    status = SUGGESTION if suggestion.options else NOT_YET
    if measured["accepted"]["low"] > needed:
        status = USEFUL if measured["all"]["low"] > needed else USEFUL_ABOVE
    if measured["distinct"] < (fewest := math.log(LEVEL) / math.log(suggestion.target)):  # the bound if all are right
        sentence = (
            f"todavía no se sabe si sirve: con {measured['all']['rows']} avisos de prueba no se puede medir (hacen "
            f"falta {math.ceil(fewest)} de textos distintos)."
        )
    else:
        reason = _why_not(classes, class_rows, suggestion, measured, test) if status == NOT_YET else ""
        parts = [reason, _what_for(status, suggestion, measured), _never(classes, suggestion, test)]
        sentence = " ".join(filter(None, parts))
    return {
        "status": status,
        "target": suggestion.target,
        "threshold": suggestion.accept,
        "sentence": f"{head}: {sentence}".strip(),
        "advice": _what_to_try(classes, class_rows, test) if status == NOT_YET else "",
    }


def _what_for(status: str, suggestion: Suggestion, measured: Measured) -> str:
    if status == USEFUL:
        return f"sirve: acierta {_share(measured['all'])}."
    sentences = []
    if suggestion.options:
        among = f"a correcta está entre {suggestion.options} opciones {_share(measured['options'])}."
        sentences.append(("sirve como sugerencia: l" if status == SUGGESTION else "L") + among)
    if suggestion.accept is not None:
        threshold = f"{num(suggestion.accept, 6, form='g')} de confianza"
        part = f"el {percent(measured['accepted']['rows'] / measured['all']['rows'])} de los avisos"
        names = listed([f"«{clipped(name)}»" for name in measured["trusted"]], NAMED_CLASSES)
        right = f"acierta {_share(measured['accepted'])}{f'; sobre todo {names}' if names else ''}."
        if status == USEFUL_ABOVE:
            sentences.insert(0, f"sirve por encima de {threshold}, en {part}: {right}")
        else:
            which = f"{part}, los que pasan de {threshold}" if suggestion.accept else "todos los avisos"
            sentences.append(f"Acepte sin revisar {which}: {right}")
    return " ".join(sentences)


def _why_not(
    classes: Classes, class_rows: np.ndarray, suggestion: Suggestion, measured: Measured, test: Predictions
) -> str:
    why = f"todavía no sirve: acierta {_share(measured['all'])}"
    if suggestion.learnt:
        among = f", y la correcta está entre {CHOICES} opciones el {percent(measured['top'][CHOICES - 1])} de las veces"
        return f"{why}{among if len(classes) > CHOICES else ''}."
    majority = int(class_rows.argmax())
    always = f"siempre «{clipped(classes[majority])}», el {percent((test.labels == majority).mean())}"
    return f"{why}, y quien responde {always}."


def _never(classes: Classes, suggestion: Suggestion, test: Predictions) -> str:
    """Return, in Spanish, the classes of which no test row is recognised; of a label that is learnt, if it has some."""
    rows, found = (np.bincount(labels, minlength=len(classes)) for labels in (test.labels, test.labels[test.correct]))
    lost = np.flatnonzero((rows >= (EXPECTED_ROWS if suggestion.learnt else 1)) & (found == 0))
    names = [f"«{clipped(classes[i])}» ({num(rows[i])})" for i in lost[np.argsort(-rows[lost])]]
    return f"Nunca reconoce {listed(names, NAMED_CLASSES)}." if names else ""


def describe_decisions(head: str, measured: Measured, decisions: Mapping[str, int]) -> str:
    """Return, in Spanish, how many notices to accept, to choose for and to review, and what to expect."""
    rows = {kind: decisions.get(kind, 0) for kind in (ACCEPT, CHOOSE, REVIEW)}
    right, chosen = measured["accepted"], measured["chosen"]
    parts = {
        ACCEPT: f"acepte {{}} (acierta el {percent(right['right'])}, al menos el {percent(right['low'])})",
        CHOOSE: f"en {{}} elija entre {CHOICES} clases o menos (con la correcta el {percent(chosen['right'])})",
        REVIEW: "revise {}",
    }
    counted = [parts[kind].format(num(count)) for kind, count in rows.items() if count]
    return f"{head}: de {num(sum(decisions.values()))} avisos, {'; '.join(counted)}."


def describe_sets(head: str, measured: Measured) -> str:
    """Return, in Spanish, how large the sets of a label are, and how often they have the right class."""
    low, high = (percent(share) for share in measured["interval"])
    few = [f"«{clipped(name)}», {percent(share)}" for name, share in measured["uncovered"].items()]
    return (
        f"conjunto_{head}: {num(measured['size'], 1)} clases de media, con la correcta el "
        f"{percent(measured['sets']['right'])} de las veces (de {low} a {high})."
        f"{f' Mucho menos en {listed(few, NAMED_CLASSES)}.' if few else ''}"
    )


def _share(part: Measured) -> str:
    return f"el {percent(part['right'])} (al menos el {percent(part['low'])})"


def _what_to_try(classes: Classes, class_rows: np.ndarray, test: Predictions) -> str:
    wrong = ~test.correct
    pairs = Counter(zip(test.labels[wrong].tolist(), test.predicted[wrong].tolist(), strict=True))
    named = {pair: count for pair, count in pairs.items() if OTHER not in (classes[pair[0]], classes[pair[1]])}
    rare: Counter[int] = Counter()
    for (true, _), count in named.items():
        if class_rows[true] < FEW_ROWS:
            rare[true] += count
    advice = []
    if rare.total() > RARE_ERRORS * wrong.sum():
        names = [f"«{clipped(classes[i])}» ({num(class_rows[i])})" for i, _ in rare.most_common(ADVISED_CLASSES)]
        advice.append(f"Etiquete más avisos de las clases con pocos en el entrenamiento: {', '.join(names)}.")
    often = {pair: count for pair, count in named.items() if min(class_rows[list(pair)]) >= FEW_ROWS}
    if often:
        true, predicted = max(often, key=often.__getitem__)
        advice.append(
            f"Lo que más se confunde: {num(often[true, predicted])} avisos de «{clipped(classes[true])}» se predicen "
            f"como «{clipped(classes[predicted])}»; revise sus etiquetas con el cuaderno 02, que dice cuáles se "
            "contradicen y si otra columna, como un código de SAP, ya da la respuesta."
        )
    return " ".join(advice)


def percent(share: float) -> str:
    """Return a share as a whole percentage, rounded down: 90 % is said only of what reaches it."""
    return f"{math.floor(100 * share + 1e-9)} %"


def measure_near(texts: Sequence[str], split: Arrays, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return the share of the test rows that almost repeat a training row, and the F1 of each label without them."""
    others = ~find_near_duplicates(texts, split["train"], split["test"]).close
    f1 = {}
    for head, part in predictions.items():
        rows = {"with": slice(None), "without": others}
        f1[head] = {name: weighted_f1(part.labels[kept], part.predicted[kept]) for name, kept in rows.items()}
    return {"share": 1 - float(others.mean()), "f1": f1}


def describe_near(measured: Measured) -> list[str]:
    """Return, in Spanish, the share of near-duplicates and the F1 without them, if there are any."""
    if not 0 < measured["share"] < 1:
        return []
    f1 = (f"{head} {num(f1['without'], 2)} (con ellos, {num(f1['with'], 2)})" for head, f1 in measured["f1"].items())
    share = percent(measured["share"])
    return [f"El {share} de los avisos de prueba casi repite uno de entrenamiento. El F1 sin ellos: {'; '.join(f1)}."]


def check_predictions(
    classes: Mapping[str, Classes], class_rows: Arrays, predictions: Mapping[str, Predictions]
) -> list[str]:
    """Return the warnings about predicted classes, in Spanish, by label; the true classes are not needed."""
    parts = (far_shares(head, names, class_rows[head], predictions[head].predicted) for head, names in classes.items())
    return list(chain(*parts))


def far_shares(head: str, classes: Classes, class_rows: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Return a warning if the shares of the predicted classes are far from those of the training rows.

    The tests are chi-square (homogeneity; classes with fewer than 5 expected rows merged) and the total variation
    distance, the part of the rows that would have to change class: with many rows, chi-square finds any difference.
    """
    rows, known = len(predicted), int(class_rows.sum())
    if not rows or not known:
        return []
    counts = np.stack([class_rows, np.bincount(predicted, minlength=len(classes))])
    shares = counts / counts.sum(axis=1, keepdims=True)
    more = shares[1] - shares[0]
    distance = float(np.abs(more).sum() / 2)
    if distance < LEAST_DISTANCE or _homogeneity(counts) >= LARGEST_P:
        return []
    most, least = int(more.argmax()), int(more.argmin())
    lost = ""
    if -more[least] > more[most]:
        lost = (
            f", y {100 * shares[1, least]:.0f} % «{clipped(classes[least])}», que es el {100 * shares[0, least]:.0f} %"
        )
    return [
        f"{head}: {100 * shares[1, most]:.0f} % de las predicciones son «{clipped(classes[most])}», que en el "
        f"entrenamiento es el {100 * shares[0, most]:.0f} %{lost} (chi-cuadrado, p < {num(LARGEST_P, 3)}; diferencia "
        f"total {num(distance, 2)} en {num(rows)} avisos). Si estos avisos son como los de entrenamiento, esa clase "
        "se predice de más: revise una muestra antes de usar las predicciones."
    ]


def _homogeneity(counts: np.ndarray) -> float:
    """Return the p value of equal shares in two rows of counts, int64 (2, classes); 1 if a single class remains."""
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=0) * (counts.sum(axis=1).min() / counts.sum())
    few = expected < EXPECTED_ROWS
    if few.any():
        counts = np.column_stack([counts[:, ~few], counts[:, few].sum(axis=1)])
    return float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
