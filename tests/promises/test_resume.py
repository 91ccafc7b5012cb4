"""Resume of interrupted training: bit-identical results, rejected changes, history, locks and signals."""

import concurrent.futures
import dataclasses
import errno
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

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.paths import ROOT
from ocensa_nb.runs import resume
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.checkpoint import FILES, CheckpointFiles, CheckpointManager, flatten_state, unflatten_state
from ocensa_nb.runs.manifest import MANIFEST
from ocensa_nb.runs.run import LAST, METRICS, Run
from ocensa_nb.runtime import machine, process
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.training import inputs, logger, train
from tests.helpers import crash
from tests.helpers.stopping import StopAfter

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")

CRASHES = 20 if os.environ.get("OCENSA_LONG") else 9  # one at each named moment, and the others at random
TRAININGS = {
    "fp32": {"precision": "fp32", "freeze_layers": 0},
    "bf16": {"precision": "bf16", "freeze_layers": 2, "batch_size": 8, "gradient_accumulation_steps": 2},
}


def steps(run):
    return [(line["step"], line["epoch"], line["loss"], line["lr"]) for line in run.history() if "step" in line]


@pytest.fixture
def interrupted(config, notices, tmp_path, monkeypatch):
    """Return the config of a training interrupted in its first epoch."""
    settings = config.replace(out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        StopAfter(patch, 4)
        with pytest.raises(AskedToStopError, match="ejecute lo mismo otra vez"):
            train.fit(settings, notices)
    return settings


@needs_kill
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

    for number, (point, when) in enumerate(crash.crash_points(7, CRASHES, seconds)):
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
@pytest.mark.parametrize("save", [2, 4])
def test_fit_on_full_disk_prints_an_error_and_resumes_bit_identical(config, tmp_path, save):
    whole, out = (config.replace(out=str(tmp_path / name), epochs=3) for name in ("whole", "full"))
    assert crash.train_in_process(whole) == 0
    assert crash.train_in_process(out, "full disk", save) == 1
    said = (tmp_path / "full" / crash.MESSAGE_FILE).read_text()
    assert "no se puede escribir" in said.lower()
    assert "el archivo no cabe" in said
    tensors, _ = CheckpointFiles(tmp_path / "full" / LAST).read()  # the previous checkpoint is intact
    assert len(tensors) > 10
    assert not (tmp_path / "full" / METRICS).exists()
    assert crash.train_in_process(out) == 0
    assert crash.run_content(tmp_path / "full") == crash.run_content(tmp_path / "whole")


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
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_train_verb_after_sigint_or_sigterm_saves_a_checkpoint_and_resumes(csv, tmp_path, number, code):
    def train_process(out):
        command = [
            sys.executable,
            "-m",
            "ocensa_nb",
            "train",
            "--data",
            csv,
            "--model",
            "tiny",
            "--freeze-layers",
            "1",
            "--epochs",
            "60",
        ]
        command += ["--patience", "60", "--precision", "fp32", "--recipe", "cpu", "--out", out]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # even if the test process ignores it
        )

    running = train_process(tmp_path / "run")
    while not (tmp_path / "run/history.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert f"Entrenamiento detenido; el avance quedó guardado en «{tmp_path / 'run'}»" in said
    assert "Traceback" not in said
    again = train_process(tmp_path / "run")
    shown, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"Continúa «{tmp_path / 'run'}» desde la época" in shown
    lines = steps(Run.load(tmp_path / "run"))
    assert [line[0] for line in lines] == list(range(1, len(lines) + 1))


def test_resume_after_stop_is_bit_identical(interrupted, config, notices, tmp_path, capsys):
    _, kept = CheckpointFiles(tmp_path / "run" / LAST).read()
    assert kept["state"]["step"] == 4
    run = train.fit(interrupted, notices)
    assert f"Continúa «{run.path}» desde la época 1, paso 4 de 10" in capsys.readouterr().out
    whole = train.fit(config.replace(out=str(tmp_path / "whole")), notices)
    assert crash.run_content(run.path) == crash.run_content(whole.path)
    assert steps(run) == steps(whole)


def test_checkpoint_contains_only_trainable_weights(interrupted, tmp_path):
    with safe_open(tmp_path / "run" / LAST / FILES[0], framework="pt") as file:
        weights = [name for name in file.keys() if name.startswith("/engine/weights/")]  # noqa: SIM118
    names = {name.removeprefix("/engine/weights/") for name in weights}
    assert any(name.startswith("encoder.encoder.layer.3.") for name in names)
    assert not any(".embeddings." in name or ".layer.0." in name for name in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3, "seed": 1}, ["epochs: 2 → 3", "seed: 42 → 1"]),
        ({"learning_rate": 1e-5}, ["learning_rate: 0.0002 → 1e-05"]),
        ({"resume": "never"}, ["tiene una corrida sin terminar", "resume = 'auto'"]),
    ],
)
def test_resume_with_other_config_raises_user_error_naming_the_fields(interrupted, notices, changes, words):
    with pytest.raises(UserError) as refused:
        train.fit(interrupted.replace(**changes), notices)
    for word in words:
        assert word in str(refused.value)


