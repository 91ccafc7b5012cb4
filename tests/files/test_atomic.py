"""Atomic writes: fsync, then rename; OS errors become a `UserError` in Spanish."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from ocensa_nb import paths
from ocensa_nb.errors import UserError
from ocensa_nb.files import tensors
from ocensa_nb.files.atomic import (
    PREFIX,
    STALE_SECONDS,
    atomic_write,
    create_new,
    is_temporary,
    owner,
    remove,
    remove_abandoned,
    write_text,
)
from ocensa_nb.runs import array_cache
from tests.helpers.crash import make_abandoned_folder


def test_write_text_fsyncs_file_then_renames_it_then_fsyncs_the_folder(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    paths = {}
    opened = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: paths.setdefault(fd := opened(path, *a, **k), str(path)) and fd
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(("sync", paths.pop(fd))), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(("rename", str(b))), replace(a, b)))
    write_text(tmp_path / "a.txt", "uno")
    (synced, fresh), *after = order
    assert synced == "sync"
    assert Path(fresh).name == "a.txt"
    assert is_temporary(Path(fresh).parent.name)
    assert after == [("rename", str(tmp_path / "a.txt")), ("sync", str(tmp_path))]


def test_atomic_write_of_folder_replaces_the_old_one_and_leaves_no_temporary(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/old.txt").write_text("viejo")
    with atomic_write(tmp_path / "encoder") as fresh:
        fresh.mkdir()
        write_text(fresh / "new.txt", "nuevo")
    assert [path.name for path in (tmp_path / "encoder").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no queda espacio en el disco"),
        (errno.EDQUOT, "se acabó la cuota"),
        (errno.EACCES, "no hay permiso"),
        (errno.EROFS, "es de solo lectura"),
    ],
)
def test_atomic_write_with_os_error_raises_user_error_and_keeps_the_old_file(tmp_path, number, words):
    path = tmp_path / "a.txt"
    write_text(path, "antes")

    def refused():
        with atomic_write(path) as fresh:
            fresh.write_text("a medias")
            raise OSError(number, "in English")

    with pytest.raises(UserError, match=words):
        refused()
    assert path.read_text() == "antes"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_write_tensors_on_full_disk_raises_user_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    tensors.write(tmp_path / "w.safetensors", {"a": torch.ones(2)})
    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(UserError, match="no queda espacio en el disco"):
        tensors.write(tmp_path / "w.safetensors", {"a": torch.zeros(2)})
    assert torch.equal(tensors.read(tmp_path / "w.safetensors")[0]["a"], torch.ones(2))


def test_write_text_removes_temporary_folder_of_dead_process(tmp_path):
    leftover = make_abandoned_folder(tmp_path)
    (leftover / "a.txt").write_text("a medias")
    write_text(tmp_path / "a.txt", "entero")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def fail_replace(monkeypatch, times, winerror):
    """Make `os.replace` fail `times` times, with a Windows error number if given; return the list of its calls."""
    calls, replace = [], os.replace

    def refused(source, target):
        calls.append(target)
        if len(calls) <= times:
            error = PermissionError(errno.EACCES, "in English")
            if winerror:
                error.winerror = winerror
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    return calls


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_replace_of_file_briefly_open_on_windows_is_retried(tmp_path, monkeypatch, winerror):
    write_text(tmp_path / "a.txt", "antes")
    calls = fail_replace(monkeypatch, 3, winerror)
    write_text(tmp_path / "a.txt", "después")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "después"
    assert len(calls) == 4


def test_replace_of_file_open_for_long_on_windows_raises_after_one_second(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * 0.1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    write_text(tmp_path / "a.txt", "antes")
    calls = fail_replace(monkeypatch, 1000, 32)
    with pytest.raises(UserError, match="no hay permiso"):
        write_text(tmp_path / "a.txt", "después")
    assert len(calls) == 10
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "antes"


def test_replace_without_permission_on_posix_raises_without_retry(tmp_path, monkeypatch):
    calls = fail_replace(monkeypatch, 1000, None)
    with pytest.raises(UserError, match="no hay permiso"):
        write_text(tmp_path / "a.txt", "después")
    assert len(calls) == 1


def test_replace_of_cached_array_briefly_open_on_windows_is_retried(tmp_path, monkeypatch):
    calls = fail_replace(monkeypatch, 2, 32)
    with array_cache.write(tmp_path, "key", (2, 3), np.float32) as array:
        array[:] = 1
    assert len(calls) == 4
    assert array_cache.read(tmp_path, "key", (2, 3), np.float32) is not None


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x7fb", "x" * 5000])
def test_plain_path_of_invalid_name_raises_user_error(name):
    with pytest.raises(UserError, match=r"caracteres de control|no es válida"):
        paths.plain_path(name)


def test_written_files_have_default_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    with create_new(tmp_path / "a.txt") as fresh:
        fresh.write_text("uno")
    with atomic_write(tmp_path / "folder") as fresh:
        fresh.mkdir()
        tensors.save_file({"a": torch.ones(2)}, fresh / "w.safetensors")
    tensors.write(tmp_path / "w.safetensors", {"a": torch.ones(2)})
    for name in ("a.txt", "w.safetensors", "folder/w.safetensors"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode, name


def make_file(path):
    path.write_text("del usuario")


def make_folder(path):
    path.mkdir()
    (path / "nota.txt").write_text("del usuario")


def make_broken_link(path):
    path.symlink_to("no-existe")


def make_link(path):
    (path.parent / "otro.txt").write_text("del usuario")
    path.symlink_to("otro.txt")


def contents(folder):
    """Return the link target or the text of every path in a folder."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_text(encoding="utf-8")
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


