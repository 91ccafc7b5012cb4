"""The page of a file's predictions says what they say, needs nothing else, and runs nothing of a notice."""

import re
import shutil

import pandas as pd
import pytest

from ocensa_nb.cli.daily_verbs import report
from ocensa_nb.daily.page import write_page, write_run_page
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError, num
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.runs.run import Run

HOSTILE = '<script>alert(1)</script> fuga & "derrame" {{ 7 * 7 }}'


def page_of(run, table, folder):
    table.to_csv(folder / "a.csv", index=False)
    predicted = predict(run, folder / "a.csv")
    return write_page(run, predicted, folder / "page.html").read_text(encoding="utf-8"), predicted


def notices(rows):
    table = synthetic.generate(rows, 5)
    dates = pd.date_range("2026-01-03", periods=rows, freq="3D").strftime("%d/%m/%Y")
    return table.assign(**{"Fecha de aviso": dates, "Ubicac.técnica": ["A", "B"] * (rows // 2)})


def test_page_counts_the_predictions_and_needs_no_other_file(run, tmp_path):
    table = notices(120)
    table.loc[3, "descripcion"] = HOSTILE
    text, predicted = page_of(run, table, tmp_path)
    for head, decisions in predicted.tally.decisions.items():
        assert sum(decisions.values()) == 120
        for kind, rows in decisions.items():
            assert re.search(rf"{head.capitalize()}</strong>:[^.]*{kind} {rows} ", text)
    urgent = (predicted.table["pred_prioridad"] == min(run.classes["prioridad"])).sum()
    assert f"<b>{urgent}</b> con prioridad" in text
    assert text.count("data:image/svg+xml;base64,") == 8  # four figures, for a page and for a telephone
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[a-z]""", text)
    assert "<script>alert" not in text


def test_page_says_what_a_file_does_not_have(run, tmp_path):
    text, _ = page_of(run, pd.DataFrame({"descripcion": ["fuga de aceite", "ruido"]}), tmp_path)
    assert "no tiene fechas" in text
    assert text.count("no tiene una columna para esto") == 2
    with pytest.raises(UserError, match="Ya existe"):
        write_page(run, predict(run, tmp_path / "a.csv"), tmp_path / "page.html")
    (tmp_path / "b.csv").write_text("descripcion,nota\n,x\n")
    with pytest.raises(UserError, match="no tiene avisos con texto"):
        write_page(run, predict(run, tmp_path / "b.csv"), tmp_path / "b.html")
    with pytest.raises(UserError, match=r"debe terminar en \.html"):
        write_page(run, predict(run, tmp_path / "a.csv"), tmp_path / "b.txt")
    with pytest.raises(UserError, match=r"debe terminar en \.html"):  # before any work: no such data
        report(str(run.path), "no_hay.csv", str(tmp_path / "b.txt"))


def test_notices_as_those_of_the_test_rows_are_no_change_and_a_single_one_is(run, notices, csv, tmp_path):
    table, test = pd.read_csv(csv, dtype=str, keep_default_na=False), notices.split["test"]
    for name, rows, changed in (("same", [*test] * 10, False), ("one", [test[0]] * 400, True)):
        (folder := tmp_path / name).mkdir()
        text, _ = page_of(run, table.iloc[rows], folder)
        assert ("más de lo que explica el azar. Un clic" in text) == changed
        assert ("salvo lo que explica el azar" in text) != changed


def test_page_of_a_run_says_what_to_accept_as_its_metrics_do(run, tmp_path):
    run = Run.load(shutil.copytree(run.path, tmp_path / "run"))
    text = re.sub(r"<[^>]+>", "", write_run_page(run).read_text(encoding="utf-8"))
    for head, measured in run.metrics["suggestion"].items():
        assert f"{head.capitalize()}: " in text
        assert f"acierta a la primera en {num(100 * measured['all']['right'])}" in text
        if rows := measured["accepted"]["rows"]:
            assert f"sin revisar {num(100 * rows / measured['all']['rows'])} de cada 100" in text
    for name in run.classes["modo"]:
        assert name in text
