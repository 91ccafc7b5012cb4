"""What the predictions of a label are good for: a verdict, and warnings.

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
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from ocensa_nb.data.labels import OTHER
from ocensa_nb.errors import clipped, listed, num
from ocensa_nb.evaluation.metrics import INTERVAL, MODEL_TITLES, Predictions, bootstrap, signed
from ocensa_nb.evaluation.suggestion import ACCEPT, CHOICES, CHOOSE, LEVEL, REVIEW, Suggestion

FEW_ROWS = 50  # training rows of a class, below which more of them are the first thing to try
RARE_ERRORS = 0.1  # share of the errors that makes the classes with few rows worth naming
ADVISED_CLASSES = 3
USEFUL, USEFUL_ABOVE, SUGGESTION, NOT_YET = "useful", "useful_above", "suggestion", "not_yet"

EXPECTED_ROWS = 5  # of a class, by its training share: with fewer, its absence (or a chi-square cell) says little
NAMED_CLASSES = 5
LARGEST_P = 0.001
LEAST_DISTANCE = 0.2  # total variation; below, a difference of shares is too small to matter, however many rows show it


def judge(
    head: str,
    classes: Sequence[str],
    class_rows: np.ndarray,
    suggestion: Suggestion,
    measured: Mapping[str, Any],
    test: Predictions,
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
    elif status == USEFUL:
        sentence = f"sirve: acierta {_share(measured['all'])}."
    else:
        reason = "" if status != NOT_YET else _why_not(classes, class_rows, suggestion, measured, test)
        sentence = reason + _what_for(status, suggestion, measured)
    return {
        "status": status,
        "target": suggestion.target,
        "threshold": suggestion.accept,
        "sentence": f"{head}: {sentence}".strip(),
        "advice": _what_to_try(classes, class_rows, test) if status == NOT_YET else "",
    }


def _what_for(status: str, suggestion: Suggestion, measured: Mapping[str, Any]) -> str:
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
            sentences.append(f"Acepte sin revisar {part}, los que pasan de {threshold}: {right}")
    return " ".join(sentences)


def _why_not(
    classes: Sequence[str],
    class_rows: np.ndarray,
    suggestion: Suggestion,
    measured: Mapping[str, Any],
    test: Predictions,
) -> str:
    why = f"todavía no sirve: acierta {_share(measured['all'])}"
    if suggestion.learnt:
        among = f", y la correcta está entre {CHOICES} opciones el {percent(measured['top'][CHOICES - 1])} de las veces"
        return f"{why}{among if len(classes) > CHOICES else ''}. "
    majority, rows = int(class_rows.argmax()), np.bincount(test.labels, minlength=len(classes))
    always = f"siempre «{clipped(classes[majority])}», el {percent((test.labels == majority).mean())}"
    lost = np.flatnonzero((rows > 0) & (np.bincount(test.labels[test.correct], minlength=len(classes)) == 0))
    never = listed([f"«{clipped(classes[i])}» ({num(rows[i])})" for i in lost[np.argsort(-rows[lost])]], NAMED_CLASSES)
    return f"{why}, y quien responde {always}{f'; nunca reconoce {never}' if never else ''}. "


def describe_decisions(head: str, measured: Mapping[str, Any], decisions: np.ndarray) -> str:
    """Return, in Spanish, how many notices to accept, to choose for and to review, and what to expect."""
    rows = {kind: int((decisions == kind).sum()) for kind in (ACCEPT, CHOOSE, REVIEW)}
    right, chosen = measured["accepted"], measured["chosen"]
    parts = {
        ACCEPT: f"acepte {{}} (acierta el {percent(right['right'])}, al menos el {percent(right['low'])})",
        CHOOSE: f"en {{}} elija entre {CHOICES} clases o menos (con la correcta el {percent(chosen['right'])})",
        REVIEW: "revise {}",
    }
    counted = [parts[kind].format(num(count)) for kind, count in rows.items() if count]
    return f"{head}: de {num(len(decisions))} avisos, {'; '.join(counted)}."


def describe_sets(head: str, measured: Mapping[str, Any]) -> str:
    """Return, in Spanish, how large the sets of a label are, and how often they have the right class."""
    low, high = (percent(share) for share in measured["interval"])
    few = [f"«{clipped(name)}», {percent(share)}" for name, share in measured["uncovered"].items()]
    return (
        f"conjunto_{head}: {num(measured['size'], 1)} clases de media, con la correcta el "
        f"{percent(measured['sets']['right'])} de las veces (de {low} a {high})."
        f"{f' Mucho menos en {listed(few, NAMED_CLASSES)}.' if few else ''}"
    )


def _share(part: Mapping[str, Any]) -> str:
    return f"el {percent(part['right'])} (al menos el {percent(part['low'])})"


def _what_to_try(classes: Sequence[str], class_rows: np.ndarray, test: Predictions) -> str:
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


def check_predictions(
    classes: Mapping[str, Sequence[str]],
    class_rows: Mapping[str, np.ndarray],
    predictions: Mapping[str, Predictions],
    comparison: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the warnings about predictions, in Spanish, by label; `sources` is what predicts each label."""
    warnings = []
    for head, names in classes.items():
        source = (sources or {}).get(head, "encoder")
        predicted = predictions[head].predicted
        warnings += never_predicted(head, names, class_rows[head], predicted, source)
        warnings += far_shares(head, names, class_rows[head], predicted)
        warnings += at_majority(head, names, class_rows[head], predictions[head], source)
        warnings += below_linear(head, (comparison or {}).get(head, {}), source)
    return warnings


