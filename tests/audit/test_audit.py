"""The audit of whole files: ordinary ones, and those in which little can be measured."""

import json

import numpy as np
import pandas as pd
import pytest

from ocensa_nb.audit import label_errors
from ocensa_nb.audit.audit import audit, named_settings, settings
from ocensa_nb.audit.label_errors import FOLDS, REVIEW_COLUMNS, fold_rows
from ocensa_nb.audit.verdict import CAN, CANNOT, NO_LEARNING, UNKNOWN
from ocensa_nb.cli import main as cli
from ocensa_nb.config import from_recipe
from ocensa_nb.data import synthetic
from ocensa_nb.errors import UserError
from ocensa_nb.training.train import load_notices


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a table of notices and returns its path."""

    def write(frame):
        synthetic.write_csv(frame, tmp_path / "avisos.csv")
        return str(tmp_path / "avisos.csv")

    return write


@pytest.fixture(scope="module")
def found(csv):
    return audit(settings(str(csv)))


def test_audit_splits_the_rows_as_a_training_with_the_same_seed(found, csv):
    split = load_notices(from_recipe("cpu", {"data": str(csv), "model": "tiny"})).split
    for head, answers in found.answers.items():
        for side in ("train", "val", "test"):
            np.testing.assert_array_equal(found.data.labels[head].rows[answers.split[side]], split[side])


def test_every_label_has_a_verdict_a_range_and_a_list_for_review(found):
    assert list(found.verdicts) == ["modo", "causa", "prioridad"]
    for head, expected in found.expected.items():
        assert 0 <= expected.f1[0] <= expected.linear_f1 <= expected.f1[1] <= 1
        assert found.verdicts[head].sentence.startswith(f"{head}: ")
        names = [name for name in REVIEW_COLUMNS if not name.startswith("correcta_")]
        assert [name for name in found.review[head] if name != f"correcta_{head}"] == names
        assert found.answers[head].probabilities[head].sum(axis=1) == pytest.approx(1)
    assert list(found.summary()["etiqueta"]) == list(found.verdicts)


def test_audit_twice_gives_the_same_result(found, csv):
    assert audit(settings(str(csv))).to_dict() == found.to_dict()


def test_folds_never_separate_a_repeated_text_nor_mix_with_the_split(csv):
    config = settings(str(csv))
    rng = np.random.default_rng(0)
    groups = np.unique(rng.integers(0, 150, 400), return_inverse=True)[1]
    split, folds = fold_rows(groups, {"modo": rng.integers(0, 3, 400)}, config)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert set(np.flatnonzero(folds == 0)) == {*split["val"], *split["test"]}
    assert set(folds) == set(range(FOLDS))


def test_wrong_labels_and_contradictions_come_first_in_the_list_for_review(file, monkeypatch):
    monkeypatch.setattr(label_errors, "has_cleanlab", lambda: False)
    frame = synthetic.generate(1_500, seed=4, noise={"modo": 0, "causa": 0, "prioridad": 0})
    clear = frame["modo_falla"].value_counts().index[:2]
    frame = frame[frame["modo_falla"].isin(clear)].reset_index(drop=True)
    wrong = [1, 5, 9]
    swap = dict(zip(clear, clear[::-1], strict=True))
    frame.loc[wrong, "modo_falla"] = frame.loc[wrong, "modo_falla"].map(swap)
    twin = frame.iloc[[20]].assign(id_aviso=1, modo_falla=frame.loc[[20], "modo_falla"].map(swap))
    frame = pd.concat([frame, twin], ignore_index=True)
    table = audit(settings(file(frame), ["modo"])).review["modo"]
    first = table.head(8)["id_aviso"].tolist()
    assert {str(frame.loc[row, "id_aviso"]) for row in wrong} <= set(first)
    assert table["id_aviso"].iloc[0] == "1"  # contradicts another notice, and the model too
    assert table["mismo_texto"].iloc[0] == str(frame.loc[20, "id_aviso"])
    assert list(table["orden"]) == list(range(1, len(table) + 1))


def test_ids_of_a_text_in_thousands_of_notices_fit_in_a_cell_of_excel(file):
    frame = synthetic.generate(200, seed=1)
    repeated = pd.concat([frame.iloc[[0]]] * 1_400, ignore_index=True)  # 37,000 characters of another class
    repeated["modo_falla"] = ["Clase A", "Clase B"] * 700
    repeated["id_aviso"] = np.arange(1_400)
    repeated["id_aviso"] = "A" * 50 + repeated["id_aviso"].astype(str)
    table = audit(settings(file(pd.concat([frame, repeated])), ["modo"])).review["modo"]
    others = table.loc[table["id_aviso"].str.startswith("AAA"), "mismo_texto"]
    assert (others.str.count(", ") == label_errors.MOST_IDS - 1).all()
    assert others.str.contains(r" y 6[89]\d más$").all()
    assert table["mismo_texto"].str.len().max() < 32_767


def test_label_missing_in_most_rows_is_audited_on_those_that_have_it(file):
    frame = synthetic.generate(300, seed=1)
    frame.loc[60:, "causa_falla"] = "nan"
    found = audit(settings(file(frame)))
    assert len(found.data.labels["causa"].rows) == 60
    assert len(found.data.labels["modo"].rows) == 300
    assert "causa" in found.expected
    rows = {head: label.rows for head, label in found.data.labels.items()}
    tested = {head: rows[head][answers.split["test"]].tolist() for head, answers in found.answers.items()}
    assert tested["modo"] == tested["prioridad"] != tested["causa"]  # so not the test rows of one training
    assert any("usa los que las tienen todas: 60" in line for line in found.data.lines())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.head(5), "Hacen falta al menos 10 avisos"),
        (lambda frame: frame.assign(modo_falla="Wear (WEA)"), "una sola clase, «Wear (WEA)»"),
        (lambda frame: frame.assign(descripcion="fuga", componente="", familia_equipo=""), "Textos distintos: 1."),
        (lambda frame: frame.assign(modo_falla=["Wear (WEA)", *[""] * (len(frame) - 1)]), "Hacen falta al menos 10"),
    ],
)
def test_label_that_cannot_be_measured_says_why(file, tmp_path, change, reason):
    found = audit(settings(file(change(synthetic.generate(80, seed=1))), ["modo"]))
    assert found.verdicts["modo"].level == UNKNOWN
    assert reason in found.verdicts["modo"].sentence
    (tmp_path / "out").mkdir()
    found.write(tmp_path / "out")
    assert json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8"))["labels"]["modo"]["expected"] is None


def test_classes_with_one_row_are_noted_and_do_not_stop_the_audit(file):
    frame = synthetic.generate(200, seed=1)
    frame["prioridad"] = np.where(frame.index == 7, "Rara", frame["prioridad"])
    table = audit(settings(file(frame), ["prioridad"])).classes["prioridad"].set_index("clase")
    assert table.at["Rara", "avisos"] == 1
    assert table.at["Rara", "nota"] == NO_LEARNING


def test_rare_classes_of_a_label_with_six_classes_say_which_option_joins_them(file):
    frame = synthetic.generate(200, seed=1)
    frame["seis"] = np.where(frame.index < 3, "Rara", frame["modo_falla"])
    frame["tres"] = np.where(frame.index < 3, "Rara", np.where(frame.index % 2, "Par", "Impar"))
    path = file(frame)
    columns = {"seis": "seis", "tres": "tres"}
    assert frame["seis"].nunique() >= 6
    found = audit(settings(path, columns, columns=columns))
    for head, said in (("seis", True), ("tres", False)):
        assert "muy pocos para aprenderlas" in " ".join(found.verdicts[head].actions)
        assert ("--min-class-count 10 " in " ".join(found.verdicts[head].actions)) is said
    joined = audit(settings(path, columns, columns=columns, min_class_count=10))
    assert "Rara" not in joined.data.labels["seis"].classes
    assert "Rara" in joined.data.labels["tres"].classes


def test_label_of_random_classes_cannot_be_learnt_and_a_copy_of_the_text_can(file):
    frame = synthetic.generate(500, seed=1)
    frame["azar"] = np.random.default_rng(0).choice(list("abc"), 500)
    frame["copia"] = frame["familia_equipo"]
    found = audit(settings(file(frame), ["azar", "copia"], columns={"azar": "azar", "copia": "copia"}))
    assert found.verdicts["azar"].level == CANNOT
    assert found.verdicts["copia"].level == CAN
    assert "Con solo «familia_equipo» se acierta copia" in " ".join(found.verdicts["copia"].reasons)


def test_audit_without_any_label_raises_user_error(file):
    frame = synthetic.generate(50, seed=1).assign(modo_falla="")
    with pytest.raises(UserError, match="ningún aviso tiene texto y alguna de las etiquetas modo"):
        audit(settings(file(frame), ["modo"]))


def test_verb_writes_a_complete_folder_and_json_and_overwrites_nothing(csv, tmp_path, capsys):
    out, result = tmp_path / "out", tmp_path / "r.json"
    command = ["audit", "--data", str(csv), "--heads", "prioridad", "--out", str(out)]
    assert cli.main([*command, "--json", str(result)]) == 0
    assert "prioridad: " in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("audit.json", "verdicts.txt", "summary.csv", "contradictions.csv", "near_duplicates.csv", "expected_f1.png"),
        *("columns_prioridad.csv", "classes_prioridad.csv"),
        *("review_prioridad.csv", "review_prioridad.xlsx", "review_columns.csv"),
    }
    assert json.loads(result.read_text(encoding="utf-8"))["labels"]["prioridad"]["verdict"]["level"]
    assert len(pd.read_excel(out / "review_prioridad.xlsx")) > 0
    before = sorted((path.name, path.stat().st_mtime_ns) for path in out.iterdir())
    assert cli.main(command) == 1
    assert "no se sobrescribe nada" in capsys.readouterr().err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no.csv"], "No existe el archivo «no.csv»"),
        (["--heads"], "heads está vacío"),
        (["--heads", "MODO"], "no sirve de etiqueta"),
        (["--columns", "cauza", "x"], "¿Quiso decir «causa»?"),
        (["--seed", "-1"], "seed = -1"),
    ],
)
def test_verb_with_bad_input_exits_1_with_a_message_and_writes_nothing(arguments, message, tmp_path, capsys):
    assert cli.main(["audit", "--out", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_form_of_the_notebook_gives_the_settings_of_the_verb():
    found = named_settings("a.csv", "modo, otra", "otra: Mi columna, modo:Modo", 3)
    assert found == settings("a.csv", ["modo", "otra"], columns={"otra": "Mi columna", "modo": "Modo"}, seed=3)
    assert found == named_settings("a.csv", ["modo", "otra"], {"otra": "Mi columna", "modo": "Modo"}, 3)  # papermill -y
    with pytest.raises(UserError, match="«otra» no es un par"):
        named_settings("a.csv", "otra", "otra", 3)


@pytest.mark.parametrize("value", [None, 3, ["causa"], {"causa": "Mi columna"}, True])
@pytest.mark.parametrize("name", ["data", "heads", "columns", "seed"])
def test_form_with_a_value_of_another_type_raises_user_error(name, value):
    if (name, value) in (("seed", 3), ("heads", ["causa"]), ("columns", {"causa": "Mi columna"})):
        return
    values = {"data": "a.csv", "heads": "causa", "columns": "", "seed": 1, name: value}
    with pytest.raises(UserError, match=rf"^{name}"):
        named_settings(**values)
