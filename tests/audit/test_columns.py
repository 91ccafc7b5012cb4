"""What a single column says about a label."""

import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.audit.audit import settings
from ocensa_nb.audit.columns import COLUMNS, add_to_text, column_scores, column_sentence, majority_f1, predict_by_value
from ocensa_nb.audit.rows import read_audit_rows
from ocensa_nb.audit.verdict import judge_label
from ocensa_nb.data import synthetic


@pytest.fixture(scope="module")
def frame():
    frame = synthetic.generate(300, seed=2)
    frame["codigo"] = "C" + frame["modo_falla"].str.len().astype(str) + frame["modo_falla"].str[:9]
    return frame.assign(constante="x")


@pytest.fixture(scope="module")
def scores(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "avisos.csv"
    synthetic.write_csv(frame, path)
    return column_scores(read_audit_rows(settings(str(path))), seed=1)


def test_column_that_is_a_code_of_the_label_wins_and_an_id_gains_nothing(scores, frame):
    table = scores["modo"].set_index("columna")
    assert table.index[0] == "codigo"
    assert table.at["codigo", "F1"] > 0.9
    assert table.at["id_aviso", "F1"] == pytest.approx(majority_f1(frame["modo_falla"].factorize()[0]), abs=0.02)
    assert table.at["codigo", "en el texto"] == "no"
    assert table.at["componente", "en el texto"] == "sí"


def test_columns_of_labels_text_and_a_single_value_are_not_scored(scores):
    for table in scores.values():
        assert not {"modo_falla", "causa_falla", "prioridad", "descripcion", "constante"} & set(table["columna"])


def test_sentence_names_the_column_and_says_that_it_is_in_the_code(scores):
    said = column_sentence("modo", scores["modo"], 0.2, 0.9)
    assert "modo ya está casi por completo en «codigo»" in said
    assert "ya está en el código" in said
    assert add_to_text(scores["modo"], 0.999, ()) == ""
    assert column_sentence("modo", scores["modo"].iloc[:0], 0.5, 0.5) == "Ninguna columna dice por sí sola modo."


def test_column_that_only_says_the_most_frequent_class_is_not_recommended():
    expected = SimpleNamespace(f1=(0.7, 1.0), f1_macro=(0.2, 1.0), majority=0.93, linear_f1=0.94, beats_chance=False)
    column = pd.DataFrame([("fecha", "no", 9, 0.94, 0.95)], columns=COLUMNS)
    classes = pd.DataFrame({"clase": ["a", "b"], "avisos": [93, 7], "nota": ["", ""]})
    said = judge_label("modo", SimpleNamespace(ceiling=None), column, classes, expected, None, 0, ())
    assert "Ninguna columna dice por sí sola modo." in said.reasons
    assert not any("fecha" in action for action in said.actions)


@pytest.mark.parametrize("name", ["Código de daño " + "muy " * 20 + "largo", "Componente.1"])
@pytest.mark.parametrize("fields", [("componente",), ("familia_equipo", "parada")])
def test_suggested_options_add_the_column_to_the_text_of_the_audit(name, fields, tmp_path):
    frame = synthetic.generate(300, seed=2)
    frame[name] = frame["modo_falla"].str[:9]
    path = tmp_path / "avisos.csv"
    synthetic.write_csv(frame, path)
    data = read_audit_rows(settings(str(path), ["modo"], text_fields=fields))
    said = add_to_text(column_scores(data, seed=1)["modo"], 0.5, fields)
    options = shlex.split(said.partition("texto: ")[2])
    border = options.index("--columns")
    assert (options[0], len(options)) == ("--text-fields", border + 3)
    added = settings(str(path), ["modo"], columns={options[-2]: options[-1]}, text_fields=options[1:border])
    assert read_audit_rows(added).file.text_columns == (*data.file.text_columns, name)


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
