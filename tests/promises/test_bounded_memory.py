"""A long file is scored in parts, in every verb: memory does not grow with its rows, and the results are the same."""

import numpy as np
import pytest

from ocensa_nb.audit import audit, label_errors
from ocensa_nb.config import SOURCES
from ocensa_nb.evaluation import blend, predictor
from ocensa_nb.evaluation.evaluate import evaluate
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models import linear
from ocensa_nb.models.linear import LinearModel
from ocensa_nb.review.review import review

CHUNK = 16
VERBS = {
    "predict": lambda run, csv: predict(run, csv),
    "evaluate": lambda run, csv: evaluate(run, csv),
    "review": lambda run, csv: review(run, csv, rows=5),
    "audit": lambda run, csv: audit.audit(audit.settings(str(csv), ["prioridad"])),
}


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (linear, blend, predictor):
        monkeypatch.setattr(module, "CHUNK", CHUNK)


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_scores_more_rows_at_once_than_a_chunk(verb, run, csv, tmp_path, small_chunks, monkeypatch):
    data = tmp_path / "nuevos.csv"
    data.write_text(csv.read_text("utf-8-sig").replace(" de ", " del "), "utf-8-sig")
    rows, transform, weigh = [], linear.HashingVectorizer.transform, linear._weigh
    fit = LinearModel.fit.__func__

    def counted(self, texts):
        rows.append(len(texts))
        return transform(self, texts)

    def weighed(counts, *arguments):
        rows.append(counts.shape[0])
        return weigh(counts, *arguments)

    def fitted(cls, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(linear, "_weigh", weigh)  # a fit needs its rows, of which an audit has a limited number
            return fit(cls, *arguments)

    monkeypatch.setattr(linear.HashingVectorizer, "transform", counted)
    monkeypatch.setattr(linear, "_weigh", weighed)
    monkeypatch.setattr(LinearModel, "fit", classmethod(fitted))
    monkeypatch.setattr(audit, "choose_fields", lambda *arguments: {})
    monkeypatch.setattr(label_errors, "MOST_FITTED", 200)
    VERBS[verb](run, data)
    assert len(rows) > 2 * 400 // CHUNK
    assert max(rows) <= CHUNK


@pytest.mark.parametrize("source", SOURCES)
def test_probabilities_in_chunks_are_those_of_all_rows_at_once(source, run, notices, monkeypatch):
    texts, fields, loaded = (
        notices.texts * 2,
        notices.fields.iloc[[*range(len(notices.texts))] * 2],
        Predictor.load(run),
    )
    whole = loaded.probabilities(texts, fields, source)
    for module in (linear, blend, predictor):
        monkeypatch.setattr(module, "CHUNK", CHUNK)
    parts = loaded.probabilities(texts, fields, source)
    for head, shares in whole.items():
        if source == "linear":
            np.testing.assert_array_equal(parts[head], shares)
        np.testing.assert_allclose(parts[head], shares, atol=1e-6)
