"""Evaluation counts every row as it should; prediction gives back the file it was given."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook
from sklearn.metrics import confusion_matrix, f1_score

from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import evaluate, metrics, predict
from ocensa_nb.evaluation.metrics import Predictions
from ocensa_nb.evaluation.suggestion import COLUMNS
from ocensa_nb.figures import quality, training
from ocensa_nb.files.notice_file import read_table
from ocensa_nb.models.save import read_linear
from ocensa_nb.paths import ROOT
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train


@pytest.fixture(scope="module")
def evaluation(run):
    return evaluate.evaluate(run)


def test_evaluate_run_scores_its_test_rows_with_the_recorded_metrics(run, evaluation, notices):
    assert evaluation.texts == [notices.texts[row] for row in notices.split["test"]]
    assert evaluation.metrics == pytest.approx(run.metrics["test"], abs=1e-12)


def test_evaluate_training_file_or_its_copy_scores_only_the_test_rows(run, evaluation, csv, tmp_path):
    copy = shutil.copy(csv, tmp_path / "otro_nombre.csv")
    for path in (csv, copy):
        assert evaluate.evaluate(run, path).texts == evaluation.texts


def test_evaluate_run_whose_data_changed_raises_user_error(run, csv, tmp_path):
    metadata = {**run.metadata, "data": {**run.metadata["data"], "fingerprint": "0" * 64}}
    with pytest.raises(UserError, match="ha cambiado desde que se entrenó"):
        evaluate.evaluate(Run(run.path, metadata, run.classes))


def test_evaluate_run_whose_data_is_missing_says_how_to_provide_it(run, csv, tmp_path):
    how = "data en el cuaderno 04 .*upload_labelled = True.* --data en una terminal"
    data = {**run.metadata["data"], "path": str(tmp_path / "avisos.csv")}
    moved = Run(run.path, {**run.metadata, "data": data}, run.classes)
    with pytest.raises(UserError, match=f"No se encuentra «.*avisos.csv», el archivo con que se entrenó .*{how}"):
        evaluate.evaluate(moved)
    assert evaluate.evaluate(moved, csv).source == "las filas de prueba"


def test_evaluate_other_file_scores_every_row_with_known_labels(run, tmp_path):
    table = synthetic.generate(60, seed=11)
    table.loc[0:4, "prioridad"] = "9-Nunca"
    table.to_csv(tmp_path / "otro.csv", index=False)
    found = evaluate.evaluate(run, tmp_path / "otro.csv")
    assert len(found.texts) + found.left_out == 60
    assert found.left_out >= 5


@pytest.fixture(scope="module")
def merged_run(config, tmp_path_factory):
    """Return a run that merged the rare class «Rara (RAR)» into the file's own «Other (OTH)»."""
    folder = tmp_path_factory.mktemp("merged")
    table = synthetic.generate(300, seed=4)
    table.loc[0:2, "modo_falla"] = "Rara (RAR)"
    table.to_csv(folder / "avisos.csv", index=False)
    settings = {"data": str(folder / "avisos.csv"), "out": str(folder / "run"), "epochs": 1, "min_class_count": 4}
    return train.fit(config.replace(**settings))


@pytest.fixture
def another_file(merged_run, tmp_path):
    """Return the path of 30 notices whose modes are all «Wear (WEA)», but for 2 merged and 5 never seen."""
    table = synthetic.generate(30, seed=12)
    table["modo_falla"] = "Wear (WEA)"
    table.loc[0:1, "modo_falla"] = "Rara (RAR)"
    table.loc[2:6, "modo_falla"] = "Nunca vista (NUN)"
    table["causa_falla"], table["prioridad"] = merged_run.classes["causa"][0], merged_run.classes["prioridad"][0]
    table.to_csv(tmp_path / "otro.csv", index=False)
    return tmp_path / "otro.csv"


def modes(evaluation):
    return [evaluation.classes["modo"][i] for i in evaluation.predictions["modo"].labels]


def test_evaluate_rows_with_unknown_labels_are_left_out_counted_and_named(merged_run, another_file, tmp_path, capsys):
    found = evaluate.evaluate(merged_run, another_file)
    assert "separador «,», codificación utf-8), 30 filas" in capsys.readouterr().out
    assert found.left_out == 5
    assert sorted(modes(found)) == ["Other (OTH)"] * 2 + ["Wear (WEA)"] * 23
    assert found.unknown == {"modo": {"Nunca vista (NUN)": 5}}
    assert "modo «Nunca vista (NUN)» (5)" in found.notes[0]
    saved = json.loads((found.save(tmp_path / "out") / "metrics.json").read_text(encoding="utf-8"))
    assert (saved["left_out"], saved["unknown_labels"]) == (5, found.unknown)