def never_predicted(
    head: str, classes: Sequence[str], class_rows: np.ndarray, predicted: np.ndarray, source: str = "encoder"
) -> list[str]:
    """Return a warning if classes are never predicted although their training share makes 5 rows or more expected."""
    rows = len(predicted)
    expected = class_rows * rows / max(class_rows.sum(), 1)
    absent = np.flatnonzero((expected >= EXPECTED_ROWS) & (np.bincount(predicted, minlength=len(classes)) == 0))
    if not len(absent):
        return []
    absent = absent[np.argsort(-class_rows[absent], kind="stable")]
    names = [f"«{clipped(classes[i])}» ({num(class_rows[i])})" for i in absent[:NAMED_CLASSES]]
    more = f" y {num(len(absent) - NAMED_CLASSES)} más" if len(absent) > NAMED_CLASSES else ""
    subject = "una clase no se predice" if len(absent) == 1 else f"{num(len(absent))} clases no se predicen"
    epochs = "" if source == "linear" else "más épocas o "
    return [
        f"{head}: {subject} en ninguno de {num(rows)} avisos, aunque por su parte del entrenamiento se esperaban "
        f"{EXPECTED_ROWS} o más: {', '.join(names)}{more} (entre paréntesis, avisos de entrenamiento). Pruebe con "
        f"{epochs}más avisos de lo que falta."
    ]


def far_shares(head: str, classes: Sequence[str], class_rows: np.ndarray, predicted: np.ndarray) -> list[str]:
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


def at_majority(
    head: str, classes: Sequence[str], class_rows: np.ndarray, predictions: Predictions, source: str = "encoder"
) -> list[str]:
    """Return a warning if the weighted F1 is not clearly above that of the most frequent class (paired bootstrap)."""
    labels = predictions.labels
    if labels is None or len(np.unique(labels)) < 2:
        return []
    majority = int(np.argmax(class_rows))
    scores = bootstrap(labels, {"run": predictions.predicted, "majority": np.full_like(labels, majority)})
    run, constant = scores["run"]["f1"], scores["majority"]["f1"]
    low, high = np.percentile((run - constant)[1:], INTERVAL)
    if low > 0:
        return []
    always = f"predecir siempre la clase más frecuente, «{clipped(classes[majority])}»"
    if high > 0:
        return [
            f"{head}: F1 {num(run[0], 2)}; con {num(len(labels))} avisos no se puede saber si es mejor que {always} "
            f"({num(constant[0], 2)}; diferencia, de {signed(low)} a {signed(high)}). Pruebe con más avisos."
        ]
    longer = "" if source == "linear" else "Pruebe con más épocas y una tasa de aprendizaje mayor. "
    return [
        f"{head}: F1 {num(run[0], 2)}, que no supera el de {always} ({num(constant[0], 2)} en {num(len(labels))} "
        f"avisos): la etiqueta no se ha aprendido. {longer}El cuaderno 02 dice si se puede aprender."
    ]


def below_linear(head: str, pairs: Mapping[str, Any], source: str = "encoder") -> list[str]:
    """Return a warning if the encoder, or the blend in use, is worse than the simple model beyond the 95 % interval."""
    model = "blend" if source == "blend" else "encoder"
    f1 = pairs.get(f"{model}-linear", {}).get("f1")
    if f1 is None or f1["high"] >= 0:
        return []
    used = "." if model == source else f"; la corrida predice esta etiqueta con {MODEL_TITLES[source]}."
    return [
        f"{head}: {MODEL_TITLES[model]} queda por debajo del modelo simple: F1 {signed(f1['difference'])} "
        f"({signed(f1['low'])} a {signed(f1['high'])}){used} Pruebe con más épocas, menos capas congeladas "
        "(freeze_layers) o un codificador en español (beto, distilbeto)."
    ]


def _homogeneity(counts: np.ndarray) -> float:
    """Return the p value of equal shares in two rows of counts, int64 (2, classes); 1 if a single class remains."""
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=0) * (counts.sum(axis=1).min() / counts.sum())
    few = expected < EXPECTED_ROWS
    if few.any():
        counts = np.column_stack([counts[:, ~few], counts[:, few].sum(axis=1)])
    return float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
