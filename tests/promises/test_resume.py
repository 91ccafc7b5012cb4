"""Resume of interrupted training: bit-identical results, history and signals."""

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from ocensa_nb.errors import UserError
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.checkpoint import FILES, CheckpointFiles, CheckpointManager, flatten_state, unflatten_state
from ocensa_nb.runs.manifest import MANIFEST
from ocensa_nb.runs.run import LAST, METRICS, Run
from ocensa_nb.runtime import process
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.training import logger, train
from tests.helpers import crash, forked
from tests.helpers.words import TRAIN

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")

CRASHES = 20 if crash.LONG else 9  # one at each named moment, and the others at random
TRAININGS = {
    "fp32": {"precision": "fp32", "freeze_layers": 0},
    "bf16": {"precision": "bf16", "freeze_layers": 2, "batch_size": 8, "gradient_accumulation_steps": 2},
}


def steps(run):
    return [(line["step"], line["epoch"], line["loss"], line["lr"]) for line in run.history() if "step" in line]


@needs_kill
@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAININGS)
def test_resume_after_sigkill_is_bit_identical(kind, config, tmp_path):
    often = {"epochs": 3, "batch_size": 16, "class_weights": True, "checkpoint_minutes": 0.1 / 60}
    settings = config.replace(**(often | TRAININGS[kind]))
    whole = settings.replace(out=str(tmp_path / "whole"))
    started = time.perf_counter()
    assert crash.train_in_process(whole) == 0
    seconds = time.perf_counter() - started
    expected, lines = crash.run_content(tmp_path / "whole"), steps(Run.load(whole.out))
    assert len(lines) == 60

    points = crash.crash_points(7, CRASHES, seconds)
    mine = (
        points if crash.LONG else points[list(TRAININGS).index(kind) :: len(TRAININGS)]
    )  # each moment in one of the kinds
    for number, (point, when) in enumerate(mine):
        over = True
        while over:  # finished before the crash point: try an earlier one
            out = tmp_path / f"{number}-{when:.3f}"
            code = crash.train_in_process(settings.replace(out=str(out)), point, when)
            over = code == 0 or ((out / MANIFEST).exists() and not (out / LAST).exists())
            when *= 0.7
        assert code == -signal.SIGKILL, point
        if number % 4 == 0:  # crash again while resuming
            code = crash.train_in_process(settings.replace(out=str(out)), "while a checkpoint is read")
        assert code == 0 or crash.train_in_process(settings.replace(out=str(out))) == 0, point
        assert crash.run_content(out) == expected, point
        assert (out / MANIFEST).exists(), point
        assert steps(Run.load(out)) == lines, point
        assert not (out / LAST).exists()


