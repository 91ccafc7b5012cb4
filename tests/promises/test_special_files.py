"""Files that are not regular are rejected at once: a pipe would block, `/dev/zero` would never end."""

import os
import shutil
from pathlib import Path

import pytest

from ocensa_nb.data.notices import read
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.files.verify import open_regular, read_regular
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.runs import manifest
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.run import Run
from ocensa_nb.training import train
from tests.helpers import forked
from tests.helpers.stopping import StopAfter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes and devices")


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def enormous(path):
    """Create a sparse file of one terabyte."""
    path.touch()
    os.truncate(path, 2**40)


SPECIAL = {"pipe": pipe, "endless": endless, "enormous": enormous}
FILES = [
    run_folder.CONFIG,
    run_folder.LABELS,
    run_folder.METRICS,
    run_folder.HISTORY,
    manifest.HEADS,
    f"{manifest.ENCODER}/model.safetensors",
]
FILES += [manifest.MANIFEST, f"{manifest.ENCODER}/config.json", f"{manifest.ENCODER}/tokenizer.json"]


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "run"))


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_read_special_file_as_data_raises_user_error(kind, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    SPECIAL[kind](path)
    with pytest.raises(UserError, match="ocupa más de" if kind == "enormous" else "no es un archivo normal"):
        read(path)


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_load_run_without_manifest_and_special_config_raises_user_error(kind, copy):
    (copy / manifest.MANIFEST).unlink()
    (copy / run_folder.CONFIG).unlink()
    SPECIAL[kind](copy / run_folder.CONFIG)
    with pytest.raises(UserError, match=manifest.MANIFEST):
        Run.load(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_load_run_with_special_file_names_the_file(kind, name, copy):
    (copy / name).unlink()
    SPECIAL[kind](copy / name)
    with pytest.raises(UserError, match=Path(name).name):
        Run.load(copy).history()


@pytest.mark.parametrize("name", [run_folder.CONFIG, run_folder.LABELS, run_folder.METRICS, run_folder.HISTORY])
def test_load_run_with_huge_file_raises_user_error(name, copy):
    enormous(copy / name)
    with pytest.raises(UserError, match=name):
        Run.load(copy).history()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "special_tokens_map.json", "more.json"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_load_encoder_with_special_file_names_the_file(kind, name, copy):
    folder = copy / manifest.ENCODER
    (folder / name).unlink(missing_ok=True)
    SPECIAL[kind](folder / name)
    with pytest.raises(UserError, match=f"{name} no es un archivo normal"):
        load_encoder(str(folder), load_tokenizer(str(folder)))


@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_resume_with_special_file_as_newest_checkpoint_uses_the_previous_one(
    kind, stopped, notices, tmp_path, monkeypatch, capsys
):
    checkpoints = (tmp_path / "run" / run_folder.LAST).glob("*.safetensors")
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    SPECIAL[kind](newest)
    StopAfter(monkeypatch, 1)
    with pytest.raises(AskedToStopError):
        train.fit(stopped, notices)
    assert "desde la época 1, paso 0 de 10" in capsys.readouterr().out
    assert newest.is_file()
    assert not newest.is_symlink()


def test_open_regular_to_append_to_a_pipe_raises_os_error(tmp_path):
    pipe(tmp_path / "history.jsonl")
    with pytest.raises(OSError, match="history"):
        open_regular(tmp_path / "history.jsonl", "ab")


def test_read_regular_at_size_limit_succeeds_and_over_it_raises_os_error(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="ocupa más de"):
        read_regular(tmp_path / "a", 4)


def test_train_with_pipe_as_data_prints_one_line_error(tmp_path):
    pipe(tmp_path / "a.csv")
    done = forked.run("train", "--model", "tiny", "--data", tmp_path / "a.csv")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