def test_evaluate_file_with_only_unknown_labels_raises_user_error_naming_some(run, tmp_path):
    table = synthetic.generate(20, seed=11)
    table["causa_falla"] = [f"Nunca {i:02d}" for i in range(20)]
    table.to_csv(tmp_path / "otro.csv", index=False)
    with pytest.raises(UserError, match=r"ninguna de las 20 filas: .*causa «Nunca 00» \(1\), .* y 15 más"):
        evaluate.evaluate(run, tmp_path / "otro.csv")


@pytest.mark.parametrize("merged", [None, "Other", ["Rara"], {"modo": ["Rara"]}, {"modo": {"Rara": 1}}, {"modo": None}])
def test_load_run_with_damaged_merged_classes_raises_user_error(run, tmp_path, merged):
    copy = shutil.copytree(run.path, tmp_path / "run")
    metadata = {**run.metadata, "data": {**run.metadata["data"], "merged": merged}}
    (copy / run_folder.CONFIG).write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(UserError, match="está dañado"):
        Run.load(copy)


def test_confusion_and_per_class_tables_match_the_predictions(evaluation):
    for head, part in evaluation.predictions.items():
        y, guess = part.labels, part.predicted
        confusion = evaluation.confusion(head)
        rows = confusion.sum(axis=1)
        assert rows.tolist() == sorted(rows, reverse=True)
        assert rows[rows > 0].to_dict() == {evaluation.classes[head][i]: (y == i).sum() for i in np.unique(y)}
        assert confusion.to_numpy().trace() == (y == guess).sum()
        assert evaluation.per_class(head)["filas"].sum() == len(y)
        pairs = evaluation.confused_pairs(head, most=10_000)
        assert pairs["filas"].sum() == (y != guess).sum()
        assert (pairs["verdadera"] != pairs["predicha"]).all()


def test_confused_pairs_name_the_words_that_add_most_to_the_wrong_class(evaluation, run):
    pair = evaluation.confused_pairs("causa").iloc[0]
    part, names = evaluation.predictions["causa"], run.classes["causa"]
    true, wrong = names.index(pair["verdadera"]), names.index(pair["predicha"])
    pulls = {}
    for row in np.flatnonzero((part.labels == true) & (part.predicted == wrong)):
        words = evaluation.texts[row].split()
        for word, values in zip(words, read_linear(run).contributions([words])["causa"][0], strict=True):
            word = word.strip(".,:;").lower()
            pulls[word] = pulls.get(word, 0) + values[wrong] - values[true]
    assert pair["palabras"].split(" · ") == sorted(pulls, key=pulls.get, reverse=True)[:3]
    assert (evaluation.confused_pairs("causa", most=50)["palabras"][10:] == "").all()


CLASSES = {"modo": ["a", "b", "c", "rara"]}


def answers(labels, predicted):
    """Return an evaluation of one label; every text occurs once."""
    labels, predicted = np.array(labels), np.array(predicted)
    texts = [f"aviso {'x' * row}" for row in range(len(labels))]
    predictions = {"modo": Predictions(np.ones(len(labels)), predicted, labels)}
    return evaluate.Evaluation("x", texts, texts, CLASSES, predictions)


def test_classes_confused_with_each_other_are_a_group_and_its_f1_is_of_other_rows():
    # The even rows propose: of 40 rows of a and b, half is taken for the other. The odd rows measure.
    labels = np.repeat([[0, 1, 2]], 80, axis=0).T.ravel()
    predicted = np.where(labels == 2, 2, np.resize([0, 0, 1, 0], 240) ^ (labels == 1))
    found = answers(labels, predicted).groups("modo")
    assert found["clases"].tolist() == ["a | b", "toda la etiqueta"]
    assert found["filas"].tolist() == [80, 120]
    assert "el F1 sería 1,000 y no 1,000; el macro, 1,000 y no 1,000 (120 avisos" in evaluate._group_note("modo", found)
    assert found["F1 separadas"].tolist() == found["F1 macro separadas"].tolist() == [1, 1]
    worse = answers(labels, np.where((np.arange(240) % 2 == 1) & (labels < 2), 2, predicted)).groups("modo")
    assert worse["clases"].tolist() == ["a | b", "toda la etiqueta"]
    assert worse["F1 juntas"][0] == 0


