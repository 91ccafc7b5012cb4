"""The review of a file by a run: what is selected, its workbook, and a run with its answers."""

import json
import re
import shutil
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook
from sklearn.feature_extraction.text import TfidfVectorizer

from ocensa_nb.cli import main as cli
from ocensa_nb.data import synthetic
from ocensa_nb.data.canonical import normalise
from ocensa_nb.data.corrections import SHEET, read_corrections
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation.predict import predict, save
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.evaluation.suggestion import COLUMNS
from ocensa_nb.files.write import write_table
from ocensa_nb.review import workbook
from ocensa_nb.review.review import SIMILAR, review, select, uncertainty
from ocensa_nb.runs.run import Run

HEADS = ("modo", "causa", "prioridad")
TEXTS = synthetic.generate(600, seed=5)["descripcion"].tolist()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return a file of 120 notices, 20 of which are of the training file, without labels."""
    path = tmp_path_factory.mktemp("fresh") / "nuevos.csv"
    table = pd.concat([synthetic.generate(400, seed=3).head(20), synthetic.generate(100, seed=8)])
    table.drop(columns=["modo_falla", "causa_falla", "prioridad"]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def found(run, fresh):
    return review(run, fresh, 30)


def test_predictions_are_those_of_predict_and_keep_the_file(found, run, fresh):
    pd.testing.assert_frame_equal(found.predictions, predict(run, fresh).table, check_exact=False, atol=1e-3)


def test_doubtful_notices_have_the_likeliest_classes_in_order(found, run):
    table = found.doubtful
    assert len(table) == 30
    shares = Predictor.load(run).probabilities(table["texto"].tolist())
    for head in HEADS:
        for row in range(5):
            best = shares[head][row].argsort()[::-1][:3]
            assert [table[f"pred{k}_{head}"][row] for k in (1, 2, 3)] == [run.classes[head][i] for i in best]
            assert [table[f"conf{k}_{head}"][row] for k in (1, 2, 3)] == pytest.approx(
                shares[head][row][best].tolist(), abs=2e-3
            )
        assert (table[f"correcta_{head}"] == "").all()


def test_notices_of_the_training_are_not_doubtful(found, notices):
    known = {normalise(text) for text in notices.texts}
    assert not known & {normalise(text) for text in found.doubtful["texto"]}


def test_review_says_what_to_accept_and_what_error_to_expect_as_predict_does(found, run, fresh, tmp_path):
    assert found.notes == predict(run, fresh).notes
    assert any(note.startswith("modo: de 120 avisos, ") for note in found.notes)
    sheet = load_workbook(workbook.write(found, tmp_path / "r"))["Resumen"]
    cells = [cell.value for cell in sheet["A"]]
    assert "Corrija en la hoja Dudosos" in cells[1]
    assert [cell for cell in cells if cell in found.notes] == found.notes


def test_counts_are_of_all_predictions_and_training_rows(found, notices):
    for head in HEADS:
        counts = found.counts[found.counts["etiqueta"] == head].set_index("clase")
        assert counts["avisos"].sum() == 120
        assert counts["parte en entrenamiento"].sum() == pytest.approx(1)
        predicted = found.predictions[f"pred_{head}"].value_counts()
        assert counts["avisos"][counts["avisos"] > 0].to_dict() == predicted.to_dict()


def test_without_the_training_file_it_says_that_known_notices_may_be_chosen(run, fresh, tmp_path):
    copy = Run.load(shutil.copytree(run.path, tmp_path / "run"))
    copy.metadata["data"]["path"] = str(tmp_path / "nada.csv")
    assert "no se puede saber qué avisos conoce" in review(copy, fresh, 10).notes[-1]


def test_review_of_a_file_without_a_column_of_the_texts_estimates_no_error(run, fresh, tmp_path):
    pd.read_csv(fresh, dtype=str).drop(columns="familia_equipo").to_csv(tmp_path / "a.csv", index=False)
    found = review(run, tmp_path / "a.csv", 10)
    assert "Faltan datos de los que la corrida aprendió: «familia_equipo»" in found.notes[0]
    assert not any("acierta" in note for note in found.notes)
    assert all((found.predictions[f"decision_{head}"] == "revisar").all() for head in HEADS)


def test_review_of_known_notices_or_without_text_raises_user_error(run, csv, tmp_path):
    with pytest.raises(UserError, match="no tiene avisos que revisar"):
        review(run, csv, 10)
    (tmp_path / "a.csv").write_text("id_aviso,descripcion\n1,\n2,nan\n")
    with pytest.raises(UserError, match="está vacía en todas las filas"):
        review(run, tmp_path / "a.csv", 10)
    for rows in (0, 3_000, 50.5, "200", None, True):
        with pytest.raises(UserError, match=f"rows = {rows!r}"):
            review(run, csv, rows)


def test_workbook_has_drop_downs_of_all_classes_the_likeliest_first_frozen_titles_and_filters(found, run, tmp_path):
    book = load_workbook(workbook.write(found, tmp_path / "r"))
    assert book.sheetnames == ["Predicciones", "Dudosos", "Resumen", "Clases"]
    assert book.active.title == SHEET
    assert book["Clases"].sheet_state == "hidden"
    sheet = book[SHEET]
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("C2", sheet.dimensions)
    titles = {cell.value: cell.column_letter for cell in sheet[1]}
    lists = {str(choice.sqref): choice for choice in sheet.data_validations.dataValidation}
    for head in HEADS:
        choice = lists[f"{titles[f'correcta_{head}']}2:{titles[f'correcta_{head}']}31"]
        name, cells = choice.formula1.split("!")
        assert re.fullmatch(r"\$[A-Z]+2:\$[A-Z]+2", cells)  # relative to the row: each notice has its own list
        for row in range(2, 32):
            listed = [cell.value for cell in book[name][cells.replace("$", "").replace("2", str(row))][0]]
            suggested = sheet[f"{titles[f'conjunto_{head}']}{row}"].value.split(" | ")
            assert sorted(listed) == sorted(run.classes[head])
            assert listed[0] == sheet[f"{titles[f'pred1_{head}']}{row}"].value
            assert listed[: len(suggested)] == suggested
    assert book["Predicciones"].max_row == 121


@pytest.fixture
def book(fresh, tmp_path):
    """Return a book of the same notices with dates, a format, a formula, and a sheet with a name that review uses."""
    table = pd.read_csv(fresh, dtype=str)
    book = Workbook()
    sheet = book.active
    sheet.title = "Avisos"
    sheet.append(["fecha", "costo", *table.columns])
    for number, row in enumerate(table.itertuples(index=False)):
        sheet.append([datetime(2026, 1, 2), 10.5 + number, *row])
    sheet["A2"].number_format, sheet.column_dimensions["B"].width, sheet.freeze_panes = "dd-mmm-yy", 33, "C2"
    sheet.auto_filter.ref = sheet.dimensions
    book.create_sheet("RESUMEN")["A1"] = "=SUM(Avisos!B:B)"
    book.save(tmp_path / "nuevos.xlsx")
    return tmp_path / "nuevos.xlsx"


def test_review_of_a_book_is_a_copy_with_columns_and_sheets_more(run, book, tmp_path):
    found = review(run, book, 12)
    after, before = load_workbook(workbook.write(found, tmp_path / "r.xlsx")), load_workbook(book)
    assert after.sheetnames == ["Avisos", "RESUMEN", "Dudosos", "Resumen_2", "Clases"]
    for old in before:
        new = after[old.title]
        assert (new.freeze_panes, new.auto_filter.ref) == (old.freeze_panes, old.auto_filter.ref)
        for cell in (cell for row in old for cell in row):
            copy = new[cell.coordinate]
            assert (copy.value, copy.number_format) == (cell.value, cell.number_format)
    added = [cell.value for cell in after["Avisos"][1][before["Avisos"].max_column :]]
    assert added == [f"{kind}_{head}" for head in HEADS for kind in COLUMNS]
    assert len(read_corrections(workbook.write(found, tmp_path / "p.xlsx", prefill=True), HEADS).table) == 12
    (choice, *_) = after[SHEET].data_validations.dataValidation
    assert choice.formula1.startswith("Clases!$A2:$")
    assert after["Clases"].sheet_state == "hidden"


@pytest.mark.parametrize("odd", ["\ufffe", "\uffff", "_xFFFE_", "_xFFFF_", "_xD800_", "_xDFFF__xD800_", "_x000B_"])
@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_book_opens_whatever_characters_any_column_has(run, fresh, tmp_path, odd, suffix):
    table = pd.read_csv(fresh, dtype=str).assign(otra=f"a{odd}b").rename(columns={"otra": f"otra {odd}"})
    table["id_aviso"] += odd
    table.loc[::2, "descripcion"] += odd
    path = write_table(table, tmp_path / f"a{suffix}")  # a book cannot have the first two
    found = review(run, path, 5)
    assert load_workbook(workbook.write(found, tmp_path / "r.xlsx"))["Dudosos"].max_row == 6
    assert load_workbook(save(predict(run, path), tmp_path / "p.xlsx")).active.max_row == 121


def test_reviewed_book_given_as_data_is_refused_before_any_work(run, book, tmp_path):
    again = workbook.write(review(run, book, 5), tmp_path / "r.xlsx")
    with pytest.raises(UserError, match="ya tiene estas columnas: pred_modo"):
        review(run, again, 5)
    without = load_workbook(again)
    added = len(COLUMNS) * len(HEADS)
    without["Avisos"].delete_cols(without["Avisos"].max_column - added + 1, added)
    without.save(tmp_path / "sin.xlsx")
    with pytest.raises(UserError, match=r"ya tiene una hoja «Dudosos».*o cambie el nombre de esa hoja"):
        review(run, tmp_path / "sin.xlsx", 5)


def test_review_of_a_book_with_macros_is_a_new_book(run, book, tmp_path):
    book.rename(tmp_path / "nuevos.xlsm")
    path = workbook.write(review(run, tmp_path / "nuevos.xlsm", 5), tmp_path / "r.xlsx")
    assert load_workbook(path).sheetnames == ["Predicciones", "Dudosos", "Resumen", "Clases"]


def test_returned_workbook_trains_a_run_with_its_corrections(found, run, csv, tmp_path):
    path = workbook.write(found, tmp_path / "r.xlsx")
    book = load_workbook(path)
    sheet = book[SHEET]
    titles = {cell.value: cell.column for cell in sheet[1]}
    for row in (2, 3):
        for head in HEADS:
            sheet.cell(row, titles[f"correcta_{head}"]).value = run.classes[head][0]
    book.save(tmp_path / "revisado.xlsx")
    assert len(read_corrections(tmp_path / "revisado.xlsx", HEADS).table) == 2
    options = [
        "--model",
        "tiny",
        "--epochs",
        "1",
        "--freeze-layers",
        "1",
        "--json",
        str(tmp_path / "t.json"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert cli.main(["train", "--data", str(csv), "--corrections", str(tmp_path / "revisado.xlsx"), *options]) == 0
    assert json.loads((tmp_path / "t.json").read_text())["run"] == str(tmp_path / "run")
    kept = read_corrections(tmp_path / "run/corrections.csv", HEADS).table
    assert kept["id_aviso"].tolist() == found.doubtful["id_aviso"][:2].tolist()


def test_prefilled_workbook_has_the_predictions_as_right_classes(found, tmp_path):
    path = workbook.write(found, tmp_path / "r.xlsx", prefill=True)
    corrections = read_corrections(path, HEADS).table
    assert corrections["modo"].tolist() == found.doubtful["pred1_modo"].tolist()


def test_review_verb_writes_the_workbook_and_json(run, fresh, tmp_path):
    out, result = tmp_path / "r.xlsx", tmp_path / "r.json"
    command = ["review", "--run", str(run.path), "--data", str(fresh), "--out", str(out)]
    assert cli.main([*command, "--rows", "12", "--json", str(result)]) == 0
    said = json.loads(result.read_text(encoding="utf-8"))
    assert (said["out"], said["rows"], said["selected"]) == (str(out), 120, 12)
    assert {"etiqueta", "clase", "avisos"} <= said["counts"][0].keys()
    before = out.read_bytes()
    assert cli.main(command) == 1  # nothing is overwritten
    assert out.read_bytes() == before


def scores(count, seed=0):
    return np.random.default_rng(seed).random(count)


def test_uncertainty_is_one_minus_the_mean_margin():
    found = uncertainty({"a": np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), "b": np.array([[0.5, 0.5], [0.9, 0.1]])})
    assert found == pytest.approx([1 - (0.2 + 0.0) / 2, 1 - (1.0 + 0.8) / 2])


@given(st.integers(1, 80), st.integers(0, 20), st.integers(0, 300))
@settings(max_examples=15, deadline=None)
def test_selected_texts_are_distinct_unknown_and_as_many_as_asked(count, seed, known_rows):
    known = {normalise(text) for text in TEXTS[:known_rows]}
    uncertain = scores(len(TEXTS), seed)
    rows = select(TEXTS, uncertain, count, known)
    assert len(rows) == len(set(rows)) == count
    assert (np.diff(uncertain[rows]) <= 0).all()
    assert not known & {normalise(TEXTS[row]) for row in rows}
    plain = [normalise(text) for text in TEXTS]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+").fit_transform(plain)[rows]
    near = (vectors @ vectors.T).toarray() - np.eye(len(rows))
    assert near.max() < SIMILAR + 1e-9


def test_select_twice_gives_the_same_rows():
    first, second = (select(TEXTS, scores(len(TEXTS)), 50) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_selected_are_among_the_most_uncertain():
    uncertain = np.linspace(1, 0, len(TEXTS))
    assert max(select(TEXTS, uncertain, 20)) < 250  # 100 candidates, and the repeats among them


@pytest.mark.parametrize(("texts", "expected"), [(["fuga"] * 9, 1), (["", "12", "fuga", "FUGA."], 2), (["", " "], 0)])
def test_repeated_and_empty_texts_are_selected_once_or_not(texts, expected):
    assert len(select(texts, scores(len(texts)), 5)) == expected


def test_nothing_is_selected_if_all_texts_are_known():
    assert len(select(TEXTS, scores(len(TEXTS)), 5, {normalise(text) for text in TEXTS})) == 0
