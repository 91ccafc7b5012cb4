"""Two alternating checkpoint files, verified by checksum; the newest valid one is read."""

import os

import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.errors import UserError
from ocensa_nb.runs.checkpoint import CHECKSUM, FILES, CheckpointFiles
from ocensa_nb.runs.run import LAST
from ocensa_nb.training import train
from tests.helpers import crash

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
TENSORS = {"/w": torch.arange(3.0), "/n": torch.tensor(7), "/mask": torch.tensor([True, False, True])}


@pytest.fixture
def checkpoints(tmp_path):
    """Return a folder with checkpoint 2 in the first file and checkpoint 1 in the second."""
    files = CheckpointFiles(tmp_path)
    for step in range(3):
        files.write({"/w": torch.full((5,), float(step))}, {"step": step})
    return tmp_path


def flip(path, position, bit):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_write_checkpoints_alternates_between_two_files_in_place(tmp_path):
    files, places = CheckpointFiles(tmp_path), []
    for step in range(6):
        files.write(TENSORS, {"step": step})
        places.append({path.name: path.stat().st_ino for path in tmp_path.iterdir()})
        assert CheckpointFiles(tmp_path).read()[1] == {"step": step}
    assert set(places[-1]) == set(FILES)
    assert all(place == places[-1] for place in places[1:])


def test_write_checkpoint_of_any_dtype_is_a_valid_safetensors_file(tmp_path):
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


def test_smaller_checkpoint_over_a_larger_one_truncates_the_file(tmp_path):
    files = CheckpointFiles(tmp_path)
    for size in (1000, 1000, 10):
        files.write({"/w": torch.zeros(size)}, size)
    assert (tmp_path / FILES[0]).stat().st_size < (tmp_path / FILES[1]).stat().st_size
    assert CheckpointFiles(tmp_path).read()[1] == 10


def test_read_checkpoint_with_any_flipped_bit_falls_back_to_the_previous_one(checkpoints, capsys):
    newest = checkpoints / FILES[0]
    whole = newest.read_bytes()
    for position in range(len(whole)):
        flip(newest, position, position % 8)
        tensors, state = CheckpointFiles(checkpoints).read()
        assert state == {"step": 1}, position
        assert torch.equal(tensors["/w"], torch.ones(5))
        assert f"«{newest}» está incompleto o dañado: se usa «{FILES[1]}»" in capsys.readouterr().out
        newest.write_bytes(whole)
    assert CheckpointFiles(checkpoints).read()[1] == {"step": 2}


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_read_truncated_checkpoint_falls_back_to_the_previous_one(checkpoints, share):
    os.truncate(checkpoints / FILES[0], int(share * (checkpoints / FILES[0]).stat().st_size))
    assert CheckpointFiles(checkpoints).read()[1] == {"step": 1}


def test_write_after_damaged_checkpoint_overwrites_it(checkpoints):
    flip(checkpoints / FILES[0], 200, 0)
    files = CheckpointFiles(checkpoints)
    files.read()
    intact = (checkpoints / FILES[1]).read_bytes()
    files.write({"/w": torch.zeros(5)}, {"step": 9})
    assert (checkpoints / FILES[1]).read_bytes() == intact
    assert CheckpointFiles(checkpoints).read()[1] == {"step": 9}


def test_write_after_failed_write_uses_the_same_file(checkpoints, monkeypatch):
    files = CheckpointFiles(checkpoints)
    files.read()
    intact = (checkpoints / FILES[0]).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="no queda espacio"):
            files.write({"/w": torch.zeros(5)}, {"step": 3})
    files.write({"/w": torch.zeros(5)}, {"step": 4})
    assert (checkpoints / FILES[0]).read_bytes() == intact
    assert CheckpointFiles(checkpoints).read()[1] == {"step": 4}


def test_read_two_damaged_checkpoints_raises_user_error(checkpoints):
    for name in FILES:
        flip(checkpoints / name, 200, 3)
    with pytest.raises(UserError, match="está dañado"):
        CheckpointFiles(checkpoints).read()


def test_resume_with_flipped_bit_in_newest_checkpoint_uses_the_previous_one(run, stopped, notices, tmp_path, capsys):
    last = tmp_path / "run" / LAST
    newest = max((last / name for name in FILES), key=lambda path: path.stat().st_mtime_ns)
    flip(newest, newest.stat().st_size // 2, 5)
    assert crash.run_content(train.fit(stopped, notices).path) == crash.run_content(run.path)
    said = capsys.readouterr().out
    assert f"«{newest}» está incompleto o dañado" in said
    assert "desde la época 1, paso 0 de 10" in said