@pytest.mark.parametrize("predicted", [[0, 1, 2, 3], [0, 1, 2, 0]])
def test_class_that_is_swallowed_by_another_is_no_group(predicted):
    labels = np.repeat([0, 1, 2, 3], [100, 60, 40, 8])
    assert answers(labels, np.array(predicted)[labels]).groups("modo").empty


def test_save_evaluation_writes_every_row_and_never_overwrites(evaluation, tmp_path):
    folder = evaluation.save(tmp_path / "evaluation")
    rows = pd.read_csv(folder / "predictions.csv")
    assert len(rows) == len(evaluation.texts)
    assert {"id_aviso", "texto", "causa", "pred_causa", "conf_causa"} <= set(rows)
    with pytest.raises(UserError, match="no está vacía"):
        evaluation.save(folder)


def test_wrong_notices_are_all_listed_as_they_are_in_the_file_most_confident_first(evaluation, csv):
    table = pd.read_csv(csv, dtype=str).set_index("id_aviso")
    for head, column in (("modo", "modo_falla"), ("causa", "causa_falla")):
        wrong = evaluation.wrong(head)
        assert len(wrong) == (~evaluation.predictions[head].correct).sum() > 0
        assert wrong["confianza"].is_monotonic_decreasing
        for row in wrong.itertuples():
            source = table.loc[row.id_aviso]
            assert row.texto.startswith(" ".join(source["descripcion"].split()))
            assert row.predicha != row.verdadera
            assert row.verdadera in (source[column], "Other (OTH)", "Other")  # rare classes are merged


def test_saved_tables_have_at_most_four_decimals_and_whole_texts(evaluation, tmp_path):
    folder = evaluation.save(tmp_path / "evaluation")
    for path in folder.glob("*.csv"):
        numbers = re.findall(r"(?<![^,\n])\d+\.\d+(?![^,\r\n])", path.read_text(encoding="utf-8-sig"))
        assert max((len(number.split(".")[1]) for number in numbers), default=0) <= 4
    saved = pd.read_csv(folder / "wrong_causa.csv", dtype={"id_aviso": str})
    assert saved["texto"].tolist() == evaluation.wrong("causa")["texto"].tolist()


