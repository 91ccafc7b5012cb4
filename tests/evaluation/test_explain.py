"""One notice explained: what each word adds, against the models themselves and a file with the same notice."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import explain as explaining
from ocensa_nb.evaluation import predictor as predicting
from ocensa_nb.evaluation.explain import explain
from ocensa_nb.evaluation.predict import predict
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.models.linear import LinearModel, count_ngrams
from tests.helpers import forked

TEXT = "fuga de aceite por el sello de la bomba p-101"
FIELDS = {"componente": "Sello mecánico", "Familia equipo": "BOMBA"}


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.load(run)


@pytest.mark.parametrize("fields", [{}, FIELDS])
def test_shares_of_the_linear_model_and_its_bias_sum_to_the_difference_of_decision_values(predictor, fields):
    notice = explain(predictor, TEXT, fields, "linear")
    for head, label in notice.labels.items():
        names = predictor.run.classes[head]
        best, second = (names.index(name) for name, _ in label.likeliest[:2])
        values = explaining.read_typed(predictor, TEXT, fields).fields
        logits, biases = predictor.linear.logits([notice.text], values)[head][0], predictor.linear.biases[head]
        total = label.shares["linear"].sum() + biases[best] - biases[second]
        assert total == pytest.approx(logits[best] - logits[second], abs=1e-5)


def test_shares_of_the_encoder_equal_a_plain_loop_over_masked_texts(predictor):
    notice = explain(predictor, TEXT, FIELDS, "encoder")
    for head, label in notice.labels.items():
        best, second = (predictor.run.classes[head].index(name) for name, _ in label.likeliest[:2])

        def margin(text, head=head, best=best, second=second):
            values = predictor.logits([text], models=["encoder"])["encoder"][head][0]
            return values[best] - values[second]

        for number, share in enumerate(label.shares["encoder"]):
            masked = [*label.pieces[:number], "[UNK]", *label.pieces[number + 1 :]]  # `tiny` has no mask token
            assert share == pytest.approx(margin(notice.text) - margin(" ".join(masked)), abs=1e-4)


@pytest.mark.parametrize(("family", "target"), [("BOMBA", 0.9), ("BOMBA", 0.6), ("COHETE", 0.9), ("", 0.9)])
def test_typed_notice_has_the_text_the_prediction_and_the_decision_of_a_file(predictor, tmp_path, family, target):
    path, fields = tmp_path / "uno.csv", FIELDS | {"Familia equipo": family}
    columns = {"descripcion": TEXT, "familia_equipo": family, "componente": FIELDS["componente"]}
    pd.DataFrame([columns]).to_csv(path, index=False)
    predicted, notice = predict(predictor.run, path, target=target), explain(predictor, TEXT, fields, target=target)
    assert notice.text == predicted.file.texts.iloc[0]
    for head, label in notice.labels.items():
        row = predicted.table.iloc[0]
        assert label.likeliest[0] == (row[f"pred_{head}"], pytest.approx(row[f"conf_{head}"], abs=1e-4))
        assert (label.suggested, label.decision) == (row[f"conjunto_{head}"], row[f"decision_{head}"])


def test_pieces_are_the_words_of_the_description_and_each_field(predictor):
    notice = explain(predictor, TEXT, FIELDS, "linear")
    *words, family, component = notice.labels["modo"].pieces
    assert words == [*TEXT.split()[:-1], "p-101."]
    assert (family, component) == ("Familia: BOMBA.", "Componente: Sello mecánico")


@pytest.fixture(scope="module")
def with_column(run, notices):
    """Return a predictor whose linear model reads a column that decides the priority."""
    sizes = {head: len(names) for head, names in notices.classes.items()}
    fields = pd.DataFrame({"Indicador ABC": notices.labels["prioridad"].astype(str)})
    terms = {"prioridad": [("Indicador ABC",)]}
    data = {**run.metadata["data"], "fields": ["Indicador ABC"], "values": {"Indicador ABC": list("0123")}}
    predictor = Predictor.load(dataclasses.replace(run, metadata={**run.metadata, "data": data}))
    vars(predictor)["linear"] = LinearModel.fit(count_ngrams(notices.texts), notices.labels, sizes, fields, terms)
    return predictor


@pytest.mark.parametrize("value", ["2", "2.0", ""])
def test_column_that_decides_is_a_piece_and_its_share_is_exact(with_column, value):
    label = explain(with_column, TEXT, {"indicador abc": value}, "linear").labels["prioridad"]
    assert label.pieces[-1] == f"Indicador ABC = {value or '(vacío)'}"
    names, linear = with_column.run.classes["prioridad"], with_column.linear
    best, second = (names.index(name) for name, _ in label.likeliest[:2])
    logits = linear.logits([TEXT], pd.DataFrame({"Indicador ABC": [value[:1]]}))["prioridad"][0]
    total = label.shares["linear"].sum() + linear.biases["prioridad"][best] - linear.biases["prioridad"][second]
    assert total == pytest.approx(logits[best] - logits[second], abs=1e-5)
    if value:
        assert (best, label.table()["palabra"][0]) == (2, label.pieces[-1])


def test_column_is_a_field_and_the_encoder_gives_it_no_share(with_column):
    labels = explain(with_column, TEXT, {"Indicador ABC": "9"}, "blend").labels
    assert labels["prioridad"].shares["encoder"][-1] == 0
    assert labels["modo"].pieces[-1] == "p-101"
    notes = explain(with_column, TEXT, {"Indicador ABC": "9"}, "linear").notes
    assert "«Indicador ABC» tiene valores que la corrida no ha visto (9; " in notes[-1]
    with pytest.raises(UserError, match="Indicador ABC"):
        explain(with_column, TEXT, {"Indicador": "1"})


def test_table_has_a_column_per_model_that_decides_strongest_word_first(predictor):
    label = explain(predictor, TEXT, {}, "blend").labels["modo"]
    assert list(label.table()) == ["palabra", "modelo simple", "codificador"]
    assert label.table()["palabra"][0] == label.pieces[np.abs(label.strengths).argmax()]
    assert list(explain(predictor, TEXT, {}, "linear").labels["modo"].table()) == ["palabra", "modelo simple"]


def test_models_that_disagree_are_named(predictor, monkeypatch):
    masked = Predictor.masked_logits

    def opposite(self, pieces):
        return {head: -values for head, values in masked(self, pieces).items()}

    def as_the_linear_model(self, pieces):
        texts = [" ".join([*pieces[:n], *pieces[n + 1 :]]) for n in range(len(pieces))]
        return self.linear.logits([" ".join(pieces), *texts])

    monkeypatch.setattr(Predictor, "masked_logits", as_the_linear_model)
    assert not any(
        "Por sí solo" in note for label in explain(predictor, TEXT, {}, "blend").labels.values() for note in label.notes
    )
    monkeypatch.setattr(Predictor, "masked_logits", opposite)
    assert any(
        "Por sí solo" in note for label in explain(predictor, TEXT, {}, "blend").labels.values() for note in label.notes
    )


def test_encoder_is_not_loaded_if_no_label_needs_it(run, monkeypatch):
    monkeypatch.setattr(predicting, "load_model", lambda run: pytest.fail("the encoder was loaded"))
    explain(Predictor.load(run), TEXT, {}, "linear")


def test_fields_that_are_missing_or_new_to_the_run_are_said(predictor):
    (missing,) = explain(predictor, TEXT, {}, "linear").notes
    assert "Faltan datos" in missing
    assert "«familia_equipo»" in missing
    assert "«componente»" in missing
    notes = explain(predictor, TEXT, {"familia_equipo": "COHETE"}, "linear").notes
    assert "«familia_equipo» tiene valores que la corrida no ha visto (COHETE; " in notes[-1]


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (TEXT, {"componete": "1"}, "¿Quiso decir «componente»?"),
        (TEXT, {"modo_falla": "Wear (WEA)"}, "El campo «modo_falla» no existe"),
        (" ", {}, "no tiene texto"),
        ("-----", {}, "no tiene texto"),
    ],
)
def test_wrong_notice_raises_user_error(predictor, text, fields, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        explain(predictor, text, fields)


@pytest.mark.parametrize("word", ["componente", "=3", " =3"])
def test_field_without_name_or_value_raises_user_error(word):
    with pytest.raises(UserError, match="NOMBRE=VALOR"):
        explaining.parse_fields([word])


def test_command_explains_one_notice(run, tmp_path):
    command = [
        "predict",
        "--run",
        run.path,
        "--text",
        TEXT,
        "--field",
        "componente=a=b",
        "--field",
        "Familia equipo=BOMBA",
    ]
    done = forked.run(*command, "--json", tmp_path / "notice.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "notice.json").read_text(encoding="utf-8"))
    assert result["text"] == f"{TEXT}. Familia: BOMBA. Componente: a=b"
    for head, label in result["labels"].items():
        assert f"{head}: {label['likeliest'][0][0]}, confianza " in done.stdout
        assert all(len(shares) == len(label["pieces"]) for shares in label["shares"].values())


@pytest.mark.parametrize("more", [["--data", "a.csv"], ["--out", "b.csv"], ["--data", "a.csv", "--out", "b.csv"]])
def test_command_with_a_text_and_a_file_is_refused(run, more):
    done = forked.run("predict", "--run", run.path, "--text", TEXT, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Indique --data y --out" in done.stderr
