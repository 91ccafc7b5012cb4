"""Review the predictions of a file: which notices a person should look at.

The least certain notices by margin (Settles, *Active learning literature survey*, 2009, sec. 3.1) are clustered, and
the nearest to each centre are chosen (Zhdanov, *Diverse mini-batch active learning*, 2019): uncertainty alone chooses
the same notice many times. `python -m tests.benchmarks.review` compares them.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from ocensa_nb.data.canonical import normalise
from ocensa_nb.data.columns import Columns
from ocensa_nb.data.corrections import ID, RIGHT, SHEET, TEXT
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError, clipped, num
from ocensa_nb.evaluation.predict import PredictedFile, predict_file, read_unlabelled
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.evaluation.rows import training_file, training_rows
from ocensa_nb.evaluation.suggestion import TARGET, ranked
from ocensa_nb.files.notice_file import NoticeFile
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.logs import progress

logger = logging.getLogger(__name__)

ROWS = 200  # some two hours of a person
MOST_ROWS = 2_000  # the clustering takes seconds
LIKELIEST = 3  # classes that are shown
CANDIDATES = 5  # uncertain notices per notice that is chosen: Zhdanov's beta
SIMILAR = 0.8  # cosine of TF-IDF from which a notice repeats another one
DIMENSIONS = 64  # of the space in which they are clustered
BLOCK = 500  # notices compared at a time, to bound the memory
SEED = 0


@dataclass(frozen=True)
class Review:
    """The predictions of a file, the notices to review, and a summary."""

    file: NoticeFile
    predictions: pd.DataFrame  # from `predict.add_predictions`, with what to accept, to choose and to review
    # id_aviso, texto; per label, the set conjunto_, the likeliest classes pred1_, …, their probabilities conf1_, …, and
    # correcta_, empty
    doubtful: pd.DataFrame
    likeliest: dict[str, np.ndarray]  # of those notices: all classes, the most probable first, int64 (rows, classes)
    classes: dict[str, list[str]]
    counts: pd.DataFrame  # per label and class: predicted notices, their share, and that in the training
    notes: list[str]  # what to expect of the predictions, in Spanish, as `predict` says it


def review(
    run: Run, data: str | Path, rows: int = ROWS, columns: Columns | None = None, target: float = TARGET
) -> Review:
    """Predict the notices of a CSV or XLSX, without its labels, and choose those to review: `rows` or fewer.

    Raises
    ------
    UserError
        If `rows` or `target` is out of range, the file cannot be read, it has no text, or the run was trained on all of
        them.
    """
    if not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= MOST_ROWS:
        raise UserError(f"rows = {clipped(repr(rows))}: debe ser un número entero, de 1 a {num(MOST_ROWS)}.")
    file = read_unlabelled(run, data, columns)
    if file.book and (own := next((name for name in file.book.sheets if name.casefold() == SHEET.casefold()), "")):
        raise UserError(
            f"«{data}» ya tiene una hoja «{own}», como los de review. Use el original, o cambie el nombre de esa hoja."
        )
    if (file.texts == "").all():
        raise UserError(f"En «{data}» la columna «{file.columns['descripcion']}» está vacía en todas las filas.")
    predicted, trained = predict_file(Predictor.load(run), file, target=target), training_rows(run)
    notes = predicted.notes
    if not trained:
        notes = [*notes, f"No se encuentra «{training_file(run)}» como era: no se puede saber qué avisos conoce."]
    texts = file.texts.iloc[predicted.rows].tolist()
    known = {normalise(text) for text in trained.texts} if trained else set()
    chosen = select(texts, uncertainty(predicted.probabilities), rows, known)
    if not len(chosen):
        raise UserError(
            f"«{data}» no tiene avisos que revisar: «{run.path}» ya conoce todos sus textos. Indique avisos nuevos."
        )
    if len(chosen) < rows:
        logger.info(f"Avisos que revisar: {num(len(chosen))}, y no {num(rows)}. El resto repite un texto o se conoce.")
    shares = {head: of_head[chosen] for head, of_head in predicted.probabilities.items()}
    return Review(
        file=file,
        predictions=predicted.table,
        doubtful=_doubtful(predicted, predicted.rows[chosen], shares, run.classes),
        likeliest={head: ranked(of_head) for head, of_head in shares.items()},
        classes=run.classes,
        counts=_counts(predicted.probabilities, run),
        notes=notes,
    )


def uncertainty(probabilities: Arrays) -> np.ndarray:
    """Return how uncertain each notice is: one minus the margin, mean of the labels; float64 (rows,), 0 to 1."""
    two_likeliest = [np.partition(values, -2, axis=1)[:, -2:].astype(float) for values in probabilities.values()]
    return 1 - np.mean([two[:, 1] - two[:, 0] for two in two_likeliest], axis=0)


def select(texts: Sequence[str], uncertain: np.ndarray, count: int, known: Collection[str] = frozenset()) -> np.ndarray:
    """Return the row numbers of `count` notices to review, or fewer, the most uncertain first; the same every time.

    No two texts are similar, and none is in `known`, which has texts from `canonical.normalise`.
    """
    plain = [normalise(text) for text in progress(texts, "Comparando los avisos", "aviso")]
    order = np.argsort(-uncertain, kind="stable")
    order = np.array([row for row in order if plain[row] and plain[row] not in known], dtype=np.int64)
    if not len(order):
        return order
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+").fit_transform(plain)
    candidates = _distinct(order, vectors, CANDIDATES * count)
    if len(candidates) <= count:
        return candidates
    chosen = _cluster(candidates, vectors, uncertain, count)
    return chosen[np.argsort(-uncertain[chosen], kind="stable")]


def _doubtful(
    predicted: PredictedFile, rows: np.ndarray, shares: Arrays, classes: Mapping[str, list[str]]
) -> pd.DataFrame:
    columns = {ID: predicted.file.ids.iloc[rows].to_numpy(), TEXT: predicted.file.texts.iloc[rows].to_numpy()}
    for head, names in classes.items():
        columns[f"conjunto_{head}"] = predicted.table[f"conjunto_{head}"].iloc[rows].to_numpy()
        for rank, best in enumerate(ranked(shares[head])[:, :LIKELIEST].T, 1):
            columns[f"pred{rank}_{head}"] = np.array(names)[best]
            columns[f"conf{rank}_{head}"] = np.take_along_axis(shares[head], best[:, None], axis=1)[:, 0].astype(float)
        columns[f"{RIGHT}{head}"] = ""
    return pd.DataFrame(columns)


def _counts(shares: Arrays, run: Run) -> pd.DataFrame:
    """Return the predicted notices of each class, the most frequent first, beside its share in the training."""
    parts = []
    for head, names in run.classes.items():
        predicted = np.bincount(shares[head].argmax(axis=1), minlength=len(names))
        share, trained_share = predicted / predicted.sum(), run.class_rows[head] / run.class_rows[head].sum()
        part = {
            "etiqueta": head,
            "clase": names,
            "avisos": predicted,
            "parte de los avisos": share,
            "parte en entrenamiento": trained_share,
            "diferencia": share - trained_share,
        }
        parts.append(pd.DataFrame(part).sort_values("avisos", ascending=False, kind="stable"))
    return pd.concat(parts, ignore_index=True)


def _distinct(order: np.ndarray, vectors: sparse.csr_matrix, count: int) -> np.ndarray:
    """Return the first `count` rows of an order that are not similar to an earlier one."""
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        if len(kept):
            block = block[(vectors[block] @ vectors[kept].T).max(axis=1).toarray().ravel() < SIMILAR]
        near = (vectors[block] @ vectors[block].T).toarray() >= SIMILAR
        distinct: list[int] = []
        for position in range(len(block)):
            if not near[position, distinct].any():
                distinct.append(position)
        kept = np.concatenate([kept, block[distinct]])
        if len(kept) >= count:
            break
    return kept[:count]


def _cluster(candidates: np.ndarray, vectors: sparse.csr_matrix, uncertain: np.ndarray, count: int) -> np.ndarray:
    """Return the candidate nearest to the centre of each cluster, and the most uncertain others up to `count`."""
    points = vectors[candidates]  # of length 1
    if min(points.shape) > DIMENSIONS:
        points = normalize(TruncatedSVD(DIMENSIONS, random_state=SEED).fit_transform(points))
    weights = uncertain[candidates].clip(min=1e-6)
    means = KMeans(count, n_init=1, random_state=SEED).fit(points, sample_weight=weights)
    nearest_first = np.argsort(means.transform(points).min(axis=1), kind="stable")
    _, first = np.unique(means.labels_[nearest_first], return_index=True)
    nearest = nearest_first[first]
    others = np.setdiff1d(np.arange(len(candidates)), nearest)
    return candidates[np.concatenate([nearest, others])[:count]]