def test_resume_with_other_notices_raises_user_error(interrupted, notices):
    other = dataclasses.replace(notices, fingerprint="otra")
    with pytest.raises(UserError, match="los avisos no son los mismos"):
        train.fit(interrupted, other)


def test_resume_with_other_checkpoint_interval_or_workers_succeeds(interrupted, notices):
    assert train.fit(interrupted.replace(checkpoint_minutes=1.0, num_workers=1), notices).is_finished()


def test_resume_with_changed_encoder_raises_user_error(interrupted, notices, monkeypatch):
    load = inputs.load_encoder
    monkeypatch.setattr(inputs, "load_encoder", lambda name, tokenizer, seed: load(name, tokenizer, seed + 1))
    with pytest.raises(UserError, match="el codificador «tiny» o su tokenizador han cambiado"):
        train.fit(interrupted, notices)


def test_resume_on_other_hardware_continues_and_reports_it(interrupted, notices, monkeypatch, capsys):
    here = machine.hardware()
    monkeypatch.setattr(machine, "hardware", lambda: dataclasses.replace(here, cores=64, gpu="T4"))
    train.fit(interrupted, notices)
    assert f"GPU ninguna (ahora T4), núcleos {here.cores} (ahora 64): puede continuar" in capsys.readouterr().out


def test_resume_on_same_device_keeps_the_precision(config, notices, tmp_path):
    metadata = {
        "device": "cpu",
        "precision": "bf16",
        "hardware": {"gpu": "", "system": "x", "cores": 2},
        "versions": {},
    }
    now = metadata | {"precision": "fp32"}
    resume._keep_precision(now, metadata)
    assert now["precision"] == "bf16"
    other = metadata | {"precision": "fp16", "hardware": metadata["hardware"] | {"gpu": "T4"}}
    resume._keep_precision(other, metadata)
    assert other["precision"] == "fp16"


def test_restore_random_state_of_more_gpus_restores_the_cpu_state():
    state = random_state()
    drawn = torch.rand(3)
    restore_random_state([*state, torch.zeros(816, dtype=torch.uint8)] if not torch.cuda.is_available() else state)
    assert torch.equal(torch.rand(3), drawn)


def test_resume_with_other_versions_continues_and_warns(interrupted, notices, monkeypatch, capsys):
    monkeypatch.setattr(machine, "versions", lambda: {"torch": "9.9"})
    train.fit(interrupted, notices)
    assert "(ahora 9.9): puede continuar, pero el resultado no será idéntico bit a bit" in capsys.readouterr().out


