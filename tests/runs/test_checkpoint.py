"""Two alternating checkpoint files, verified by checksum; the newest valid one is read."""

import os

import pytest
import torch
from safetensors.torch import load_file

from ocensa_nb.engine import step as engines
from ocensa_nb.errors import UserError
from ocensa_nb.runs import checkpoint
from ocensa_nb.runs.checkpoint import CHECKSUM, FILES, CheckpointFiles
from ocensa_nb.runs.run import LAST
from ocensa_nb.training import expected_time, quality, train
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


@pytest.mark.parametrize(
    ("epochs", "step_minutes", "validation_minutes", "expected"),
    [
        (4, 0.1, 0.1, [(1, 0), (5, 0)]),  # four and a half minutes
        (3, 0.4, 2.0, [(1, 0), (2, 0), (3, 0), (4, 0)]),  # due after the validation
        (2, 1.0, 0.0, [(1, 0), (1, 5), (1, 10), (2, 5), (2, 10), (3, 0)]),
    ],
)
def test_fit_saves_at_its_start_and_its_end_and_every_five_minutes(
    config, notices, tmp_path, monkeypatch, epochs, step_minutes, validation_minutes, expected
):
    """By an injected clock: ten steps an epoch."""
    minutes, saved, write = [0.0], [], CheckpointFiles.write

    def taking(work, some):
        def timed(*arguments):
            minutes[0] += some
            return work(*arguments)

        return timed

    def noted(files, tensors, tree):
        saved.append((tree["state"]["epoch"], tree["state"]["step"]))
        write(files, tensors, tree)

    monkeypatch.setattr(expected_time, "estimate_time", lambda *_: expected_time.Estimate(1.0, 1.0, 0.0))
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: 60 * minutes[0])
    monkeypatch.setattr(engines, "step_if_finite", taking(engines.step_if_finite, step_minutes))
    monkeypatch.setattr(quality, "validate", taking(quality.validate, validation_minutes))
    monkeypatch.setattr(CheckpointFiles, "write", noted)
    train.fit(config.replace(out=str(tmp_path / "run"), epochs=epochs, patience=epochs), notices)
    assert saved == expected
