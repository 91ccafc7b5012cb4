"""What a training reports of its quality: the metrics of each model, their comparison, verdicts; `evaluate` agrees."""

import json

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.cli import main as cli
from ocensa_nb.config import AUTO, SOURCES
from ocensa_nb.evaluation.evaluate import evaluate
from ocensa_nb.evaluation.metrics import metrics_of, predictions_of
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models.save import read_linear
from ocensa_nb.notebook.suite import models_table
from ocensa_nb.paths import ROOT
from ocensa_nb.training.quality import fit_linear, report

SAP = ROOT / "data/example_iw69.csv"


@pytest.mark.parametrize("source", [AUTO, *SOURCES])
def test_recorded_metrics_are_those_of_the_saved_models(run, notices, source):
    recorded = run.metrics if source == AUTO else run.metrics[source]
    for side in ("val", "test"):
        rows = notices.split[side]
        found = Predictor.load(run).probabilities(
            [notices.texts[row] for row in rows], notices.fields.iloc[rows], source
        )
        labels = {head: y[rows] for head, y in notices.labels.items()}
        assert recorded[side] == pytest.approx(metrics_of(predictions_of(found, labels)))


def test_linear_never_sees_a_validation_or_test_row(run, notices):
    relabelled = {head: y.copy() for head, y in notices.labels.items()}
    others = np.r_[notices.split["val"], notices.split["test"]]
    for y in relabelled.values():
        y[others] = 0
    texts = ["otro texto" if row in set(others.tolist()) else text for row, text in enumerate(notices.texts)]
    fitted = fit_linear(run.config, type(notices)(**{**vars(notices), "labels": relabelled, "texts": texts}))
    for head, weights in read_linear(run).weights.items():
        np.testing.assert_array_equal(fitted.model.weights[head], weights)


def test_report_judges_every_label_first_in_few_lines_and_compares_the_models_if_verbose(run):
    lines = report(run.metrics)
    assert [line.split(":")[0] for line in lines[: len(run.classes)]] == list(run.classes)
    assert all("sirve" in line for line in lines[: len(run.classes)])
    assert len(lines) <= 10  # twelve with the two of `train`
    for head in run.classes:
        assert not any(line.startswith(f"En {head}, ") for line in lines)
        assert any(line.startswith(f"En {head}, ") for line in report(run.metrics, verbose=True))
    assert sorted(run.metrics["sources"]) == sorted(run.classes)
    assert all(0 <= error <= 1 for both in run.metrics["calibration"].values() for error in both.values())


def test_encoder_that_learnt_nothing_is_reported_and_does_not_predict(run):
    assert "En modo, el modelo simple va mejor que el codificador" in " ".join(report(run.metrics, verbose=True))
    assert run.metrics["test"]["f1"] > run.metrics["encoder"]["test"]["f1"] + 0.1


def test_models_table_has_a_row_per_label_and_names_what_predicts(run):
    table = models_table(run.metrics)
    assert list(table.index) == list(run.classes)
    assert set(table["predice"]) <= {"modelo simple", "codificador", "mezcla"}
    assert table.loc["causa", "F1 modelo simple"] == round(run.metrics["linear"]["test"]["causa_f1"], 3)


@pytest.mark.parametrize("source", [AUTO, *SOURCES])
def test_evaluate_with_a_source_has_its_recorded_metrics(run, source):
    found = evaluate(run, source=source)
    assert found.metrics == pytest.approx((run.metrics if source == AUTO else run.metrics[source])["test"])
    assert found.record()["models"].keys() == set(SOURCES)
    assert any(note.startswith("modo: predice") for note in found.notes)
    if source == AUTO:
        verdicts = [verdict["sentence"] for verdict in run.metrics["verdict"].values()]
        assert found.notes[: len(run.classes)] == verdicts


def test_predict_with_the_linear_has_its_classes_and_confidence(run):
    predicted = predict(run, SAP, "linear")
    table = predicted.table
    scored = table[table["pred_causa"] != ""]
    assert len(scored) > 50
    assert scored["conf_causa"].between(0, 1).all()
    assert predicted.notes[0].count("el modelo simple") == len(run.classes)
    assert not table["pred_causa"].equals(predict(run, SAP, "encoder").table["pred_causa"])


def test_predict_without_choice_says_what_each_label_is_good_for(run, csv):
    notes = predict(run, csv).notes
    assert all(any(note.startswith(f"{head}: ") for note in notes) for head in run.classes)


def test_verbs_with_the_option_with_use_that_model(run, tmp_path):
    out, result = tmp_path / "p.csv", tmp_path / "p.json"
    arguments = ["predict", "--run", str(run.path), "--data", str(SAP), "--out", str(out), "--with", "linear"]
    assert cli.main([*arguments, "--json", str(result)]) == 0
    assert "el modelo simple" in json.loads(result.read_text(encoding="utf-8"))["notes"][0]
    assert len(pd.read_csv(out, sep=";", dtype=str)) == 300
    folder = str(tmp_path / "e")
    assert cli.main(["evaluate", "--run", str(run.path), "--out", folder, "--with", "encoder"]) == 0
    saved = json.loads((tmp_path / "e/metrics.json").read_text(encoding="utf-8"))
    assert saved["metrics"] == pytest.approx(run.metrics["encoder"]["test"])


def test_option_with_an_unknown_model_is_exit_code_2(run, tmp_path, capsys):
    arguments = ["predict", "--run", str(run.path), "--data", str(SAP), "--out", str(tmp_path / "p.csv")]
    assert cli.main([*arguments, "--with", "svm"]) == 2
    assert "--with: el valor «svm» no existe" in capsys.readouterr().err
