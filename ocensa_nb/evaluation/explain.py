"""Why a notice is predicted as it is: what each word and each field adds, by the model or models that decide."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ocensa_nb.config import AUTO, ENCODER, LINEAR
from ocensa_nb.data.canonical import canonical
from ocensa_nb.data.columns import appended, compose
from ocensa_nb.data.splits import Arrays
from ocensa_nb.errors import UserError, clipped, num, unknown
from ocensa_nb.evaluation.blend import apply
from ocensa_nb.evaluation.metrics import MODEL_NAMES, MODEL_TITLES, Predictions
from ocensa_nb.evaluation.predictor import Predictor, require_source
from ocensa_nb.evaluation.rows import read_as_trained, unlike_training
from ocensa_nb.evaluation.suggestion import TARGET
from ocensa_nb.files.notice_file import SPANISH_EXCEL, NoticeFile, TableFile, readable
from ocensa_nb.models.linear import LinearModel, Term
from ocensa_nb.runs.run import Run

TYPED = Path("el aviso escrito")  # in place of the name of a file
LIKELIEST = 3  # classes that are named
SHOWN = 8  # words of the table
PAIR_ROWS, PAIR_WORDS = 20, 3  # rows of two confused classes that are explained, and words that are named
EDGES = " .,;:¿?¡!()\"'«»"  # no part of a word that is shown


@dataclass(frozen=True)
class Explanation:
    """What decided one label of a notice: its class against the second likeliest."""

    head: str
    likeliest: list[tuple[str, float]]  # classes and their probabilities, in order
    suggested: str  # the set with the right class at the target, as in a file of predictions
    decision: str  # the same
    pieces: list[str]  # the words of the description, each field in the text, and each column that the label uses
    shares: dict[str, np.ndarray]  # float64 (pieces,), per model that decides: over 0 for the class, below 0 against it
    notes: list[str]  # where two models disagree, in Spanish

    @property
    def strengths(self) -> np.ndarray:
        """The share of each piece from -1 to 1, the mean of the models, float64 (pieces,)."""
        return np.mean([part / max(np.abs(part).max(), 1e-9) for part in self.shares.values()], axis=0)

    def table(self) -> pd.DataFrame:
        """Return the strongest words, and the share of each by model; columns in Spanish."""
        strongest = np.argsort(-np.abs(self.strengths), kind="stable")[:SHOWN]
        columns = {MODEL_NAMES[model]: part[strongest].round(2) for model, part in self.shares.items()}
        return pd.DataFrame({"palabra": [self.pieces[piece].strip(EDGES) for piece in strongest], **columns})

    def lines(self) -> list[str]:
        (name, share), *others = self.likeliest
        after = ", ".join(f"{other} {num(part, 2)}" for other, part in others)
        rows = self.table().to_string(index=False, decimal=",").splitlines()
        advice = f"  {self.decision.capitalize()}: es, casi siempre, una de {self.suggested}."
        against = f"  Por qué, y no {others[0][0]} (a favor +, en contra -):"
        notes = [f"  {note}" for note in self.notes]
        return [f"{self.head}: {name}, confianza {num(share, 2)}. Después: {after}.", advice, against, *rows, *notes]


@dataclass(frozen=True)
class ExplainedNotice:
    """One notice with the explanation of each label, and what is unusual in it, in Spanish."""

    text: str
    labels: dict[str, Explanation]
    notes: list[str]

    def lines(self) -> list[str]:
        parts = [line for label in self.labels.values() for line in ("", *label.lines())]
        return [f"Texto: {self.text}", *self.notes, *parts]

    def to_dict(self) -> dict[str, Any]:
        labels = {
            head: vars(label) | {"shares": {model: part.tolist() for model, part in label.shares.items()}}
            for head, label in self.labels.items()
        }
        return {**vars(self), "labels": labels}


def explain(
    predictor: Predictor, text: str, fields: Mapping[str, str], source: str = AUTO, target: float = TARGET
) -> ExplainedNotice:
    """Predict one notice and explain each label; `fields` has the values of columns, by role or title.

    The suggestions and the decision are those of `predict` for a file with this notice.

    The share of the linear model is exact: the n-grams of a word, or the value of a column, as they add to the
    difference between the decision values of the likeliest and the second class. That of the encoder, which reads no
    columns, is how much this difference of logits falls if the word is masked (Li et al., *Understanding neural
    networks through representation erasure*, 2016).

    Raises
    ------
    UserError
        If the text is empty, the run does not know a field, the source does not exist, or the target is out of range.
    """
    require_source(source)
    run, suggestions = predictor.run, predictor.suggestions(source, target)
    file = read_typed(predictor, text, fields)
    pieces = _pieces(run, file)
    whole, needs = " ".join(pieces), {head: blend.needs(source) for head, blend in predictor.blends.items()}
    models = {model for used in needs.values() for model in used}
    logits = {}
    if ENCODER in models:
        masked = predictor.masked_logits(pieces)
        logits[ENCODER] = {head: values[:1] for head, values in masked.items()}
    if LINEAR in models:
        logits[LINEAR] = predictor.linear.logits([whole], file.fields)
        words, values = predictor.linear.contributions([pieces]), predictor.linear.value_contributions(file.fields)
    labels, notes = {}, unlike_training(run, file, predictor.linear)
    for head, probabilities in apply(predictor.blends, logits, source).items():
        order = np.argsort(-probabilities[0], kind="stable")
        best, second = order[:2]
        shares, named = {}, pieces
        if LINEAR in needs[head]:
            columns = values.get(head, {})
            named = [*pieces, *(_described(file, term) for term in columns)]
            exact = np.vstack([words[head][0], *columns.values()])
            shares[LINEAR] = exact[:, best] - exact[:, second]
        if ENCODER in needs[head]:
            margins = (masked[head][:, best] - masked[head][:, second]).astype(float)
            shares[ENCODER] = np.append(margins[0] - margins[1:], np.zeros(len(named) - len(pieces)))
        names = run.classes[head]
        likeliest = [(names[index], float(probabilities[0, index])) for index in order[:LIKELIEST]]
        answers = {model: names[logits[model][head][0].argmax()] for model in shares}
        row = suggestions[head][0].columns(probabilities, names, reliable=not notes)
        advice, disagreements = (row["conjunto"][0], row["decision"][0]), _disagreements(named, shares, answers)
        labels[head] = Explanation(head, likeliest, *advice, named, shares, disagreements)
    return ExplainedNotice(whole, labels, notes)


def parse_fields(words: Sequence[str]) -> dict[str, str]:
    """Return the fields of `equipo=BOMBA 4` and the like; raises `UserError` for a word without a name or `=`."""
    if wrong := next((word for word in words if not word.partition("=")[0].strip() or "=" not in word), ""):
        raise UserError(f'«{clipped(wrong)}» no es un campo: escriba NOMBRE=VALOR, p. ej. --field "Equipo=BOMBA 4".')
    return {name.strip(): value.strip() for name, _, value in (word.partition("=") for word in words)}


def field_titles(predictor: Predictor) -> dict[str, str]:
    """Return the columns that a run reads beside the description, title per role: the text fields, then the others."""
    text = _text_titles(predictor.run)
    others = [title for title in predictor.linear.used_fields if title not in text.values()]
    return text | dict(zip(others, others, strict=True))


def read_typed(predictor: Predictor, text: str, fields: Mapping[str, str]) -> NoticeFile:
    """Return a file of one notice, as if it were read from a file with the run's columns."""
    run, titles = predictor.run, field_titles(predictor)
    recorded = run.metadata["data"]["columns"]
    roles = {_key(name): role for role, title in titles.items() for name in (role, title)}
    cells = {recorded["descripcion"]: text, **dict.fromkeys(titles.values(), "")}
    for name, value in fields.items():
        if _key(name) not in roles:
            raise UserError(unknown("El campo", name, titles.values()) if titles else "La corrida no usa más columnas.")
        cells[titles[roles[_key(name)]]] = value
    table = pd.DataFrame([cells], dtype=str)
    typed = TableFile(TYPED, table, readable(table)[0], 0, 1, SPANISH_EXCEL, "", None)
    file = read_as_trained(run, typed, recorded, labelled=False)
    if file.texts.iloc[0] == "":
        raise UserError("El aviso no tiene texto. Escriba lo que diría su descripción, p. ej. «pase en válvula».")
    return file


