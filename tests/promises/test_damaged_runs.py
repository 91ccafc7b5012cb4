"""Damaged runs with a valid, regenerated manifest: rejected before any notice is scored."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ocensa_nb.cli import main as cli
from ocensa_nb.errors import UserError, num
from ocensa_nb.evaluation import suggestion
from ocensa_nb.models import save, tokens
from ocensa_nb.runs import manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def change(folder, name, edit):
    """Edit a JSON file of a run and regenerate the manifest."""
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
def test_predict_with_token_ids_beyond_the_embeddings_exits_1(edit, copy, csv, tmp_path, capsys):
    change(copy, f"{manifest.ENCODER}/tokenizer.json", edit)
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert f"da el id {num(10**6)}" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("vocab_size", 10), ("max_position_embeddings", 4), ("hidden_size", 7), ("type_vocab_size", 0)]
)
def test_load_model_with_encoder_config_of_another_shape_raises_user_error(name, value, copy):
    change(copy, f"{manifest.ENCODER}/config.json", lambda shape: shape.update({name: value}))
    with pytest.raises(UserError):
        save.load_model(Run.load(copy))


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_load_model_with_huge_encoder_config_raises_before_allocation(name, copy):
    change(copy, f"{manifest.ENCODER}/config.json", lambda shape: shape.update({name: 2**20}))
    with pytest.raises(UserError, match=r"config\.json"):
        save.load_model(Run.load(copy))


def test_load_model_with_invalid_tokenizer_config_raises_user_error(copy):
    change(copy, f"{manifest.ENCODER}/tokenizer_config.json", lambda settings: settings.update(model_max_length=[1]))
    with pytest.raises(UserError):
        save.load_model(Run.load(copy))


def test_predict_with_lone_surrogate_in_label_exits_1(copy, csv, tmp_path, capsys):
    change(copy, run_folder.LABELS, lambda labels: labels["causa"].__setitem__(0, "a\ud800"))
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert run_folder.LABELS in capsys.readouterr().err


def test_load_run_with_duplicate_class_raises_user_error(copy):
    change(copy, run_folder.LABELS, lambda labels: labels["causa"].append(labels["causa"][0]))
    with pytest.raises(UserError, match=run_folder.LABELS):
        Run.load(copy)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_load_run_with_non_finite_metric_raises_user_error(number, copy):
    change(copy, run_folder.METRICS, lambda metrics: metrics["test"].update(causa_f1=number))
    with pytest.raises(UserError, match=run_folder.METRICS):
        Run.load(copy)


def test_predict_without_the_verdict_of_a_label_exits_1(copy, csv, tmp_path, capsys):
    change(copy, run_folder.METRICS, lambda metrics: metrics["verdict"].pop("modo"))
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert run_folder.METRICS in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_predict_with_rows_of_suggestions_that_are_of_another_run_exits_1(copy, csv, tmp_path, capsys):
    save_file({"groups.val": torch.zeros(3)}, copy / suggestion.FILE)
    manifest.write(copy)
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert "rows.safetensors" in capsys.readouterr().err


def test_predict_with_rows_of_suggestions_that_lack_a_class_exits_1(copy, csv, tmp_path, capsys):
    rows = load_file(copy / suggestion.FILE)
    rows["linear.val.causa"] = rows["linear.val.causa"][:, 1:].contiguous()
    save_file(rows, copy / suggestion.FILE)
    manifest.write(copy)
    assert cli.main(["predict", "--run", str(copy), "--data", str(csv), "--out", str(tmp_path / "p.csv")]) == 1
    assert "rows.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, 7, [1]])
def test_load_run_with_an_invalid_list_of_its_columns_raises_user_error(value, copy):
    metadata = run_folder.read_config(copy)
    metadata["data"]["fields"] = value
    Run(copy, metadata, {}).write_config()
    manifest.write(copy)
    with pytest.raises(UserError, match=run_folder.CONFIG):
        Run.load(copy)


@pytest.mark.parametrize("value", [[False], "otra", None, 7])
def test_resume_run_with_invalid_precision_raises_user_error(value, stopped, notices):
    folder = Path(stopped.out)
    metadata = run_folder.read_config(folder) | {"precision": value}
    Run(folder, metadata, {}).write_config()
    with pytest.raises(UserError, match=run_folder.CONFIG):
        train.fit(stopped, notices)


def test_encode_text_without_tokens_raises_user_error():
    class Empty:
        pad_token_id = 0

        def __call__(self, texts, **_):
            return {"input_ids": [[1, 2], *([] for _ in texts[1:])]}

    with pytest.raises(UserError, match="ningún token"):
        tokens.encode(["fuga", "ruido"], Empty(), 16)
