"""Columns that help the linear model are found, alone and in pairs, and those that do not help are left out."""

import re

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.config import TrainConfig
from ocensa_nb.models.linear import LinearModel, count_ngrams
from ocensa_nb.training.field_choice import choose_fields, predict_by_value

ROWS = 600
PAIR = (("abc",), ("parada",), ("abc", "parada"))


@pytest.fixture(scope="module")
def notices():
    """Texts that say a third of a label; two columns that decide it only together; two that say nothing."""
    rng = np.random.default_rng(0)
    fields = pd.DataFrame(
        {
            "abc": rng.choice(["1", "2", "3"], ROWS),
            "parada": rng.choice(["x", ""], ROWS),
            "planta": rng.choice(list("pqrst"), ROWS),
            "equipo": [str(number) for number in rng.integers(0, 300, ROWS)],
        }
    )
    decided = {("1", "x"): 0, ("1", ""): 1, ("2", "x"): 1, ("2", ""): 2, ("3", "x"): 2, ("3", ""): 0}
    labels = np.array([decided[pair] for pair in zip(fields["abc"], fields["parada"], strict=True)])
    words = np.where(rng.random(ROWS) < 0.6, labels, rng.integers(0, 3, ROWS))
    texts = [f"falla {['fuga', 'vibra', 'ruido'][word]} {number}" for number, word in enumerate(words)]
    return texts, fields, labels


@pytest.fixture(scope="module")
def counts(notices):
    return count_ngrams(notices[0])


def choose(counts, notices, known):
    _, fields, labels = notices
    return choose_fields(counts, fields, known, {"x": labels}, np.arange(ROWS))["x"]


def test_two_columns_that_decide_a_label_together_are_chosen_and_no_other(counts, notices):
    choice = choose(counts, notices, list(notices[1]))
    assert sorted(choice.fields) == ["abc", "parada"]
    assert choice.f1 > 0.99 > choice.f1_without + 0.2
    assert choice.is_rule
    assert re.search(r"x se deduce de «(abc|parada)» y «(abc|parada)»", " ".join(choice.lines("x", TrainConfig())))


def test_column_outside_the_list_is_only_advised_with_the_whole_command(counts, notices):
    texts, fields, labels = notices
    fields = fields.assign(codigo=[f"c{label}" for label in labels])
    choice = choose(counts, (texts, fields, labels), ["planta"])
    assert choice.terms == ()
    assert choice.advised == "codigo"
    (line,) = choice.lines("x", TrainConfig(data="avisos.csv"))
    assert line.endswith("python -m ocensa_nb train --recipe auto --data avisos.csv --fields codigo")


def test_column_that_helps_together_with_a_chosen_one_is_the_one_advised(counts, notices):
    choice = choose(counts, notices, ["abc", "planta"])
    assert choice.fields == ["abc"]
    assert choice.advised == "parada"


def test_choice_for_random_labels_is_nearly_always_empty(counts, notices):
    texts, fields, _ = notices
    answers = [np.random.default_rng(seed).integers(0, 3, ROWS) for seed in range(30)]
    chosen = [choose(counts, (texts, fields, labels), list(fields)).terms for labels in answers]
    assert sum(map(bool, chosen)) <= 1


def test_rows_of_a_single_text_choose_no_column():
    counts, labels = count_ngrams(["fuga de aceite"] * 6), {"modo": np.array([0, 1] * 3)}
    fields = pd.DataFrame({"Parada": ["X", ""] * 3})
    assert choose_fields(counts, fields, ["Parada"], labels, np.zeros(6, np.int64))["modo"].terms == ()


def test_fitted_pair_predicts_what_columns_or_words_alone_cannot(notices, tmp_path):
    texts, fields, labels = notices
    model = LinearModel.fit(count_ngrams(texts[:400]), {"x": labels[:400]}, {"x": 3}, fields.iloc[:400], {"x": PAIR})
    model.write(tmp_path / "linear.safetensors")
    restored = LinearModel.read(tmp_path / "linear.safetensors", {"x": 3})
    asked = fields.iloc[400:]
    for known in (asked, asked.drop(columns=["planta", "equipo"])):
        assert (restored.logits(texts[400:], known)["x"].argmax(axis=1) == labels[400:]).mean() > 0.99
    without = restored.logits(texts[400:])["x"]
    empty = restored.logits(texts[400:], asked.assign(abc="", parada=""))["x"]
    np.testing.assert_array_equal(without, empty)


def test_value_shares_and_word_shares_sum_to_the_decision_value(notices):
    texts, fields, labels = notices
    model = LinearModel.fit(count_ngrams(texts), {"x": labels}, {"x": 3}, fields, {"x": PAIR})
    row = fields.iloc[[7]]
    words = model.contributions([texts[7].split()])["x"][0].sum(axis=0)
    values = sum(model.value_contributions(row)["x"].values())
    np.testing.assert_allclose(words + values + model.biases["x"], model.logits([texts[7]], row)["x"][0], atol=1e-5)


def test_prediction_by_value_never_uses_the_fold_of_the_row():
    rng = np.random.default_rng(0)
    values, labels, folds = (rng.integers(0, most, 200) for most in (6, 3, 4))
    found = predict_by_value(values, labels, folds, 3)
    for row in range(200):
        others = pd.Series(labels[(folds != folds[row]) & (values == values[row])])
        assert found[row] == others.value_counts().sort_index().idxmax()
    changed = labels.copy()
    changed[folds == 2] = 0
    assert (predict_by_value(values, changed, folds, 3)[folds == 2] == found[folds == 2]).all()