def test_fit_without_out_resumes_the_same_config_or_creates_a_numbered_run(config, notices, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    with monkeypatch.context() as patch:
        StopAfter(patch, 4)
        with pytest.raises(AskedToStopError):
            train.fit(config, notices, root=root)
    other = config.replace(epochs=1)
    assert train.fit(other, notices, root=root).path == root / "run-002"
    assert train.fit(config.replace(resume="never", epochs=1), notices, root=root).path == root / "run-003"
    assert train.fit(config, notices, root=root).path == root / "run-001"
    assert train.fit(other, notices, root=root).path == root / "run-004"  # all of them are finished


def test_fit_of_run_killed_during_cleanup_returns_the_finished_run(run, config, notices, tmp_path):
    out = shutil.copytree(run.path, tmp_path / "run")
    (out / LAST).mkdir()
    again = train.fit(config.replace(out=str(out)), notices)
    assert again.metadata == run.metadata
    assert not (out / LAST).exists()


def test_resume_without_checkpoint_restarts_without_duplicate_history_lines(interrupted, notices, tmp_path):
    shutil.rmtree(tmp_path / "run" / LAST)
    assert [line[0] for line in steps(Run(tmp_path / "run", {}, {}))] == [1, 2, 3, 4]
    assert [line[0] for line in steps(train.fit(interrupted, notices))] == list(range(1, 21))


def test_fit_with_run_finished_meanwhile_by_another_process_creates_a_new_one(
    interrupted, config, notices, tmp_path, monkeypatch
):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = resume.lock_folder

    def finished_first(path):
        if path.name == "run-001":
            (path / MANIFEST).write_text("{}")
            shutil.rmtree(path / LAST)
        return lock(path)

    monkeypatch.setattr(resume, "lock_folder", finished_first)
    assert train.fit(config, notices, root=tmp_path / "runs").path.name == "run-002"


@pytest.mark.parametrize("part", ["device", "versions", "precision", "hardware", "data", "config"])
def test_resume_with_incomplete_config_raises_user_error(interrupted, notices, tmp_path, part):
    metadata = json.loads((tmp_path / "run" / run_folder.CONFIG).read_text(encoding="utf-8"))
    del metadata[part], metadata[run_folder.CHECKSUM]
    Run(tmp_path / "run", metadata, {}).write_config()
    with pytest.raises(UserError, match="dañada"):
        train.fit(interrupted, notices)


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
    kept = run.settle_history()
    run.append_history([{"step": 3}])
    run.cut_history(kept)
    assert run.history() == [{"step": 1}, {"step": 2}]
    with open(tmp_path / run_folder.HISTORY, "a") as file:
        file.write('{"step":')
    run.cut_history(10_000)
    assert run.settle_history() == kept
    run.cut_history(0)
    assert run.history() == []


def test_fit_with_out_of_finished_run_raises_user_error(run, config, notices):
    with pytest.raises(UserError, match="ya contiene otra corrida"):
        train.fit(config.replace(out=str(run.path)), notices)


def test_resume_with_damaged_checkpoints_raises_user_error(interrupted, notices, tmp_path):
    for content in (b"", b"no", None):
        for name in FILES:
            kept = tmp_path / "run" / LAST / name
            kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2] if content is None else content)
        with pytest.raises(UserError, match="dañado"):
            train.fit(interrupted, notices)


def test_fit_in_locked_folder_raises_and_after_kill_of_the_holder_succeeds(config, notices, tmp_path):
    out = tmp_path / "run"
    program = (
        "import sys, time; from pathlib import Path; from ocensa_nb.runs import resume\n"
        f"held = resume._hold(Path({str(out)!r})); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="Otro proceso está entrenando en la carpeta"):
            train.fit(config.replace(out=str(out)), notices)
    finally:
        holder.kill()
        holder.wait()
    assert train.fit(config.replace(out=str(out), epochs=1), notices).is_finished()
    assert not (out / run_folder.LOCK).exists()


def test_lock_on_disk_without_locks_warns_and_on_failing_disk_raises(tmp_path, monkeypatch, capsys):
    def fails(number):
        def acquire(self, timeout):
            raise OSError(number, "in English")

        monkeypatch.setattr(resume.FileLock, "acquire", acquire)

    fails(errno.ENOLCK)
    assert resume.lock_folder(tmp_path) is not None
    assert "no admite bloqueos" in capsys.readouterr().out
    fails(errno.EIO)
    with pytest.raises(UserError, match="el disco falla"):
        resume.lock_folder(tmp_path)
    fails(errno.EACCES)
    assert resume.lock_folder(tmp_path) is None


def test_fit_without_out_skips_a_locked_run_of_the_same_config(interrupted, config, notices, tmp_path):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = resume.lock_folder(tmp_path / "runs/run-001")
    try:
        assert train.fit(config, notices, root=tmp_path / "runs").path.name == "run-002"
    finally:
        lock.release()


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
