"""How good a finished run is: metrics, a report by class, confusion, confused pairs, and every wrong notice."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from ocensa_nb.config import AUTO, SOURCES
from ocensa_nb.data.canonical import group_texts, normalise
from ocensa_nb.data.columns import Columns
from ocensa_nb.data.notices import ID, TEXT, labelled_rows
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError, listed, num
from ocensa_nb.evaluation.blend import apply, describe_sources
from ocensa_nb.evaluation.explain import pulling_words
from ocensa_nb.evaluation.metrics import Predictions, compare, metrics_of, predictions_of, sentences
from ocensa_nb.evaluation.predictor import Predictor, require_source
from ocensa_nb.evaluation.rows import class_indices, read_rows, training_file, training_rows, unlike_training
from ocensa_nb.evaluation.suggestion import Rows
from ocensa_nb.evaluation.verdict import check_predictions, describe_near, describe_sets, judge, measure_near
from ocensa_nb.files.atomic import create_new, write_json
from ocensa_nb.files.notice_file import SPANISH_EXCEL, CsvFormat
from ocensa_nb.files.write import DECIMALS, write_table
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.paths import plain_path
from ocensa_nb.runs.run import Run, free_folder

logger = logging.getLogger(__name__)

METRIC_TITLES = {
    "f1": "F1",
    "f1_macro": "F1 macro",
    "accuracy": "exactitud (accuracy)",
    "precision": "precisión",
    "recall": "exhaustividad (recall)",
}
EXPLAINED_PAIRS = 10  # of confused classes
LEAST_BOTH, CONFUSED = 2, 1 / 3  # mistakes in each direction, and the confusion, from which classes are a group
NAMED_LABELS = 5  # how many unknown labels a message names
ASK_FOR_FILE = (
    "Indique el mismo archivo con data en el cuaderno 04 (en Colab, upload_labelled = True) o con --data en una "
    "terminal: se reconoce por su contenido, aunque tenga otro nombre, y se evalúan solo sus filas de prueba. De otro "
    "archivo etiquetado se evalúan todas."
)


@dataclass(frozen=True)
class Evaluation:
    """What a run got right and wrong on a set of rows."""

    source: str
    texts: list[str]
    ids: list[str]
    classes: dict[str, list[str]]
    predictions: dict[str, Predictions]
    left_out: int = 0
    unknown: dict[str, dict[str, int]] = field(default_factory=dict)
    csv_format: CsvFormat = SPANISH_EXCEL
    by_source: dict[str, dict[str, Predictions]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    comparison: list[str] = field(default_factory=list)  # of the models, in Spanish
    suggestion: dict[str, dict[str, Any]] = field(default_factory=dict)  # per label, from `Suggestion.measure`
    linear: LinearModel | None = None  # names the words of confused pairs

    @property
    def metrics(self) -> dict[str, float]:
        return metrics_of(self.predictions)

    def summary(self) -> pd.DataFrame:
        """Return one row per head: weighted F1, macro F1, accuracy, precision, recall; columns in Spanish."""
        flat = self.metrics
        return pd.DataFrame(
            {title: [flat[f"{head}_{name}"] for head in self.predictions] for name, title in METRIC_TITLES.items()},
            list(self.predictions),
        )

    def per_class(self, head: str) -> pd.DataFrame:
        """Return precision, recall, F1 and rows of each class that occurs, the most frequent first."""
        labels, predicted = self.predictions[head].labels, self.predictions[head].predicted
        present = np.union1d(labels, predicted)
        scores = precision_recall_fscore_support(labels, predicted, labels=present, zero_division=0)
        columns = dict(zip(("precisión", "exhaustividad", "F1", "filas"), scores, strict=True))
        table = pd.DataFrame(columns, [self.classes[head][i] for i in present])
        return table.sort_values("filas", ascending=False, kind="stable")

    def confusion(self, head: str) -> pd.DataFrame:
        """Return the confusion matrix of the classes that occur, the most frequent first."""
        names = self.per_class(head).index
        truth, predicted = self._names(head)
        return pd.DataFrame(confusion_matrix(truth, predicted, labels=list(names)), names, names)

    def wrong(self, head: str) -> pd.DataFrame:
        """Return every notice with a wrong prediction, the most confident mistake first."""
        truth, predicted = self._names(head)
        confidence = self.predictions[head].confidence.astype(float).round(DECIMALS)
        columns = {ID: self.ids, "verdadera": truth, "predicha": predicted, "confianza": confidence, TEXT: self.texts}
        table = pd.DataFrame(columns)[truth != predicted]
        return table.sort_values("confianza", ascending=False, kind="stable", ignore_index=True)

    def confused_pairs(self, head: str, most: int = 10) -> pd.DataFrame:
        """Return the most frequent mistakes: true and predicted class, rows, share of the true class, words, example.

        The words of the first pairs: what pulls the linear model most to the wrong class (see `pulling_words`).
        """
        pairs = self.wrong(head).groupby(["verdadera", "predicha"]).agg(filas=(TEXT, "size"), ejemplo=(TEXT, "first"))
        pairs = pairs.reset_index().sort_values("filas", ascending=False, kind="stable", ignore_index=True).head(most)
        totals, names = self.per_class(head)["filas"], self.classes[head]
        pairs["% de la clase"] = (100 * pairs["filas"] / pairs["verdadera"].map(totals)).round(1)
        shown = pairs[["verdadera", "predicha"]].head(EXPLAINED_PAIRS if self.linear else 0)
        indices = [(names.index(true), names.index(wrong)) for true, wrong in shown.itertuples(index=False)]
        words = pulling_words(self.linear, self.texts, self.predictions[head], head, indices)
        pairs["palabras"] = pd.Series(words, shown.index, dtype=object).reindex(pairs.index, fill_value="")
        return pairs[["verdadera", "predicha", "filas", "% de la clase", "palabras", "ejemplo"]]

    def groups(self, head: str) -> pd.DataFrame:
        """Return groups of classes that are confused with each other, and the F1 with each group as one class.

        Half of the distinct texts proposes them, and the F1, weighted and macro, is that of the others; the last row is
        of all classes. The confusion of two classes is half the mistakes between them, by the rows of the smaller:
        0.5 if the model cannot tell them apart. The table is empty if there is no group.
        """
        part, names = self.predictions[head], np.array(self.classes[head])
        every, proposes = np.arange(len(names)), group_texts(self.texts) % 2 == 0
        counts = confusion_matrix(part.labels[proposes], part.predicted[proposes], labels=every)
        rows, both = counts.sum(axis=1), np.minimum(counts, counts.T) >= LEAST_BOTH
        confusion = both * (counts + counts.T) / 2 / np.minimum.outer(rows, rows).clip(min=1)
        np.fill_diagonal(confusion, 1)
        options = {"metric": "precomputed", "linkage": "average", "distance_threshold": 1 - CONFUSED}
        joined = AgglomerativeClustering(None, **options).fit_predict(1 - confusion)
        truth, guess = part.labels[~proposes], part.predicted[~proposes]
        groups = [np.flatnonzero(joined == number) for number in np.unique(joined)]
        groups = [members for members in groups if len(members) > 1 and np.isin(truth, members).any()]
        table = []
        for members in [*groups, every] if groups else []:
            shown = "toda la etiqueta" if len(members) == len(names) else " | ".join(names[members])
            scores = {"clases": shown, "filas": int(np.isin(truth, members).sum())}
            for when, merged in (("separadas", every), ("juntas", joined)):
                pair = merged[truth], merged[guess]
                present = np.intersect1d(merged[members], pair)
                for title, average in (("F1", "weighted"), ("F1 macro", "macro")):
                    scores[f"{title} {when}"] = f1_score(*pair, labels=present, average=average, zero_division=0)
            table.append(scores)
        return pd.DataFrame(table)

    def save(self, out: str | Path) -> Path:
        """Write the metrics, tables and predictions to a new folder, which appears complete, and return it."""
        path = free_folder(out)
        with create_new(path) as folder:
            folder.mkdir()
            self.write(folder)
        return path

    def record(self) -> dict[str, Any]:
        """Return the content of metrics.json; `models` has the metrics of each model alone and of the blend."""
        return {
            "source": self.source,
            "rows": len(self.texts),
            "left_out": self.left_out,
            "unknown_labels": self.unknown,
            "metrics": self.metrics,
            "models": {name: metrics_of(predictions) for name, predictions in self.by_source.items()},
            "suggestion": self.suggestion,
            "notes": self.notes,
            "comparison": self.comparison,
        }

    def write(self, folder: Path) -> None:
        """Write the metrics, tables and predictions to a folder that has none of them."""
        write_json(folder / "metrics.json", self.record())
        rows = pd.DataFrame({ID: self.ids, TEXT: self.texts})
        for head in self.classes:
            counts = self.confusion(head)
            shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
            for name, table in (
                ("per_class", self.per_class(head).reset_index(names="clase")),
                ("confusion", shares.reset_index(names="verdadera")),
                ("confused", self.confused_pairs(head, most=50)),
                ("wrong", self.wrong(head)),
                ("groups", self.groups(head)),
            ):
                if name != "groups" or not table.empty:
                    write_table(table, folder / f"{name}_{head}.csv", self.csv_format)
            rows[head], rows[f"pred_{head}"] = self._names(head)
            rows[f"conf_{head}"] = self.predictions[head].confidence
        write_table(rows, folder / "predictions.csv", self.csv_format)

    def _names(self, head: str) -> tuple[np.ndarray, np.ndarray]:
        names, predictions = np.array(self.classes[head]), self.predictions[head]
        return names[predictions.labels], names[predictions.predicted]


def evaluate(run: Run, data: str | Path = "", source: str = AUTO, columns: Columns | None = None) -> Evaluation:
    """Evaluate a run on its own test rows, recognised by content, or on every labelled row of another file.

    `columns` has the column name of roles that are not named as in the run's file.

    Raises
    ------
    UserError
        If the file the run was trained on is missing or has changed, no row has labels that the run knows, or the
        source does not exist; see `Predictor.probabilities`.
    """
    require_source(source)
    trained_on = training_file(run)
    if not data and not plain_path(trained_on).exists():
        raise UserError(f"No se encuentra «{trained_on}», el archivo con que se entrenó «{run.path}». {ASK_FOR_FILE}")
    file, trained = read_rows(run, data or trained_on, columns)
    predictor = Predictor.load(run)
    if trained:
        test = trained.split["test"]
        frame, fields = pd.DataFrame({ID: trained.ids, TEXT: trained.texts}).iloc[test], trained.fields.iloc[test]
        labels = {head: indices[test] for head, indices in trained.labels.items()}
        evaluation = _evaluate_rows(predictor, frame, fields, labels, source, [])
        near = describe_near(measure_near(trained.texts, trained.split, evaluation.predictions))
        what = {"source": "las filas de prueba", "csv_format": file.csv_format}
        return dataclasses.replace(evaluation, **what, notes=evaluation.notes + near)
    if not data:
        raise UserError(f"«{trained_on}» ha cambiado desde que se entrenó «{run.path}». {ASK_FOR_FILE}")
    rows = labelled_rows(file)
    logger.info(str(rows.report))
    frame = rows.frame
    labels = class_indices(run, frame)
    known = np.all([indices >= 0 for indices in labels.values()], axis=0)
    left_out, lost = int((~known).sum()), {head: frame.loc[indices < 0, head] for head, indices in labels.items()}
    unknown = {head: dict(Counter(names).most_common()) for head, names in lost.items() if len(names)}
    counts = [f"{head} «{name}» ({num(rows)})" for head, names in unknown.items() for name, rows in names.items()]
    named = listed(counts, NAMED_LABELS)
    if not known.any():
        raise UserError(f"Esta corrida no conoce las etiquetas de ninguna de las {num(left_out)} filas: {named}.")
    labels = {head: indices[known] for head, indices in labels.items()}
    differences = unlike_training(run, file, predictor.linear)
    evaluation = _evaluate_rows(predictor, frame[known], rows.fields[known], labels, source, differences)
    notes = [*evaluation.notes, *_repeated_note(run, evaluation.texts)]
    if unknown:
        notes.insert(0, f"{num(left_out)} filas se dejaron fuera: la corrida no conoce estas etiquetas: {named}.")
    what = {"source": f"todas las filas de {data}", "csv_format": file.csv_format}
    return dataclasses.replace(evaluation, **what, left_out=left_out, unknown=unknown, notes=notes)


def _evaluate_rows(
    predictor: Predictor, frame: pd.DataFrame, fields: pd.DataFrame, labels: Arrays, source: str, differences: list[str]
) -> Evaluation:
    run, texts = predictor.run, frame[TEXT].tolist()
    blends, logits = predictor.blends, predictor.logits(texts, fields, title="Evaluando")
    shares, repeats = apply(blends, logits, source), group_texts(texts)
    predictions = predictions_of(shares, labels)
    by_source = {name: predictions_of(apply(blends, logits, name), labels) for name in SOURCES}
    comparison = compare(by_source, repeats)
    suggestion, verdicts = {}, []
    for head, (part, _) in predictor.suggestions(source).items():
        names, rows = run.classes[head], Rows(shares[head], labels[head], repeats)
        suggestion[head] = part.measure(rows, names)
        verdicts.append(judge(head, names, run.class_rows[head], part, suggestion[head], predictions[head])["sentence"])
    evaluation = Evaluation(
        source="",  # `evaluate` says which rows these are
        texts=texts,
        ids=frame[ID].tolist(),
        classes=run.classes,
        predictions=predictions,
        by_source=by_source,
        linear=predictor.linear,
        notes=[
            *(differences or verdicts),  # a verdict holds of notices like those of the training
            describe_sources(blends, source),
            *(describe_sets(head, measured) for head, measured in suggestion.items()),
            *check_predictions(run.classes, run.class_rows, predictions),
        ],
        comparison=sentences(comparison),
        suggestion=suggestion,
    )
    groups = [note for head in run.classes if (note := _group_note(head, evaluation.groups(head)))]
    return dataclasses.replace(evaluation, notes=[*evaluation.notes, *groups])


def _group_note(head: str, groups: pd.DataFrame) -> str:
    """Return, in Spanish, the groups of classes that a text does not tell apart, and the F1 if each were one class."""
    if groups.empty:
        return ""
    *names, _ = (classes.replace(" | ", "», «") for classes in groups["clases"])
    last = {name: num(value, 0 if name == "filas" else 3) for name, value in groups.iloc[-1, 1:].items()}
    return (
        f"{head}: el texto no distingue bien entre sí «{'»; ni «'.join(names)}». Con cada grupo como una clase (otras "
        f"clases, no un modelo mejor), el F1 sería {last['F1 juntas']} y no {last['F1 separadas']}; el macro, "
        f"{last['F1 macro juntas']} y no {last['F1 macro separadas']} ({last['filas']} avisos, distintos de "
        "los que los proponen)."
    )


def _repeated_note(run: Run, texts: Sequence[str]) -> list[str]:
    """Return a warning, in Spanish, if some texts may be of the training or validation rows of a run."""
    if not (trained := training_rows(run)):
        return [
            f"No se encuentra «{training_file(run)}» como era al entrenar: no se puede comprobar si la corrida conoce "
            "ya estos avisos. Si los conoce, el resultado es optimista."
        ]
    rows = np.concatenate([trained.split[side] for side in ("train", "val")])
    fitted = {normalise(trained.texts[row]) for row in rows}
    repeated = sum(normalise(text) in fitted for text in texts)
    if not repeated:
        return []
    return [
        f"Atención: {num(repeated)} de {num(len(texts))} avisos repiten el texto de uno con que se entrenó o se "
        "validó: el resultado, con sus intervalos, es optimista."
    ]