@pytest.mark.parametrize(("suffix", "encoding"), [(".csv", "cp1252"), (".xlsx", "utf-8-sig")])
def test_tables_of_an_evaluation_have_the_csv_format_of_the_file_and_four_decimals(run, tmp_path, suffix, encoding):
    table, path = synthetic.generate(40, seed=11), tmp_path / f"otro{suffix}"
    table.to_csv(path, sep=";", index=False, encoding=encoding) if suffix == ".csv" else table.to_excel(path)
    folder = evaluate.evaluate(run, path).save(tmp_path / "out")
    assert len(list(folder.glob("*.csv"))) == 13
    for file in folder.glob("*.csv"):
        text = file.read_bytes().decode(encoding)
        assert ";" in text.splitlines()[0]
        assert not re.search(r"(?<=;)\d+(\.\d+|,\d{5,})(?=[;\r\n])", text)
    assert re.search(r";0,\d{1,4}[;\r\n]", (folder / "per_class_causa.csv").read_bytes().decode(encoding))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_flat_metrics_match_scikit_learn(pairs):
    truth, guess = (np.array(side) for side in zip(*pairs, strict=True))
    flat = metrics.flat_metrics({"causa": truth}, {"causa": guess})
    assert flat["causa_f1"] == pytest.approx(f1_score(truth, guess, average="weighted", zero_division=0))
    assert flat["causa_accuracy"] == pytest.approx((truth == guess).mean())
    assert flat["causa_recall"] == pytest.approx(flat["causa_accuracy"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_confusion_counts_match_scikit_learn_without_zeros(pairs):
    truth, guess = (np.array(side) for side in zip(*pairs, strict=True))
    matrix = np.zeros((6, 6), int)
    triples = metrics.confusion_counts(truth, guess)
    for true, predicted, rows in triples:
        matrix[true, predicted] = rows
    np.testing.assert_array_equal(matrix, confusion_matrix(truth, guess, labels=range(6)))
    assert len(triples) == len(set(pairs))
    assert triples == json.loads(json.dumps(triples))


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_predict_keeps_rows_and_columns_and_leaves_rows_without_text_blank(run, tmp_path, suffix):
    table = pd.read_csv(ROOT / "data/example_iw69.csv", sep=";", dtype=str, keep_default_na=False)
    source = tmp_path / f"avisos{suffix}"
    table.to_csv(source, index=False) if suffix == ".csv" else table.to_excel(source, index=False)
    path = predict.save(predict.predict(run, source), tmp_path / f"out{suffix}")
    reader = pd.read_csv if suffix == ".csv" else partial(pd.read_excel, sheet_name="Sheet1")
    result = reader(path, dtype=str, keep_default_na=False)
    added = [f"{kind}_{head}" for head in run.classes for kind in COLUMNS]
    assert list(result.columns) == [*table.columns, *added]
    pd.testing.assert_frame_equal(result[table.columns], table)
    blank = table["descripcion"].isin(["", "nan"])
    assert blank.any()
    assert (result.loc[blank, added] == "").all(axis=None)
    assert set(result.loc[~blank, "pred_causa"]) <= set(run.classes["causa"])
    confidence = result.loc[~blank, "conf_causa"].astype(float)
    assert confidence.between(0, 1).all()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16"])
def test_prediction_of_a_csv_keeps_its_separator_encoding_and_decimal_mark(run, tmp_path, encoding):
    source = tmp_path / "avisos.csv"
    source.write_text("Descripción;Horas\nfuga en válvula;2,5\n;0,25\nruido en el motor;\n", encoding=encoding)
    path = predict.save(predict.predict(run, source), tmp_path / "out")
    assert path == tmp_path / "out.csv"
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8-sig")
    header, first, blank, _ = content.decode(encoding).splitlines()
    assert header.startswith(
        "Descripción;Horas;pred_modo;conf_modo;top2_modo;top3_modo;conjunto_modo;decision_modo;pred_causa;"
    )
    assert first.startswith("fuga en válvula;2,5;")
    assert all(re.fullmatch(r"[01],\d{1,4}", conf) for conf in first.split(";")[3::6])
    assert blank == ";0,25" + ";" * 18


def test_prediction_of_a_workbook_is_a_workbook_with_numbers_or_a_spanish_csv(run, tmp_path):
    source = tmp_path / "avisos.xlsx"
    pd.DataFrame({"Descripción": ["fuga en válvula", ""], "N": ["1", "2"]}).to_excel(source, index=False)
    predicted = predict.predict(run, source)
    path = predict.save(predicted, tmp_path / "out")
    assert path == tmp_path / "out.xlsx"
    confidence = pd.read_excel(path)["conf_modo"]
    assert 0 < confidence[0] <= 1
    assert np.isnan(confidence[1])
    written = predict.save(predicted, tmp_path / "out2", "csv").read_bytes()
    assert written.startswith("\ufeffDescripción;N;pred_modo;conf_modo;".encode())
    with pytest.raises(UserError, match="el formato pedido es csv"):
        predict.save(predicted, tmp_path / "otro.xlsx", "csv")


def test_book_opens_at_a_sheet_with_the_predictions_beside_the_text(run, tmp_path):
    table = pd.read_csv(ROOT / "data/example_iw69.csv", sep=";", dtype=str, keep_default_na=False).head(12)
    with pd.ExcelWriter(tmp_path / "a.xlsx", engine="openpyxl") as writer:
        table.to_excel(writer, sheet_name="Avisos", index=False)
        pd.DataFrame({"otra": ["hoja"]}).to_excel(writer, sheet_name="predicciones", index=False)
        writer.sheets["predicciones"].print_area = "A1:A2"
    predicted = predict.predict(run, tmp_path / "a.xlsx")
    book = load_workbook(predict.save(predicted, tmp_path / "p.xlsx"))
    assert book.sheetnames == ["Predicciones_2", "Avisos", "predicciones"]
    assert [sheet.title for sheet in book if sheet.sheet_view.tabSelected] == [book.active.title] == ["Predicciones_2"]
    assert "predicciones" in book["predicciones"].print_area
    sheet = book.active
    titles = [cell.value for cell in sheet[1]]
    assert titles[:5] == ["aviso", "descripcion", "pred_modo", "conf_modo", "decision_modo"]
    assert sheet["D2"].number_format == "0%"
    assert sheet["D2"].value == predicted.table["conf_modo"].iloc[0]
    assert sheet["A1"].font.bold
    assert sheet["B2"].alignment.wrap_text
    assert (sheet.page_setup.orientation, sheet.sheet_properties.pageSetUpPr.fitToPage) == ("landscape", True)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_predict_file_with_titles_in_row_4_keeps_them_where_they_are(run, tmp_path, suffix, capsys):
    rows = [["Reporte de avisos 2024"], ["Planta", "Norte"], [], ["Nº aviso", "Texto breve", "Nota"]]
    rows += [[str(i), text, "x"] for i, text in enumerate(["fuga en válvula", "", "ruido en el motor"])]
    source = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        source.write_text("\n".join(";".join(row) for row in rows), encoding="cp1252")
    else:
        pd.DataFrame(rows).to_excel(source, index=False, header=False)
    path = predict.save(predict.predict(run, source), tmp_path / "out")
    assert "los títulos están en la fila 4; se saltaron 3 filas" in capsys.readouterr().out
    written = read_table(path, lambda cell: cell == "Texto breve", "Sheet1")
    assert written.first_row == 5
    result = written.table.replace("", np.nan)
    assert list(result.columns[:4]) == ["Nº aviso", "Texto breve", "Nota", "pred_modo"]
    assert result["pred_modo"].notna().tolist() == [True, False, True]


def test_predict_row_alone_or_with_others_gives_the_same_result(run, tmp_path):
    table = synthetic.generate(70, seed=5)
    table.to_csv(tmp_path / "a.csv", index=False)
    table.iloc[[10]].to_csv(tmp_path / "b.csv", index=False)
    together = predict.predict(run, tmp_path / "a.csv").table.iloc[10]
    alone = predict.predict(run, tmp_path / "b.csv").table.iloc[0]
    assert together["pred_causa"] == alone["pred_causa"]
    assert float(together["conf_causa"]) == pytest.approx(float(alone["conf_causa"]), abs=2e-4)


def test_predict_file_with_prediction_columns_or_existing_output_raises_user_error(run, csv, tmp_path):
    predicted = predict.predict(run, csv)
    path = predict.save(predicted, tmp_path / "p.csv")
    with pytest.raises(UserError, match="ya tiene estas columnas: pred_modo"):
        predict.predict(run, path)
    with pytest.raises(UserError, match="Ya existe"):
        predict.save(predicted, path)


def test_predict_file_with_only_descriptions_succeeds(run, tmp_path):
    (tmp_path / "solo.csv").write_text("Descripción\nfuga en válvula\n", encoding="cp1252")
    assert predict.predict(run, tmp_path / "solo.csv").table["pred_modo"].iloc[0] in run.classes["modo"]


def test_figures_of_a_run_are_drawn_with_a_caption(run, evaluation, tmp_path):
    lengths = np.random.default_rng(0).integers(5, 90, 300)
    figures = {
        "curves": training.learning_curves(run),
        "lengths": training.token_lengths(lengths, 64),
        "confusion": quality.confusion(evaluation.confusion("causa"), "Confusión"),
    }
    for name, figure in figures.items():
        path = tmp_path / f"{name}.png"
        figure.savefig(path)
        assert path.stat().st_size > 5_000
        assert figure.get_supxlabel()


def test_run_says_which_column_of_its_text_a_file_lacks_and_gives_no_verdict(run, tmp_path):
    table = synthetic.generate(40, seed=5)
    table.to_csv(tmp_path / "whole.csv", index=False)
    table.drop(columns="familia_equipo").to_csv(tmp_path / "without.csv", index=False)
    table.assign(familia_equipo="").to_csv(tmp_path / "empty.csv", index=False)
    assert not any("Faltan datos" in note for note in predict.predict(run, tmp_path / "whole.csv").notes)
    for name in ("without", "empty"):
        notes = predict.predict(run, tmp_path / f"{name}.csv").notes
        assert "Faltan datos de los que la corrida aprendió: «familia_equipo» (aquí, el 0 %; al entrenar" in notes[0]
        assert not any("sirve" in note for note in notes)


def test_values_that_the_run_has_not_seen_are_named_and_have_no_verdict(run, tmp_path):
    table = synthetic.generate(40, seed=5)
    table.assign(familia_equipo="TURBINA").to_csv(tmp_path / "a.csv", index=False)
    table.assign(familia_equipo=table["familia_equipo"].str.lower()).to_csv(tmp_path / "b.csv", index=False)
    notes = predict.predict(run, tmp_path / "a.csv").notes
    assert "«familia_equipo» tiene valores que la corrida no ha visto (TURBINA; el 100 % de los avisos)" in notes[0]
    assert not any("sirve" in note for note in notes)
    assert not any("no ha visto" in note for note in predict.predict(run, tmp_path / "b.csv").notes)


def test_texts_unlike_those_of_the_training_are_named_and_have_no_verdict(run, csv, tmp_path):
    english = ["Replace the broken hydraulic hose on the bucket", "Engine will not start after the night shift"]
    table = synthetic.generate(40, seed=5)
    table.assign(descripcion=english * 20).to_csv(tmp_path / "english.csv", index=False)
    for result in (predict.predict(run, tmp_path / "english.csv"), evaluate.evaluate(run, tmp_path / "english.csv")):
        assert "El 100 % de los textos tiene poco en común con los avisos de entrenamiento" in result.notes[0]
        assert not any("sirve" in note for note in result.notes)
    assert not any("poco en común" in note for note in predict.predict(run, csv).notes)


def test_predict_takes_the_column_that_the_user_names(run, tmp_path):
    table = synthetic.generate(40, seed=5).rename(columns={"descripcion": "Lo que pasó"})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=r"--columns descripcion"):
        predict.predict(run, tmp_path / "a.csv")
    named = predict.predict(run, tmp_path / "a.csv", columns={"descripcion": "lo que paso"})
    assert (named.table["pred_modo"] != "").all()
    with pytest.raises(UserError, match="La columna de equipo, «Otra» no existe"):
        predict.predict(run, tmp_path / "a.csv", columns={"descripcion": "Lo que pasó", "equipo": "Otra"})


def test_predictions_of_two_labels_that_never_occur_together_are_counted(run, csv, monkeypatch):
    assert not any("no se dan juntos" in note for note in predict.predict(run, csv).notes)
    monkeypatch.setitem(run.metrics, "pairs", [[0, 0]])
    (note,) = [note for note in predict.predict(run, csv).notes if "no se dan juntos" in note]
    assert note.startswith("En el ")
    assert "modo y causa no se dan juntos en ningún aviso del entrenamiento" in note


@pytest.fixture(scope="module")
def ruled(config, tmp_path_factory):
    """Return a run of notices whose priority follows from two columns, and 60 other notices of the same rule."""
    folder = tmp_path_factory.mktemp("ruled")
    table = synthetic.generate(460, seed=6)
    rng = np.random.default_rng(0)
    table["Indicador ABC"], table["Parada"] = rng.choice(["1", "2", "3"], 460), rng.choice(["X", ""], 460)
    table["prioridad"] = [
        "1-Critica" if stopped and abc != "3" else "2-Alta" if stopped or abc == "1" else "3-Media"
        for abc, stopped in zip(table["Indicador ABC"], table["Parada"], strict=True)
    ]
    table[:400].to_csv(folder / "avisos.csv", index=False)
    settings = {"data": str(folder / "avisos.csv"), "out": str(folder / "run"), "epochs": 1}
    return train.fit(config.replace(**settings)), table[400:].reset_index(drop=True)


def test_columns_that_decide_a_label_are_used_from_training_to_evaluation(ruled, tmp_path):
    run, others = ruled
    assert run.metrics["fields"]["prioridad"]["f1"] > 0.9
    assert run.metrics["linear"]["test"]["prioridad_f1"] > 0.9
    assert evaluate.evaluate(run).metrics == pytest.approx(run.metrics["test"], abs=1e-12)
    others.assign(**{"Indicador ABC": others["Indicador ABC"] + ".0"}).to_csv(tmp_path / "nuevos.csv", index=False)
    table = predict.predict(run, tmp_path / "nuevos.csv", "linear").table  # 2.0 is what was learnt as 2
    assert (table["pred_prioridad"] == others["prioridad"]).mean() > 0.9


def test_file_without_a_column_that_decided_or_with_other_values_says_so(ruled, tmp_path):
    run, others = ruled
    others.drop(columns="Indicador ABC").to_csv(tmp_path / "sin.csv", index=False)
    others.assign(**{"Indicador ABC": "Z"}).to_csv(tmp_path / "otros.csv", index=False)
    assert any("Faltan datos" in note and "«Indicador ABC»" in note for note in _notes(run, tmp_path / "sin.csv"))
    assert any(
        "«Indicador ABC» tiene valores que la corrida no ha visto (z; el 100 % de los avisos)" in note
        for note in _notes(run, tmp_path / "otros.csv")
    )


def _notes(run, path):
    return predict.predict(run, path).notes
