"""What the predictions of a label are good for: a verdict, and warnings.

The rule of the verdict, for a target accuracy of 90 %:

1. `useful` if the lower bound of the accuracy on all test rows (one-sided Wilson, 95 %) reaches the target.
2. `useful_above` a threshold if, on the validation rows, the lower bound of the accuracy from that confidence on
   reaches the target, and on the test rows the measured accuracy does too, with at least 20 rows and 10 % of all rows.
3. `not_yet` otherwise, with the reason and what to try.

A label of which only one class is ever recognised on the test rows is `not_yet`. So are rows, all or above the
threshold, with 5 rows or more of a class that is never recognised there.

Validation has chosen the threshold, the epoch and the temperature, so only the test rows are evidence.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from ocensa_nb.data.labels import OTHER
from ocensa_nb.errors import clipped, listed
from ocensa_nb.evaluation.calibration import ONE_SIDED, threshold_for, wilson
from ocensa_nb.evaluation.metrics import INTERVAL, MODEL_TITLES, Predictions, bootstrap, signed
from ocensa_nb.files.write import DECIMALS

TARGET = 0.9
LEAST_ROWS = 20  # test rows above the threshold
LEAST_COVERAGE = 0.1  # of the test rows: less saves no work
FEW_ROWS = 50  # training rows of a class, below which more of them are the first thing to try
RARE_ERRORS = 0.1  # share of the errors that makes the classes with few rows worth naming
ADVISED_CLASSES = 3
USEFUL, USEFUL_ABOVE, NOT_YET = "useful", "useful_above", "not_yet"

EXPECTED_ROWS = 5  # of a class, by its training share: with fewer, its absence (or a chi-square cell) says little
NAMED_CLASSES = 5
LARGEST_P = 0.001
LEAST_DISTANCE = 0.2  # total variation; below, a difference of shares is too small to matter, however many rows show it


def judge(
    head: str,
    classes: Sequence[str],
    class_rows: np.ndarray,
    val: Predictions,
    test: Predictions | None = None,
    target: float = TARGET,
) -> dict[str, Any]:
    """Return the verdict on a label, from its training rows per class, int64 (classes,), validation and test rows.

    Its entries are `status`, `threshold` (None, or the lowest confidence to use), `coverage` and `accuracy` above it,
    `measured_on` (`val` only without test rows), `rows` (measured), `accuracy_all` and its bound `accuracy_all_low`,
    `accuracy_top` (of the 10 % with the highest confidence), and `sentence` and `advice`, in Spanish.
    """
    side, measured = ("val", val) if test is None or not len(test.labels) else ("test", test)
    rows, correct = len(measured.labels), measured.correct
    low = float(wilson(correct.sum(), rows, -ONE_SIDED)) if rows else None
    useful = low is not None and low >= target
    chosen = 0.0 if useful else threshold_for(val.confidence, val.correct, target)
    threshold = None if chosen is None else _rounded_up(chosen)
    above = np.zeros(rows, bool) if threshold is None else measured.confidence >= threshold
    accuracy = _accuracy(correct[above])
    enough = above.sum() >= LEAST_ROWS and above.mean() >= LEAST_COVERAGE
    lost = _lost_classes(measured, above)
    holds_above = enough and accuracy >= target
    status = NOT_YET if lost else USEFUL if useful else USEFUL_ABOVE if holds_above else NOT_YET
    verdict: dict[str, Any] = {
        "status": status,
        "target": target,
        "threshold": threshold,
        "coverage": None if threshold is None else float(above.mean()),
        "accuracy": accuracy,
        "measured_on": side,
        "rows": rows,
        "accuracy_all": _accuracy(correct),
        "accuracy_all_low": low,
        "accuracy_top": _accuracy(correct[_surest(measured.confidence)]),
    }
    lost_names = [f"«{clipped(classes[number])}» ({count:,})" for number, count in lost]
    verdict["sentence"] = _sentence(head, verdict, lost_names)
    verdict["advice"] = _what_to_try(classes, class_rows, measured) if status == NOT_YET else ""
    return verdict


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


def _accuracy(correct: np.ndarray) -> float | None:
    return float(correct.mean()) if len(correct) else None


def _surest(confidence: np.ndarray) -> np.ndarray:
    """Return the 10 % of the rows with the highest confidence, bool (rows,), ties included."""
    highest = np.sort(confidence)[::-1][: math.ceil(LEAST_COVERAGE * len(confidence))]
    return confidence >= highest.min(initial=np.inf)


def _lost_classes(measured: Predictions, above: np.ndarray) -> list[tuple[int, int]]:
    """Return the classes that are never recognised although rows are theirs, and these rows, the most first."""

    def rows_and_hits(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, size = measured.labels[part], int(measured.labels.max(initial=0)) + 1
        return np.bincount(labels, minlength=size), np.bincount(labels[measured.correct[part]], minlength=size)

    rows, hits = rows_and_hits(np.ones(len(above), bool))
    if np.count_nonzero(hits) > 1:
        rows, hits = rows_and_hits(above)
        rows[rows < EXPECTED_ROWS] = 0
    lost = [(number, int(rows[number])) for number in np.flatnonzero((rows > 0) & (hits == 0)).tolist()]
    return sorted(lost, key=lambda part: -part[1])


def _rounded_up(threshold: float) -> float:
    """Return a threshold with two decimals; one that would be 1 is rounded down to the decimals of predictions."""
    short = math.ceil(threshold * 100 - 1e-9) / 100
    return short if short < 1 else math.floor(threshold * 10**DECIMALS + 1e-9) / 10**DECIMALS


def _sentence(head: str, verdict: Mapping[str, Any], lost: Sequence[str]) -> str:
    side = "prueba" if verdict["measured_on"] == "test" else "validación, sin comprobar en otros avisos"
    rows, threshold = verdict["rows"], verdict["threshold"]
    if not rows:
        return f"{head}: todavía no se sabe si sirve: no hay avisos de validación ni de prueba."
    overall, target = _percent(verdict["accuracy_all"]), f"{100 * verdict['target']:.0f} %"
    if verdict["status"] == USEFUL:
        return f"{head}: sirve ({overall} de acierto en {rows:,} avisos de {side})."
    if lost and (verdict["accuracy"] or 0) >= verdict["target"]:
        return (
            f"{head}: todavía no sirve: acierta el {overall} de {rows:,} avisos de {side}, pero nunca reconoce "
            f"{listed(lost, NAMED_CLASSES)} (entre paréntesis, sus avisos)."
        )
    if threshold is None:
        return (
            f"{head}: todavía no sirve: acierta el {overall} ({rows:,} avisos de {side}) y, del 10 % con más "
            f"confianza, el {_percent(verdict['accuracy_top'])}; no se comprueba que llegue al {target}."
        )
    coverage, above = _percent(verdict["coverage"]), f"por encima de {threshold:g} de confianza"
    if verdict["accuracy"] is None:
        return f"{head}: todavía no sirve: ninguno de {rows:,} avisos de {side} pasa de {threshold:g} de confianza."
    covered = f"({coverage} de los avisos, {_percent(verdict['accuracy'])} de acierto)"
    if verdict["status"] == USEFUL_ABOVE:
        unchecked = "" if verdict["measured_on"] == "test" else f" en {side}"
        return f"{head}: sirve {above} {covered}{unchecked}; revise los demás."
    if verdict["accuracy"] < verdict["target"]:
        return f"{head}: todavía no sirve: {above} {covered} debía acertar el {target}."
    return f"{head}: todavía no sirve: solo acierta el {target} {above}, y son muy pocos avisos {covered}."


def _what_to_try(classes: Sequence[str], class_rows: np.ndarray, measured: Predictions) -> str:
    wrong = ~measured.correct
    pairs = Counter(zip(measured.labels[wrong].tolist(), measured.predicted[wrong].tolist(), strict=True))
    named = {pair: count for pair, count in pairs.items() if OTHER not in (classes[pair[0]], classes[pair[1]])}
    rare: Counter[int] = Counter()
    for (true, _), count in named.items():
        if class_rows[true] < FEW_ROWS:
            rare[true] += count
    advice = []
    if rare.total() > RARE_ERRORS * wrong.sum():
        names = [f"«{clipped(classes[true])}» ({class_rows[true]:,})" for true, _ in rare.most_common(ADVISED_CLASSES)]
        advice.append(f"Etiquete más avisos de las clases con pocos en el entrenamiento: {', '.join(names)}.")
    often = {pair: count for pair, count in named.items() if min(class_rows[list(pair)]) >= FEW_ROWS}
    if often:
        true, predicted = max(often, key=often.__getitem__)
        advice.append(
            f"Lo que más se confunde: {often[true, predicted]:,} avisos de «{clipped(classes[true])}» se predicen como "
            f"«{clipped(classes[predicted])}»; revise sus etiquetas con el cuaderno 02, que dice cuáles se contradicen "
            "y si otra columna, como un código de SAP, ya da la respuesta."
        )
    return " ".join(advice)


def _percent(share: float) -> str:
    """Return a share as a whole percentage, rounded down from 99.5 on, so that 100 % is said of all rows only."""
    return f"{100 if share == 1 else min(99.0, 100 * share):.0f} %"


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
    names = [f"«{clipped(classes[i])}» ({class_rows[i]:,})" for i in absent[:NAMED_CLASSES]]
    more = f" y {len(absent) - NAMED_CLASSES:,} más" if len(absent) > NAMED_CLASSES else ""
    subject = "una clase no se predice" if len(absent) == 1 else f"{len(absent):,} clases no se predicen"
    epochs = "" if source == "linear" else "más épocas o "
    return [
        f"{head}: {subject} en ninguno de {rows:,} avisos, aunque por su parte del entrenamiento se esperaban "
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
        f"entrenamiento es el {100 * shares[0, most]:.0f} %{lost} (chi-cuadrado, p < {LARGEST_P}; diferencia total "
        f"{distance:.2f} en {rows:,} avisos). Si estos avisos son como los de entrenamiento, esa clase se predice de "
        "más: revise una muestra antes de usar las predicciones."
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
            f"{head}: F1 {run[0]:.2f}; con {len(labels):,} avisos no se puede saber si es mejor que {always} "
            f"({constant[0]:.2f}; diferencia, de {signed(low)} a {signed(high)}). Pruebe con más avisos."
        ]
    longer = "" if source == "linear" else "Pruebe con más épocas y una tasa de aprendizaje mayor. "
    return [
        f"{head}: F1 {run[0]:.2f}, que no supera el de {always} ({constant[0]:.2f} en {len(labels):,} avisos): la "
        f"etiqueta no se ha aprendido. {longer}El cuaderno 02 dice si se puede aprender."
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