makers = [make_file, make_folder, make_link, make_broken_link]


@pytest.mark.parametrize("links", [True, False], ids=["hard_links", "no_hard_links"])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("maker", makers)
def test_create_new_with_path_created_meanwhile_raises_and_leaves_it_unchanged(
    tmp_path, monkeypatch, maker, folder, links
):
    path = tmp_path / "a.csv"
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def work():
        with create_new(path) as fresh:
            fresh.mkdir() if folder else fresh.write_text("nuestro")
            if folder:
                (fresh / "nota.txt").write_text("nuestra")
            maker(path)

    with pytest.raises(UserError, match="Ya existe"):
        work()
    found = contents(tmp_path)
    for path in tmp_path.iterdir():
        remove(path)
    maker(tmp_path / "a.csv")
    assert found == contents(tmp_path)


def no_links(source, target):
    raise OSError(errno.EPERM, "in English")


@pytest.mark.parametrize("links", [True, False], ids=["hard_links", "no_hard_links"])
def test_create_new_with_or_without_hard_links_writes_the_complete_file(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with create_new(tmp_path / "folder/a.txt") as fresh:
        fresh.write_text("entero")
    assert contents(tmp_path) == {"folder": None, "folder/a.txt": "entero"}


@pytest.mark.parametrize("name", ["new", "there", "."])
def test_create_new_folder_at_missing_or_empty_path_succeeds(tmp_path, monkeypatch, name):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    path = Path(name) if name == "." else tmp_path / name
    with create_new(path) as fresh:
        fresh.mkdir()
        (fresh / "a.txt").write_text("entero")
    assert contents(path) == {"a.txt": "entero"}


def test_write_leaves_user_files_with_temporary_looking_names_unchanged(tmp_path):
    machine, process = owner().split("-")
    names = [".tmp-a.txt", ".tmp-x", ".ocensa-tmp-mine", f".ocensa-tmp-{machine}-{process}", ".ocensa-tmp-a-1-abcd1234"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "nota.txt").write_text("del usuario")
    before = contents(tmp_path)
    write_text(tmp_path / "a.txt", "uno")
    with create_new(tmp_path / "x") as fresh:
        fresh.write_text("dos")
    assert contents(tmp_path) == before | {"a.txt": "uno", "x": "dos"}


def test_remove_abandoned_keeps_live_processes_and_recent_folders_of_other_hosts(tmp_path):
    machine, process = owner().split("-")
    live = tmp_path / f"{PREFIX}{machine}-{process}-abcd1234"
    foreign = tmp_path / f"{PREFIX}{'0' * 8}-{process}-abcd1234"
    for folder in (live, foreign):
        folder.mkdir()
        (folder / "a").write_text("a medias")
    remove_abandoned(tmp_path)
    assert live.exists()
    assert foreign.exists()
    for folder in (live, foreign):
        os.utime(folder, (time.time() - STALE_SECONDS - 1,) * 2)
    remove_abandoned(tmp_path)
    assert live.exists()
    assert not foreign.exists()


def test_remove_abandoned_with_hard_link_keeps_the_linked_file(tmp_path):
    (tmp_path / "a.txt").write_text("entero")
    os.link(tmp_path / "a.txt", make_abandoned_folder(tmp_path) / "a.txt")  # killed between link and unlink
    remove_abandoned(tmp_path)
    assert contents(tmp_path) == {"a.txt": "entero"}
