"""Google Drive: deleted files fill the trash, uploads are delayed, and each write uploads the full file."""

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import pytest

from ocensa_nb import paths
from ocensa_nb.files import atomic
from ocensa_nb.runs import checkpoint
from ocensa_nb.runs.run import HISTORY, LAST, Run
from ocensa_nb.training import logger, train
from tests.helpers import crash
from tests.helpers.crash import make_abandoned_folder


class Trash:
    """Sum the bytes of files in a folder that are deleted or replaced by a rename, as Drive's trash does."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.bytes = folder.resolve(), 0
        for name in ("unlink", "remove"):
            monkeypatch.setattr(os, name, self._deleting(getattr(os, name)))
        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, self._replacing(getattr(os, name)))
        monkeypatch.setattr(Path, "unlink", self._unlink)  # Python 3.10 holds its own reference to os.unlink

    def take(self, path, dir_fd=None):
        path = Path(os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else "", path).resolve()
        if path.is_relative_to(self.folder) and path.is_file():
            self.bytes += path.stat().st_size

    def _deleting(self, delete):
        def deleted(path, *, dir_fd=None):
            self.take(path, dir_fd)
            delete(path, dir_fd=dir_fd)

        return deleted

    def _replacing(self, replace):
        def replaced(source, target, **directories):
            self.take(target)
            replace(source, target, **directories)

        return replaced

    @staticmethod
    def _unlink(path, missing_ok=False):
        with contextlib.suppress(FileNotFoundError) if missing_ok else contextlib.nullcontext():
            os.unlink(path)


def save_each_epoch(patch):
    """Save a checkpoint at the end of every epoch, as if it were due."""

    def save(manager):
        if manager.parts["state"].step == 0:
            manager.save()

    patch.setattr(checkpoint.CheckpointManager, "save_if_due", save)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="resolves deleted files by the descriptor of their folder"
)


@needs_proc
def test_simulated_trash_counts_deleted_and_replaced_files(tmp_path, monkeypatch):
    trash = Trash(tmp_path / "drive", monkeypatch)
    (tmp_path / "drive/folder").mkdir(parents=True)
    for name in ("a", "b", "c", "folder/d", "folder/e"):
        (tmp_path / "drive" / name).write_bytes(bytes(10))
    (tmp_path / "drive/a").unlink()
    os.replace(tmp_path / "drive/b", tmp_path / "drive/c")
    shutil.rmtree(tmp_path / "drive/folder")
    assert trash.bytes == 40


@needs_proc
def test_fit_ten_epochs_on_drive_leaves_under_two_checkpoints_in_the_trash(config, notices, tmp_path, monkeypatch):
    save_each_epoch(monkeypatch)
    trash = Trash(tmp_path, monkeypatch)
    monkeypatch.setattr(paths, "DRIVE", tmp_path)
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=10, patience=10), notices)
    assert run.metrics["epochs"] == 10
    assert not (run.path / LAST).exists()
    assert trash.bytes < 2 * run.metadata["checkpoint_bytes"]


@needs_proc
def test_remove_and_cleanup_truncate_files_before_deleting_them(tmp_path, monkeypatch):
    trash = Trash(tmp_path, monkeypatch)
    (tmp_path / "folder/inner").mkdir(parents=True)
    leftover = make_abandoned_folder(tmp_path)
    for name in (f"{leftover.name}/a.txt", "folder/b", "folder/inner/c"):
        (tmp_path / name).write_bytes(bytes(10_000))
    atomic.write_text(tmp_path / "a.txt", "entero")  # also removes the abandoned folder
    atomic.remove(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert trash.bytes == 0


@pytest.fixture(scope="module")
def uploads(config, notices, tmp_path_factory):
    """Return a folder with a copy of the run after each checkpoint, and the content of the finished run."""
    folder = tmp_path_factory.mktemp("uploads")
    write, count = checkpoint.CheckpointFiles.write, 0

    def uploaded(files, tensors, state):
        nonlocal count
        write(files, tensors, state)
        shutil.copytree(folder / "run", folder / str(count), ignore=shutil.ignore_patterns(".*"))
        count += 1

    with pytest.MonkeyPatch.context() as patch:
        save_each_epoch(patch)
        patch.setattr(checkpoint.CheckpointFiles, "write", uploaded)
        run = train.fit(config.replace(out=str(folder / "run"), epochs=3), notices)
    assert count == 4
    return folder, crash.run_content(run.path)


UPLOADS = list(itertools.product((2, 3), ("old", "half", "empty"), ("new", "old")))
QUICK_UPLOADS = [(2, "old", "new"), (2, "half", "old"), (2, "empty", "new")]


@pytest.mark.parametrize(
    ("number", "arrived", "history"),
    [case if case in QUICK_UPLOADS else pytest.param(*case, marks=pytest.mark.slow) for case in UPLOADS],
)
def test_resume_after_interrupted_upload_is_bit_identical(config, notices, tmp_path, uploads, number, arrived, history):
    folder, expected = uploads
    before, after = folder / str(number - 1), folder / str(number)
    cloud = shutil.copytree(after, tmp_path / "run")
    [late] = [
        file for file in (after / LAST).iterdir() if file.read_bytes() != (before / LAST / file.name).read_bytes()
    ]
    new, old = late.read_bytes(), (before / LAST / late.name).read_bytes()
    half = len(new) // 2
    content = {"old": old, "half": new[:half] + old[half:], "empty": b""}
    (cloud / LAST / late.name).write_bytes(content[arrived])
    if history == "old":
        shutil.copy(before / HISTORY, cloud / HISTORY)
    run = train.fit(config.replace(out=str(cloud), epochs=3), notices)
    assert crash.run_content(run.path) == expected


@pytest.mark.parametrize("on_drive", [False, True])
def test_history_on_drive_is_written_only_at_checkpoints_and_epochs(config, notices, tmp_path, monkeypatch, on_drive):
    append, lines = Run.append_history, []
    monkeypatch.setattr(Run, "append_history", lambda run, added: (lines.append(len(added)), append(run, added)))
    monkeypatch.setattr(logger, "WRITE_SECONDS", 0.0)
    if on_drive:
        monkeypatch.setattr(paths, "DRIVE", tmp_path)
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    steps = sum("step" in line for line in run.history())
    assert steps == 10
    assert (max(lines) == steps + 1) if on_drive else (max(lines) == 1)


def test_is_on_drive_follows_links_and_checks_the_file_system_type(tmp_path, monkeypatch):
    mounted = tmp_path / "mi unidad"
    (mounted / "MyDrive").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    escaped = str(mounted).replace(" ", "\\040")
    mounts.write_text(f"overlay / overlay rw 0 0\nshm /dev/shm tmpfs rw 0 0\ndrive {escaped} fuse.drive rw 0 0\n\n")
    monkeypatch.setattr(paths, "MOUNTS", mounts)
    (tmp_path / "link").symlink_to(mounted / "MyDrive")
    assert paths.is_on_drive(mounted / "MyDrive/runs/new")
    assert paths.is_on_drive(tmp_path / "link/runs")
    assert paths.is_on_drive(Path("/content/drive/MyDrive"))
    assert not paths.is_on_drive(tmp_path / "mi unidad 2")
    assert not paths.is_on_drive(Path("/content/runs"))
    monkeypatch.setattr(paths, "MOUNTS", tmp_path / "none")
    assert not paths.is_on_drive(mounted)
