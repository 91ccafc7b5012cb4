"""The linear model against scikit-learn's own pipeline, its file, and labels that are hard to fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC

from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.models import linear
from ocensa_nb.models.linear import LinearModel, count_ngrams


@pytest.fixture(scope="module")
def rows():
    """Return texts and the class indices of one label."""
    table = synthetic.generate(300, seed=5)
    return table["descripcion"].tolist(), np.unique(table["prioridad"], return_inverse=True)[1]


@pytest.fixture(scope="module")
def model(rows):
    texts, labels = rows
    return LinearModel.fit(count_ngrams(texts[:200]), {"prioridad": labels[:200]}, {"prioridad": 4})


def test_logits_equal_those_of_scikit_learns_pipeline(rows, model):
    texts, labels = rows
    options = {"sublinear_tf": True, "min_df": 2, "strip_accents": "unicode"}
    pipeline = make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options),
    )
    features = pipeline.fit_transform(texts[:200])
    fitted = LinearSVC(C=0.3, class_weight="balanced", random_state=0, tol=1e-8).fit(features, labels[:200])
    expected = fitted.decision_function(pipeline.transform(texts[200:]))
    logits = model.logits(texts[200:])["prioridad"]
    # Some dozens of ten thousand n-grams share one of the 2**20 hashes.
    assert np.abs(logits - expected).mean() < 0.005
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.99


TEXTS = (
    "fuga de aceite en la bomba p-101 fuga de aceite",
    "x",
    "¿? mov-370112 . ´válvula´ n° ½ İstanbul ΣΑΣ x",
    "rotura. Equipo: 20000124. Denominación: BOMBA DE AGUA",
)


@pytest.mark.parametrize("join", [1, 2, 5])
def test_contributions_of_words_and_bias_sum_to_the_logits(model, rows, join):
    texts = [*TEXTS, *rows[0][200:230]]
    words = [text.split(" ") for text in texts]
    pieces = [[" ".join(parts[i : i + join]) for i in range(0, len(parts), join)] for parts in words]
    shares = model.contributions(pieces)["prioridad"]
    assert [len(part) for part in shares] == [len(part) for part in pieces]
    sums = np.array([part.sum(axis=0) for part in shares]) + model.biases["prioridad"]
    np.testing.assert_allclose(sums, model.logits(texts)["prioridad"], atol=1e-5)


def test_contribution_of_a_text_of_one_word_is_its_decision_value(model):
    (shares,) = model.contributions([["bomba"]])["prioridad"]
    np.testing.assert_allclose(
        shares[0] + model.biases["prioridad"], model.logits(["bomba"])["prioridad"][0], atol=1e-5
    )


def test_fit_predicts_new_texts_better_than_the_majority(rows, model):
    texts, labels = rows
    predicted = model.logits(texts[200:])["prioridad"].argmax(axis=1)
    majority = np.bincount(labels[:200]).argmax()
    assert (predicted == labels[200:]).mean() > (labels[200:] == majority).mean() + 0.1


def test_fit_twice_gives_the_same_bits(rows, model):
    texts, labels = rows
    again = LinearModel.fit(count_ngrams(texts[:200]), {"prioridad": labels[:200]}, {"prioridad": 4})
    np.testing.assert_array_equal(again.weights["prioridad"], model.weights["prioridad"])


def test_model_read_from_its_file_has_the_same_logits(rows, model, tmp_path):
    model.write(tmp_path / "linear.safetensors")
    restored = LinearModel.read(tmp_path / "linear.safetensors", {"prioridad": 4})
    np.testing.assert_array_equal(restored.logits(rows[0])["prioridad"], model.logits(rows[0])["prioridad"])


@pytest.mark.parametrize("sizes", [{"prioridad": 5}, {"causa": 4}, {"prioridad": 4, "causa": 4}])
def test_read_model_of_other_labels_raises_user_error(model, tmp_path, sizes):
    model.write(tmp_path / "linear.safetensors")
    with pytest.raises(UserError, match="no es de esta corrida"):
        LinearModel.read(tmp_path / "linear.safetensors", sizes)


def test_file_of_many_classes_stays_under_the_largest_size(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "LARGEST_BYTES", 200_000)
    texts, labels = rows
    small = LinearModel.fit(count_ngrams(texts), {"prioridad": labels}, {"prioridad": 4})
    small.write(tmp_path / "linear.safetensors")
    assert 150_000 < (tmp_path / "linear.safetensors").stat().st_size < 202_000
    predicted = small.logits(texts)["prioridad"].argmax(axis=1)
    assert (predicted == labels).mean() > 0.8


def test_fit_class_without_rows_is_never_predicted(rows):
    texts, labels = rows
    logits = LinearModel.fit(count_ngrams(texts), {"x": np.where(labels == 2, 1, labels)}, {"x": 4}).logits(texts)["x"]
    assert (logits.argmax(axis=1) != 2).all()


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_fit_any_texts_and_labels_gives_finite_logits_of_every_class(data):
    texts = data.draw(st.lists(st.text(max_size=12), min_size=1, max_size=12))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts))))
    logits = LinearModel.fit(count_ngrams(texts), {"x": labels}, {"x": 3}).logits([*texts, "otro", ""])["x"]
    assert logits.shape == (len(texts) + 2, 3)
    assert np.isfinite(logits).all()
