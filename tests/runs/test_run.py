"""Run folder: its files, loading with transformers, no overwriting, and errors for missing or damaged files."""

import json
import shutil

import pytest
import torch

from ocensa_nb.errors import UserError
from ocensa_nb.models import save
from ocensa_nb.runs import checkpoint, manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train


def test_run_folder_contains_the_documented_files_and_metadata(run):
    names = {path.name for path in run.path.iterdir()}
    results = {"config.json", "labels.json", "encoder", "heads.safetensors", "history.jsonl", "metrics.json"}
    assert names == results | {"linear", "splits.safetensors", "manifest.json", "README.md"}
    linear = {"linear.safetensors", "blend.json", "rows.safetensors"}
    assert {path.name for path in (run.path / "linear").iterdir()} == linear
    metadata = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert {"config", "fingerprint", "data", "versions", "hardware", "seconds"} <= set(metadata)
    assert metadata["fingerprint"] == run.config.fingerprint()


def test_encoder_of_run_loads_with_plain_transformers(run, notices):
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(run.path / "encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(run.path / "encoder")
    model, own = save.load_model(run)
    text = notices.texts[0]
    batch = tokenizer(text, return_tensors="pt")
    assert batch["input_ids"].tolist() == own(text, return_tensors="pt")["input_ids"].tolist()
    with torch.no_grad():
        ids, mask = batch["input_ids"], batch["attention_mask"]
        ours = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(encoder(input_ids=ids, attention_mask=mask).last_hidden_state, ours)


def test_run_of_another_format_is_refused_and_says_which(run, stopped, notices, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    for folder in (copy, tmp_path / "run"):
        Run(folder, run_folder.read_config(folder) | {"format": 2}, {}).write_config()
    manifest.write(copy)
    for use in (lambda: Run.load(copy), lambda: train.fit(stopped, notices)):
        with pytest.raises(
            UserError, match=rf"otra versión.*formato 2, y aquí se lee el {run_folder.FORMAT}\. Entrene otra vez"
        ):
            use()


def test_checkpoint_of_another_format_is_refused_and_says_which(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        checkpoint.CheckpointFiles(tmp_path).write({"/w": torch.zeros(3)}, None)
    with pytest.raises(UserError, match=r"otra versión de este programa \(formato 2; .*resume = 'never'"):
        checkpoint.CheckpointFiles(tmp_path).read()


def test_load_run_returns_the_saved_config(run):
    assert Run.load(run.path).config == run.config


def test_free_folder_that_is_not_empty_raises_user_error_and_keeps_its_files(run, tmp_path):
    with pytest.raises(UserError, match="ya contiene otra corrida"):
        run_folder.free_folder(run.path)
    (tmp_path / "nota.txt").write_text("mía")
    with pytest.raises(UserError, match="no está vacía"):
        run_folder.free_folder(tmp_path)
    assert (tmp_path / "nota.txt").read_text() == "mía"


def test_free_folder_without_name_returns_the_next_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(run_folder.free_folder("")) for _ in range(2)] == ["runs/run-001", "runs/run-002"]


def test_latest_returns_the_last_finished_run_or_raises_user_error(run, tmp_path):
    with pytest.raises(UserError, match="03_train"):
        run_folder.latest(tmp_path)
    shutil.copytree(run.path, tmp_path / "run-001")
    (tmp_path / "run-002").mkdir()
    assert run_folder.latest(tmp_path) == tmp_path / "run-001"


def test_load_missing_run_raises_user_error_listing_existing_runs(run):
    with pytest.raises(UserError, match=f"No existe.*{run.path.name}"):
        Run.load(run.path.parent / "otra")


@pytest.mark.parametrize("name", ["config.json", "labels.json", "metrics.json", "heads.safetensors", "encoder"])
def test_load_run_with_missing_file_names_the_file(run, tmp_path, name):
    copy = shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        Run.load(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"config": {"epochs": "muchas", "text_fields": []}}'),
        ("labels.json", '{"modo": []}'),
        ("heads.safetensors", "no"),
        ("encoder/model.safetensors", "no"),
        ("encoder/config.json", "{}"),
    ],
)
def test_load_run_with_damaged_file_raises_user_error(run, tmp_path, name, content):
    copy = shutil.copytree(run.path, tmp_path / "run")
    (copy / name).write_text(content)
    with pytest.raises(UserError):
        save.load_model(Run.load(copy))


def test_history_with_incomplete_last_line_returns_the_complete_lines(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    with open(copy / "history.jsonl", "a") as file:
        file.write('{"step": 99, "lo')
    assert Run(copy, {}, {}).history() == run.history()
