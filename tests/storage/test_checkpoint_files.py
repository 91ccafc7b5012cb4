"""Two checkpoint files: written in turn and in place, verified by their checksum, the newest valid one read."""

import os

import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.errors import UserError
from ocensa_nb.files import tensors as tensor_files
from ocensa_nb.storage.checkpoint_files import CHECKSUM, DTYPES, FILES, CheckpointFiles
from ocensa_nb.storage.run_folder import LAST
from ocensa_nb.training import train
from tests.helpers import crash

TENSORS = {"/w": torch.arange(3.0), "/n": torch.tensor(7), "/mask": torch.tensor([True, False, True])}


@pytest.fixture
def two(tmp_path):
    """Return a folder with the checkpoints 2, in the first file, and 1, in the second."""
    files = CheckpointFiles(tmp_path)
    for step in range(3):
        files.write({"/w": torch.full((5,), float(step))}, {"step": step})
    return tmp_path


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_checkpoints_alternate_between_two_files_in_place(tmp_path):
    files, places = CheckpointFiles(tmp_path), []
    for step in range(6):
        files.write(TENSORS, {"step": step})
        places.append({path.name: path.stat().st_ino for path in tmp_path.iterdir()})
        assert CheckpointFiles(tmp_path).read()[1] == {"step": step}
    assert set(places[-1]) == set(FILES)
    assert all(place == places[-1] for place in places[1:])


def test_checkpoint_is_a_safetensors_file_of_any_dtype(tmp_path):
    tensors = {str(dtype): torch.ones(3, 2).to(dtype) for dtype in DTYPES} | {
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(1.5),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
    }
    CheckpointFiles(tmp_path).write(tensors, None)
    read = load_file(tmp_path / FILES[0])
    assert read.keys() == tensors.keys() | {CHECKSUM}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert all(read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_smaller_checkpoint_over_a_larger_one_is_cut_to_its_length(tmp_path):
    files = CheckpointFiles(tmp_path)
    for size in (1000, 1000, 10):
        files.write({"/w": torch.zeros(size)}, size)
    assert (tmp_path / FILES[0]).stat().st_size < (tmp_path / FILES[1]).stat().st_size
    assert CheckpointFiles(tmp_path).read()[1] == 10


def test_any_flipped_bit_is_detected_and_the_other_checkpoint_is_read(two, capsys):
    newest = two / FILES[0]
    whole = newest.read_bytes()
    for position in range(len(whole)):
        flip(newest, position, position % 8)
        tensors, state = CheckpointFiles(two).read()
        assert state == {"step": 1}, position
        assert torch.equal(tensors["/w"], torch.ones(5))
        assert f"«{newest}» está incompleto o dañado: se usa «{FILES[1]}»" in capsys.readouterr().out
        newest.write_bytes(whole)
    assert CheckpointFiles(two).read()[1] == {"step": 2}


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_checkpoint_cut_short_is_detected_and_the_other_is_read(two, share):
    os.truncate(two / FILES[0], int(share * (two / FILES[0]).stat().st_size))
    assert CheckpointFiles(two).read()[1] == {"step": 1}


def test_checkpoint_after_a_damaged_one_is_written_over_it(two):
    flip(two / FILES[0], 200, 0)
    files = CheckpointFiles(two)
    files.read()
    intact = (two / FILES[1]).read_bytes()
    files.write({"/w": torch.zeros(5)}, {"step": 9})
    assert (two / FILES[1]).read_bytes() == intact
    assert CheckpointFiles(two).read()[1] == {"step": 9}


def test_checkpoint_that_failed_is_written_again_to_the_same_file(two, monkeypatch):
    files = CheckpointFiles(two)
    files.read()
    intact = (two / FILES[0]).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="no queda espacio"):
            files.write({"/w": torch.zeros(5)}, {"step": 3})
    files.write({"/w": torch.zeros(5)}, {"step": 4})
    assert (two / FILES[0]).read_bytes() == intact
    assert CheckpointFiles(two).read()[1] == {"step": 4}


def test_two_damaged_checkpoints_are_refused(two):
    for name in FILES:
        flip(two / name, 200, 3)
    with pytest.raises(UserError, match="ningún punto de control válido"):
        CheckpointFiles(two).read()


def test_training_whose_newest_checkpoint_has_a_flipped_bit_resumes_from_the_one_before(
    run, stopped, notices, tmp_path, capsys
):
    last = tmp_path / "run" / LAST
    newest = max((last / name for name in FILES), key=lambda path: path.stat().st_mtime_ns)
    flip(newest, newest.stat().st_size // 2, 5)
    assert crash.run_content(train.fit(stopped, notices).path) == crash.run_content(run.path)
    said = capsys.readouterr().out
    assert f"«{newest}» está incompleto o dañado" in said
    assert "desde la época 1, paso 0 de 10" in said


def test_single_checkpoint_without_checksum_of_an_older_version_is_resumed(run, stopped, notices, tmp_path, capsys):
    last = tmp_path / "run" / LAST
    tensors, state = CheckpointFiles(last).read()
    del tensors[CHECKSUM]
    for name in FILES:
        (last / name).unlink()
    tensor_files.write(last / FILES[0], tensors, state)
    assert crash.run_content(train.fit(stopped, notices).path) == crash.run_content(run.path)
    assert "desde la época 1, paso 4 de 10" in capsys.readouterr().out