def pulling_words(
    linear: LinearModel, texts: Sequence[str], part: Predictions, head: str, pairs: Sequence[tuple[int, int]]
) -> list[str]:
    """Return the words that pull the linear model most from a true class to a predicted one, per pair of them.

    What a word adds to the one less what it adds to the other, the mean over the first `PAIR_ROWS` rows of the pair.
    """
    rows = [np.flatnonzero((part.labels == true) & (part.predicted == wrong))[:PAIR_ROWS] for true, wrong in pairs]
    words = [[texts[row].split(" ") for row in some] for some in rows]
    shares = iter(linear.contributions([pieces for some in words for pieces in some])[head] if words else ())
    named = []
    for (true, wrong), some in zip(pairs, words, strict=True):
        pulls: Counter[str] = Counter()
        for pieces in some:
            for word, values in zip(pieces, next(shares), strict=True):
                pulls[word.strip(EDGES).lower()] += values[wrong] - values[true]
        named.append(" · ".join(word for word, pull in pulls.most_common(PAIR_WORDS) if pull > 0))
    return named


def _key(name: str) -> str:
    return canonical(name).replace("_", "")


def _text_titles(run: Run) -> dict[str, str]:
    columns = run.metadata["data"]["columns"]
    return {role: columns[role] for role in appended(columns, run.config.text_fields, list(run.classes))}


def _described(file: NoticeFile, term: Term) -> str:
    """Return a column and its value, or two of them: `Indicador ABC = 2`."""
    return ", ".join(f"{title} = {file.cells[title].iloc[0] or '(vacío)'}" for title in term)


def _pieces(run: Run, file: NoticeFile) -> list[str]:
    """Return the words of the description, then each field: joined by spaces, they are the text."""
    words, fields = file.texts.iloc[0].split(" "), list(_text_titles(run))
    ends = [len(compose(file.cells, file.columns, fields[:n]).iloc[0].split(" ")) for n in range(len(fields) + 1)]
    parts = [" ".join(words[start:end]) for start, end in pairwise(ends)]
    return [*words[: ends[0]], *filter(None, parts)]


def _disagreements(pieces: list[str], shares: Arrays, answers: Mapping[str, str]) -> list[str]:
    strongest = {model: pieces[int(part.argmax())].strip(EDGES) for model, part in shares.items()}
    phrases = {"Por sí solo, {} diría «{}»; {}, «{}».": answers, "Para {} pesa más «{}»; para {}, «{}».": strongest}
    return [
        phrase.format(*(word for model, name in said.items() for word in (MODEL_TITLES[model], clipped(name))))
        for phrase, said in phrases.items()
        if len(set(said.values())) > 1
    ]
