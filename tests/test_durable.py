"""A file is there whole or not at all: synced, then renamed; and a refusal of the disk is a sentence in Spanish."""

import errno
import os
import time

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from ocensa_nb import durable, tensor_files, trunk_store
from ocensa_nb.durable import replacing, write_text
from ocensa_nb.errors import UserError


def test_what_is_in_a_file_is_on_the_disk_before_its_name_is_and_then_the_folder_is(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    paths = {}
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, *a: paths.setdefault(fd := opened(path, *a), str(path)) and fd)
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(("sync", paths.pop(fd))), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(("rename", str(b))), replace(a, b)))
    write_text(tmp_path / "a.txt", "uno")
    fresh = str(tmp_path / ".tmp-a.txt")
    assert order == [("sync", fresh), ("rename", str(tmp_path / "a.txt")), ("sync", str(tmp_path))]


def test_every_file_of_a_folder_is_synced_before_the_folder_takes_its_name(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/old.txt").write_text("viejo")
    with replacing(tmp_path / "encoder") as fresh:
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
def test_a_refusal_is_told_in_spanish_and_what_was_there_stays(tmp_path, number, words):
    path = tmp_path / "a.txt"
    write_text(path, "antes")

    def refused():
        with replacing(path) as fresh:
            fresh.write_text("a medias")
            raise OSError(number, "in English")

    with pytest.raises(UserError, match=words):
        refused()
    assert path.read_text() == "antes"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_safetensors_own_refusals_are_told_too(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    tensor_files.write(tmp_path / "w.safetensors", {"a": torch.ones(2)})
    monkeypatch.setattr(tensor_files, "save_file", full)
    with pytest.raises(UserError, match="no queda espacio en el disco"):
        tensor_files.write(tmp_path / "w.safetensors", {"a": torch.zeros(2)})
    assert torch.equal(tensor_files.read(tmp_path / "w.safetensors")[0]["a"], torch.ones(2))


def test_leftovers_of_a_death_are_taken_away_by_the_next_write(tmp_path):
    (tmp_path / ".tmp-a.txt").write_text("a medias")
    write_text(tmp_path / "a.txt", "entero")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def refuse(monkeypatch, times, winerror):
    """Let `os.replace` fail so many times, with an error number of Windows or without; return the list of its calls."""
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
def test_replace_of_file_that_windows_holds_briefly_is_retried(tmp_path, monkeypatch, winerror):
    write_text(tmp_path / "a.txt", "antes")
    calls = refuse(monkeypatch, 3, winerror)
    write_text(tmp_path / "a.txt", "después")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "después"
    assert len(calls) == 4


def test_replace_of_file_that_windows_holds_for_long_is_refused_after_a_second(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * 0.1)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    write_text(tmp_path / "a.txt", "antes")
    calls = refuse(monkeypatch, 1000, 32)
    with pytest.raises(UserError, match="no hay permiso"):
        write_text(tmp_path / "a.txt", "después")
    assert len(calls) == 10
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "antes"


def test_replace_without_permission_on_posix_is_refused_at_once(tmp_path, monkeypatch):
    calls = refuse(monkeypatch, 1000, None)
    with pytest.raises(UserError, match="no hay permiso"):
        write_text(tmp_path / "a.txt", "después")
    assert len(calls) == 1


def test_replace_of_cached_array_that_windows_holds_briefly_is_retried(tmp_path, monkeypatch):
    calls = refuse(monkeypatch, 2, 32)
    with trunk_store.write(tmp_path, "key", (2, 3), np.float32) as array:
        array[:] = 1
    assert len(calls) == 4
    assert trunk_store.read(tmp_path, "key", (2, 3), np.float32) is not None


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x7fb", "x" * 5000])
def test_a_path_that_cannot_be_is_a_sentence(name):
    with pytest.raises(UserError, match=r"caracteres de control|no vale"):
        durable.plain_path(name)
