"""Manifest of a run: damage of any file, also in `last/`, is detected and the file is named."""

import json
import random
import shutil
from pathlib import Path

import pytest

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.evaluation import evaluate
from ocensa_nb.runs import manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.checkpoint import FILES, CheckpointFiles
from ocensa_nb.runs.manifest import CONFIG, HEADS, HISTORY, LABELS, LAST, MANIFEST, METRICS
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train
from ocensa_nb.training.card import CARD
from tests.helpers import crash

FLIPS = 200


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "copy"))


def flip(path, draw):
    """Flip a random bit of a file; return the original content."""
    whole = path.read_bytes()
    content = bytearray(whole)
    position = draw.randrange(len(content))
    content[position] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return whole


def test_load_run_with_flipped_bit_in_any_file_names_the_file(copy, stopped, tmp_path, capsys):
    draw = random.Random(13)
    last = tmp_path / "run" / LAST
    (copy / CARD).unlink()  # affects no result, and its user may edit it
    files = sorted(path for path in copy.rglob("*") if path.is_file()) + [last / name for name in FILES]
    assert {path.name for path in files} >= {CONFIG, LABELS, METRICS, HISTORY, HEADS, MANIFEST, *FILES}
    detected = 0
    for count in range(FLIPS):
        path = files[count % len(files)]
        whole = flip(path, draw)
        if path.parent == last:
            CheckpointFiles(last).read()
            detected += f"«{path}» está incompleto o dañado" in capsys.readouterr().out
        else:
            with pytest.raises(UserError) as refused:
                Run.load(copy)
            detected += path.relative_to(copy).as_posix() in str(refused.value)
        path.write_bytes(whole)
    assert detected == FLIPS
    Run.load(copy)


@pytest.mark.parametrize("name", [CONFIG, LABELS, METRICS, HISTORY])
def test_load_run_with_changed_text_file_names_the_file(copy, name):
    text = (copy / name).read_text(encoding="utf-8")
    (copy / name).write_text(text.replace("1", "2", 1), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name}.*no es el que se guardó"):
        Run.load(copy)


def test_evaluate_run_with_changed_seed_raises_user_error(copy):
    metadata = json.loads((copy / CONFIG).read_text(encoding="utf-8"))
    metadata["config"]["seed"] = 7
    (copy / CONFIG).write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(UserError, match=CONFIG):
        evaluate.evaluate(Run.load(copy))


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"files": []}', '{"files": {}}', "\ud800"])
def test_load_run_with_damaged_manifest_raises_user_error(copy, content):
    (copy / MANIFEST).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=rf"{MANIFEST}.*dañado"):
        Run.load(copy)


def test_load_run_without_manifest_raises_user_error(copy):
    (copy / MANIFEST).unlink()
    with pytest.raises(UserError, match=rf"le falta {MANIFEST}"):
        Run.load(copy)


def test_load_run_with_changed_gif_succeeds(copy):
    (copy / run_folder.GIF).write_bytes(b"GIF89a")
    assert Run.load(copy)


def test_resume_run_interrupted_before_its_manifest_is_bit_identical(run, config, notices, tmp_path, monkeypatch):
    settings = config.replace(out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "compute", raise_keyboard_interrupt)
        with pytest.raises(AskedToStopError):
            train.fit(settings, notices)
    assert (tmp_path / "run" / METRICS).exists()
    assert not manifest.is_finished(tmp_path / "run")
    assert run_folder.finished(tmp_path) == []
    assert crash.run_content(train.fit(settings, notices).path) == crash.run_content(run.path)
    assert Run.load(tmp_path / "run").config == settings


def raise_keyboard_interrupt(*_):
    raise KeyboardInterrupt


def test_read_config_of_unfinished_run_with_flipped_bit_is_detected_or_unchanged(stopped, tmp_path):
    path, draw = tmp_path / "run" / CONFIG, random.Random(13)
    kept = run_folder.read_config(path.parent)
    detected = 0
    for _ in range(FLIPS):
        whole = flip(path, draw)
        try:
            metadata = run_folder.read_config(path.parent)
        except UserError as error:
            detected += str(path) in str(error)
        else:
            assert {name: metadata[name] for name in kept} == kept
        path.write_bytes(whole)
    assert detected > 0.98 * FLIPS


@pytest.mark.parametrize(("field", "value"), [("seed", 43), ("precision", "bf16")])
def test_resume_run_with_changed_config_names_the_file(stopped, notices, tmp_path, field, value):
    path = tmp_path / "run" / CONFIG
    metadata = json.loads(path.read_text(encoding="utf-8"))
    (metadata if field in metadata else metadata["config"])[field] = value
    path.write_text(json.dumps(metadata), encoding="utf-8")
    for settings in (stopped, stopped.replace(**{field: value})):
        with pytest.raises(UserError, match=rf"{CONFIG}.*dañado"):
            train.fit(settings, notices)


def test_resume_run_with_damaged_labels_rewrites_them(run, stopped, notices, tmp_path):
    flip(tmp_path / "run" / LABELS, random.Random(2))
    assert crash.run_content(train.fit(stopped, notices).path) == crash.run_content(run.path)


def test_resume_run_with_damaged_history_warns_and_is_bit_identical(run, stopped, notices, tmp_path, capsys):
    path = tmp_path / "run" / HISTORY
    path.write_text(path.read_text(encoding="utf-8").replace('"step": 2', '"step": 3', 1), encoding="utf-8")
    assert crash.run_content(train.fit(stopped, notices).path) == crash.run_content(run.path)
    assert f"El historial «{path}» está dañado" in capsys.readouterr().out
