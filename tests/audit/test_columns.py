"""What a single column says about a label."""

from types import SimpleNamespace

import pandas as pd
import pytest

from ocensa_nb.audit.audit import settings
from ocensa_nb.audit.columns import COLUMNS, column_scores, column_sentence, majority_f1
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
    assert "Con solo «codigo» se acierta modo" in said
    assert "lo demás casi no añade" in said
    assert column_sentence("modo", scores["modo"].iloc[:0], 0.5, 0.5) == "Ninguna columna dice por sí sola modo."


def test_column_that_only_says_the_most_frequent_class_is_not_recommended():
    expected = SimpleNamespace(f1=(0.7, 1.0), f1_macro=(0.2, 1.0), majority=0.93, linear_f1=0.94, beats_chance=False)
    column = pd.DataFrame([("fecha", "no", 9, 0.94, 0.95)], columns=COLUMNS)
    classes = pd.DataFrame({"clase": ["a", "b"], "avisos": [93, 7], "nota": ["", ""]})
    said = judge_label("modo", SimpleNamespace(ceiling=None), column, classes, expected, None, 0)
    assert "Ninguna columna dice por sí sola modo." in said.reasons
