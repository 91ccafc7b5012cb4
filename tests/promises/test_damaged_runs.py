"""Damage that the manifest of a run does not show, because it was made anew: found before any notice is scored."""

import json
import shutil
from pathlib import Path

import pytest

from ocensa_nb import cli
from ocensa_nb.encoders import token_table
from ocensa_nb.errors import UserError
from ocensa_nb.models import saved_model
from ocensa_nb.storage import manifest, run_folder
from ocensa_nb.storage.run_folder import Run
from ocensa_nb.training import train


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def change(folder, name, edit):
    """Edit a JSON file of a run, and make its manifest anew."""
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    edit(value)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    manifest.write(folder)


def beyond_the_vocabulary(tokenizer):
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 10**6


def template_beyond_the_vocabulary(tokenizer):
    tokenizer["post_processor"]["cls"][1] = 10**6


@pytest.mark.parametrize("edit", [beyond_the_vocabulary, template_beyond_the_vocabulary])
def test_token_ids_beyond_the_embeddings_are_refused(edit, copy, csv, tmp_path, capsys):
    change(copy, f"{run_folder.ENCODER}/tokenizer.json", edit)
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert "da el id 1000000" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("vocab_size", 10), ("max_position_embeddings", 4), ("hidden_size", 7), ("type_vocab_size", 0)]
)
def test_encoder_config_of_another_shape_is_refused(name, value, copy):
    change(copy, f"{run_folder.ENCODER}/config.json", lambda shape: shape.update({name: value}))
    with pytest.raises(UserError):
        saved_model.load_model(Run.load(copy))


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_encoder_config_of_an_enormous_model_is_refused_before_its_memory_is_taken(name, copy):
    change(copy, f"{run_folder.ENCODER}/config.json", lambda shape: shape.update({name: 2**20}))
    with pytest.raises(UserError, match=r"config\.json"):
        saved_model.load_model(Run.load(copy))


def test_tokenizer_config_of_another_type_is_refused(copy):
    change(copy, f"{run_folder.ENCODER}/tokenizer_config.json", lambda settings: settings.update(model_max_length=[1]))
    with pytest.raises(UserError):
        saved_model.load_model(Run.load(copy))


def test_lone_surrogate_in_a_label_is_refused(copy, csv, tmp_path, capsys):
    change(copy, run_folder.LABELS, lambda labels: labels["causa"].__setitem__(0, "a\ud800"))
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert run_folder.LABELS in capsys.readouterr().err


def test_class_that_is_listed_twice_is_refused(copy):
    change(copy, run_folder.LABELS, lambda labels: labels["causa"].append(labels["causa"][0]))
    with pytest.raises(UserError, match=run_folder.LABELS):
        Run.load(copy)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_metric_that_is_no_finite_number_is_refused(number, copy):
    change(copy, run_folder.METRICS, lambda metrics: metrics["test"].update(causa_f1=number))
    with pytest.raises(UserError, match=run_folder.METRICS):
        Run.load(copy)


@pytest.mark.parametrize("value", [[False], "otra", None, 7])
def test_interrupted_run_with_another_precision_is_refused(value, stopped, notices):
    folder = Path(stopped.out)
    metadata = run_folder.read_config(folder) | {"precision": value}
    Run(folder, metadata, {}).write_config()
    with pytest.raises(UserError, match=run_folder.CONFIG):
        train.fit(stopped, notices)


def test_text_without_a_token_is_refused_rather_than_misplaced():
    class Empty:
        pad_token_id = 0

        def __call__(self, texts, **_):
            return {"input_ids": [[1, 2], *([] for _ in texts[1:])]}

    with pytest.raises(UserError, match="ningún token"):
        token_table.encode(["fuga", "ruido"], Empty(), 16)
