"""What the report says of the text, the split and a file with few rows."""

import pandas as pd
import pytest

from ocensa_nb.config import TrainConfig
from ocensa_nb.data import notices, synthetic
from ocensa_nb.data.report import FEW_TEST_ROWS, FEW_TEXTS
from ocensa_nb.errors import num


def report(path, rows, columns=()):
    table = synthetic.generate(rows, seed=2)
    table.drop(columns=list(columns)).to_csv(path, index=False)
    return notices.prepare(notices.read(path), TrainConfig()).report


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        (["familia_equipo", "componente"], "El texto de cada aviso es «descripcion», sin otras columnas."),
        (["componente"], "es «descripcion», y a continuación «familia_equipo», si no están vacías."),
        ([], "es «descripcion», y a continuación «familia_equipo» y «componente», si no están vacías."),
    ],
)
def test_report_says_which_columns_form_the_text(tmp_path, dropped, said):
    lines = [line for line in report(tmp_path / "a.csv", 60, dropped).lines() if "El texto" in line]
    assert len(lines) == 1
    assert said in lines[0]


def test_report_names_the_sides_of_the_split_in_spanish(tmp_path):
    found = report(tmp_path / "a.csv", 2_000)
    train, val, test = (found.split[side] for side in ("train", "val", "test"))
    assert f"Entrenamiento {num(train)}, validación {num(val)}, prueba {num(test)};" in str(found)


def test_report_of_few_rows_says_that_the_scores_say_little(tmp_path):
    found = report(tmp_path / "a.csv", FEW_TEXTS - 1)
    rows = FEW_TEXTS - 1
    assert f"filas útiles {rows}, textos distintos {rows}, y solo {found.split['test']} filas" in found.lines()[-1]
    assert "Atención" not in str(report(tmp_path / "b.csv", FEW_TEXTS))


def test_report_of_few_distinct_texts_in_many_rows_says_that_the_scores_say_little(tmp_path):
    table = pd.concat([synthetic.generate(100, seed=2)] * 10)
    table.to_csv(tmp_path / "a.csv", index=False)
    found = notices.prepare(notices.read(tmp_path / "a.csv"), TrainConfig()).report
    assert found.split["test"] > FEW_TEST_ROWS
    assert "filas útiles 1 000, textos distintos 100, y solo" in found.lines()[-1]
