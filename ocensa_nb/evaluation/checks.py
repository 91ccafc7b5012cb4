"""Warnings about the predictions of a run: absent classes, shares far from the training, labels that were not learnt.

The first two need no labels, so they hold for new notices too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from ocensa_nb.errors import clipped
from ocensa_nb.evaluation.comparison import INTERVAL, MODEL_TITLES, bootstrap, signed

EXPECTED_ROWS = 5  # of a class, by its training share: with fewer, its absence (or a chi-square cell) says little
NAMED_CLASSES = 5
LARGEST_P = 0.001
# What to try if the encoder takes part in the predictions.
MORE_EPOCHS = "más épocas o "
TRY_LONGER = "Pruebe con más épocas y una tasa de aprendizaje mayor. "
LEAST_DISTANCE = 0.2  # total variation; below, a difference of shares is too small to matter, however many rows show it


def check_predictions(
    classes: Mapping[str, Sequence[str]],
    class_rows: Mapping[str, np.ndarray],
    predicted: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray] | None = None,
    comparison: Mapping[str, Mapping[str, Any]] | None = None,
    sources: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the warnings about some predictions, in Spanish, by label; none if there is nothing to say.

    Parameters
    ----------
    classes
        Names of the classes, per label.
    class_rows
        Training rows of each class, int64 (classes,), per label.
    predicted
        Predicted class indices, int64 (rows,), per label.
    labels
        True class indices, int64 (rows,), per label; None if they are unknown.
    comparison
        From `comparison.compare`, if the models of the run were compared.
    sources
        Model that the run predicts with, per label; None if it is the encoder.
    """
    found = []
    for head, names in classes.items():
        source = (sources or {}).get(head, "encoder")
        found += never_predicted(head, names, class_rows[head], predicted[head], source)
        found += far_shares(head, names, class_rows[head], predicted[head])
        if labels is not None:
            found += at_majority(head, names, class_rows[head], labels[head], predicted[head], source)
        if comparison is not None:
            found += below_linear(head, comparison.get(head, {}), source)
    return found


def never_predicted(
    head: str, classes: Sequence[str], class_rows: np.ndarray, predicted: np.ndarray, source: str = "encoder"
) -> list[str]:
    """Return a warning if classes are never predicted although their training share makes 5 rows or more expected.

    The chance that a class with 5 expected rows is absent from as many random rows is under 1 %.
    """
    rows = len(predicted)
    expected = class_rows * rows / max(class_rows.sum(), 1)
    absent = np.flatnonzero((expected >= EXPECTED_ROWS) & (np.bincount(predicted, minlength=len(classes)) == 0))
    if not len(absent):
        return []
    absent = absent[np.argsort(-class_rows[absent], kind="stable")]
    names = [f"«{clipped(classes[i])}» ({class_rows[i]:,})" for i in absent[:NAMED_CLASSES]]
    more = f" y {len(absent) - NAMED_CLASSES:,} más" if len(absent) > NAMED_CLASSES else ""
    subject = "una clase no se predice" if len(absent) == 1 else f"{len(absent):,} clases no se predicen"
    return [
        f"{head}: {subject} en ninguno de {rows:,} avisos, aunque por su parte del entrenamiento se esperaban "
        f"{EXPECTED_ROWS} o más: {', '.join(names)}{more} (entre paréntesis, avisos de entrenamiento). Pruebe con "
        f"{MORE_EPOCHS if source != 'linear' else ''}más avisos de lo que falta."
    ]


def far_shares(head: str, classes: Sequence[str], class_rows: np.ndarray, predicted: np.ndarray) -> list[str]:
    """Return a warning if the shares of the predicted classes are far from those of the training rows.

    The test is the chi-square test of homogeneity of the two sets of rows, classes with fewer than 5 expected rows
    merged. With many rows it rejects differences that do not matter, so the total variation distance (half of the
    sum of the absolute differences of the shares: the part of the rows that would have to change class) counts too.
    """
    rows, known = len(predicted), int(class_rows.sum())
    if not rows or not known:
        return []
    counts = np.stack([class_rows, np.bincount(predicted, minlength=len(classes))])
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p = _homogeneity(counts)
    if distance < LEAST_DISTANCE or p >= LARGEST_P:
        return []
    more = shares[1] - shares[0]
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
    head: str,
    classes: Sequence[str],
    class_rows: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    source: str = "encoder",
) -> list[str]:
    """Return a warning if the weighted F1 is not above that of always predicting the most frequent training class.

    It is above if the 95 % interval of the difference, by paired bootstrap, is.
    """
    if not len(labels):
        return []
    majority = int(np.argmax(class_rows))
    scores = bootstrap(labels, {"run": predicted, "majority": np.full_like(labels, majority)})
    run, constant = scores["run"]["f1"], scores["majority"]["f1"]
    if np.percentile((run - constant)[1:], INTERVAL[0]) > 0:
        return []
    return [
        f"{head}: F1 {run[0]:.2f}, que no supera el de predecir siempre la clase más frecuente, "
        f"«{clipped(classes[majority])}» ({constant[0]:.2f} en {len(labels):,} avisos): la etiqueta no se ha "
        f"aprendido. {TRY_LONGER if source != 'linear' else ''}El cuaderno 06 dice si se puede aprender."
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