@needs_kill
@pytest.mark.parametrize("save", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_fit_on_full_disk_prints_an_error_and_resumes_bit_identical(run, config, tmp_path, save):
    out = config.replace(out=str(tmp_path / "full"), checkpoint_minutes=0.1 / 60)
    assert crash.train_in_process(out, "full disk", save) == 1
    said = (tmp_path / "full" / crash.MESSAGE_FILE).read_text()
    assert "no se puede escribir" in said.lower()
    assert "el archivo no cabe" in said
    tensors, _ = CheckpointFiles(tmp_path / "full" / LAST).read()  # the previous checkpoint is intact
    assert len(tensors) > 10
    assert not (tmp_path / "full" / METRICS).exists()
    assert crash.train_in_process(out) == 0
    assert crash.run_content(tmp_path / "full") == crash.run_content(run.path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_fit_on_full_tmpfs_raises_user_error(config, notices, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mount is not permitted here")
    try:
        with pytest.raises(UserError, match="no queda espacio en el disco"):
            train.fit(config.replace(out=str(disk / "run")), notices)
        assert not (disk / "run" / METRICS).exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_kill
def test_train_verb_after_sigint_or_sigterm_saves_a_checkpoint_and_resumes(csv, tmp_path):
    run, history = tmp_path / "run", tmp_path / "run/history.jsonl"
    train_verb = [*TRAIN, "--data", csv, "--epochs", 8, "--patience", 8, "--precision", "fp32", "--recipe", "cpu"]
    train_verb += ["--out", run]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = history.stat().st_size if history.exists() else 0
        with forked.start(*train_verb) as running:
            while not history.exists() or history.stat().st_size <= before:
                assert running.poll() is None
                time.sleep(0.05)
            running.send_signal(number)
            _, said = running.communicate()
        assert running.returncode == code
        assert f"Entrenamiento detenido; el avance quedó guardado en «{run}»" in said
        assert "Traceback" not in said
    again = forked.run(*train_verb)
    assert again.returncode == 0
    assert f"Continúa «{run}» desde la época" in again.stdout
    lines = steps(Run.load(run))
    assert [line[0] for line in lines] == list(range(1, len(lines) + 1))


def test_resume_after_stop_is_bit_identical(run, stopped, notices, tmp_path, capsys):
    _, kept = CheckpointFiles(tmp_path / "run" / LAST).read()
    assert kept["state"]["step"] == 4
    resumed = train.fit(stopped, notices)
    assert f"Continúa «{resumed.path}» desde la época 1, paso 4 de 10" in capsys.readouterr().out
    assert crash.run_content(resumed.path) == crash.run_content(run.path)
    assert steps(resumed) == steps(run)


def test_checkpoint_contains_only_trainable_weights(stopped, tmp_path):
    with safe_open(tmp_path / "run" / LAST / FILES[0], framework="pt") as file:
        weights = [name for name in file.keys() if name.startswith("/engine/weights/")]  # noqa: SIM118
    names = {name.removeprefix("/engine/weights/") for name in weights}
    assert any(name.startswith("encoder.encoder.layer.3.") for name in names)
    assert not any(".embeddings." in name or ".layer.0." in name for name in names)


def test_restore_random_state_of_more_gpus_restores_the_cpu_state():
    state = random_state()
    drawn = torch.rand(3)
    restore_random_state([*state, torch.zeros(816, dtype=torch.uint8)] if not torch.cuda.is_available() else state)
    assert torch.equal(torch.rand(3), drawn)


def test_resume_without_checkpoint_restarts_without_duplicate_history_lines(stopped, notices, tmp_path):
    shutil.rmtree(tmp_path / "run" / LAST)
    assert [line[0] for line in steps(Run(tmp_path / "run", {}, {}))] == [1, 2, 3, 4]
    assert [line[0] for line in steps(train.fit(stopped, notices))] == list(range(1, 21))


def test_history_after_failed_writes_has_every_line(config, notices, tmp_path, monkeypatch):
    append, calls = Run.append_history, 0

    def refused_at_first(self, lines):
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise UserError("el disco falla")
        append(self, lines)

    monkeypatch.setattr(logger, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(Run, "append_history", refused_at_first)
    run = train.fit(config.replace(out=str(tmp_path / "run")), notices)
    assert [line[0] for line in steps(run)] == list(range(1, 21))


def test_cut_history_removes_incomplete_line_and_lines_after_the_checkpoint(tmp_path):
    run = Run(tmp_path, {}, {})
    run.append_history([{"step": 1}, {"step": 2}])
    kept, _ = run.settle_history()
    run.append_history([{"step": 3}])
    run.cut_history(kept)
    assert run.history() == [{"step": 1}, {"step": 2}]
    with open(tmp_path / run_folder.HISTORY, "a") as file:
        file.write('{"step":')
    run.cut_history(10_000)
    assert run.settle_history()[0] == kept
    run.cut_history(0)
    assert run.history() == []


def test_resume_with_damaged_checkpoints_raises_user_error(stopped, notices, tmp_path):
    for content in (b"", b"no", None):
        for name in FILES:
            kept = tmp_path / "run" / LAST / name
            kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2] if content is None else content)
        with pytest.raises(UserError, match="dañado"):
            train.fit(stopped, notices)


def test_defer_signals_second_sigint_raises_keyboard_interrupt():
    with process.defer_signals() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_save_if_due_after_failed_write_raises_user_error(tmp_path):
    class Part:
        def state_dict(self):
            return {"weight": torch.ones(3)}

    (tmp_path / "file").write_text("")
    checkpoints = CheckpointManager(tmp_path / "file" / "last", 5, {"part": Part()})
    checkpoints.save()
    concurrent.futures.wait([checkpoints._writing], timeout=30)
    with pytest.raises(UserError, match="parte de la ruta es un archivo"):
        checkpoints.save_if_due()


plain = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(
    plain | st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(torch.tensor),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(trees)
def test_unflatten_state_of_any_flattened_state_is_identical(tree):
    def same(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return all(map(same, a, b)) and len(a) == len(b) if isinstance(a, list) else a == b

    tensors, rest = flatten_state(tree)
    assert same(tree, unflatten_state(tensors, json.loads(json.dumps(rest))))
