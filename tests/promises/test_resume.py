"""A training that is cut off goes on as if it had never been, wherever it was cut; and nothing of it is lost."""

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
from ocensa_nb.runtime import signals
from ocensa_nb.runtime.seeding import random_state, restore_random_state
from ocensa_nb.storage import resume, run_folder
from ocensa_nb.storage.checkpoint import CheckpointManager, flatten_state, unflatten_state
from ocensa_nb.storage.checkpoint_files import FILES, CheckpointFiles
from ocensa_nb.storage.manifest import MANIFEST
from ocensa_nb.storage.run_folder import LAST, METRICS, Run
from ocensa_nb.training import logger, train
from tests.helpers import crash
from tests.helpers.stopping import StopAfter

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and forked processes")

TRAININGS = {
    "fp32": ({"precision": "fp32", "freeze_layers": 0}, 20),
    "bf16": (
        {"precision": "bf16", "freeze_layers": 2, "batch_size": 8, "gradient_accumulation_steps": 2},
        20 if os.environ.get("OCENSA_LONG") else 9,
    ),
}


def steps(run):
    return [(line["step"], line["epoch"], line["loss"], line["lr"]) for line in run.history() if "step" in line]


@pytest.fixture
def interrupted(config, notices, tmp_path, monkeypatch):
    """Return the config of a training that was stopped in its first epoch."""
    settings = config.replace(out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        StopAfter(patch, 4)
        with pytest.raises(AskedToStopError, match="ejecute lo mismo otra vez"):
            train.fit(settings, notices)
    return settings


@needs_kill
@pytest.mark.parametrize("kind", TRAININGS)
def test_killed_at_any_moment_a_training_ends_with_the_bits_of_one_that_was_not(kind, config, tmp_path):
    own, crashes = TRAININGS[kind]
    often = {"epochs": 3, "batch_size": 16, "class_weights": True, "checkpoint_minutes": 0.1 / 60}
    settings = config.replace(**(often | own))
    whole = settings.replace(out=str(tmp_path / "whole"))
    started = time.perf_counter()
    assert crash.train_in_process(whole) == 0
    seconds = time.perf_counter() - started
    expected, lines = crash.run_content(tmp_path / "whole"), steps(Run.load(whole.out))
    assert len(lines) == 60

    for number, (point, when) in enumerate(crash.crash_points(7, crashes, seconds)):
        over = True
        while over:  # this one was over before it was to die: sooner, then
            out = tmp_path / f"{number}-{when:.3f}"
            code = crash.train_in_process(settings.replace(out=str(out)), point, when)
            over = code == 0 or ((out / MANIFEST).exists() and not (out / LAST).exists())
            when *= 0.7
        assert code == -signal.SIGKILL, point
        if number % 4 == 0:  # and once more, while it reads what the first death left
            code = crash.train_in_process(settings.replace(out=str(out)), "while a checkpoint is read")
        assert code == 0 or crash.train_in_process(settings.replace(out=str(out))) == 0, point
        assert crash.run_content(out) == expected, point
        assert (out / MANIFEST).exists(), point
        assert steps(Run.load(out)) == lines, point
        assert not (out / LAST).exists()


@needs_kill
@pytest.mark.parametrize("save", [2, 4])
def test_a_full_disk_is_a_sentence_and_what_was_kept_goes_on_once_there_is_room(config, tmp_path, save):
    whole, out = (config.replace(out=str(tmp_path / name), epochs=3) for name in ("whole", "full"))
    assert crash.train_in_process(whole) == 0
    assert crash.train_in_process(out, "full disk", save) == 1
    said = (tmp_path / "full" / crash.MESSAGE_FILE).read_text()
    assert "no se puede escribir" in said.lower()
    assert "el archivo no cabe" in said
    tensors, _ = CheckpointFiles(tmp_path / "full" / LAST).read()  # the one before is whole
    assert len(tensors) > 10
    assert not (tmp_path / "full" / METRICS).exists()
    assert crash.train_in_process(out) == 0
    assert crash.run_content(tmp_path / "full") == crash.run_content(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_of_a_megabyte_that_fills_up_is_a_sentence(config, notices, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this container mounts nothing")
    try:
        with pytest.raises(UserError, match="no queda espacio en el disco"):
            train.fit(config.replace(out=str(disk / "run")), notices)
        assert not (disk / "run" / METRICS).exists()
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_the_command_line_keeps_where_it_was_and_says_how_to_go_on(csv, tmp_path, number, code):
    def train_process(out):
        command = [sys.executable, "-m", "ocensa_nb", "train", "--data", csv, "--model", "tiny", "--epochs", "60"]
        command += ["--patience", "60", "--precision", "fp32", "--recipe", "cpu", "--out", out]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever the tests were started with
        )

    running = train_process(tmp_path / "run")
    while not (tmp_path / "run/history.jsonl").exists():
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    assert f"Entrenamiento detenido; lo hecho queda en «{tmp_path / 'run'}»" in said
    assert "Traceback" not in said
    again = train_process(tmp_path / "run")
    shown, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"Continúa «{tmp_path / 'run'}» desde la época" in shown
    lines = steps(Run.load(tmp_path / "run"))
    assert [line[0] for line in lines] == list(range(1, len(lines) + 1))


def test_going_on_gives_what_one_session_gives(interrupted, config, notices, tmp_path, capsys):
    _, kept = CheckpointFiles(tmp_path / "run" / LAST).read()
    assert kept["at"]["step"] == 4
    run = train.fit(interrupted, notices)
    assert f"Continúa «{run.path}» desde la época 1, paso 4 de 10" in capsys.readouterr().out
    whole = train.fit(config.replace(out=str(tmp_path / "whole")), notices)
    assert crash.run_content(run.path) == crash.run_content(whole.path)
    assert steps(run) == steps(whole)


def test_only_what_is_trained_is_kept(interrupted, tmp_path):
    with safe_open(tmp_path / "run" / LAST / FILES[0], framework="pt") as file:
        weights = [name for name in file.keys() if name.startswith("/engine/weights/")]  # noqa: SIM118
    names = {name.removeprefix("/engine/weights/") for name in weights}
    assert any(name.startswith("encoder.encoder.layer.3.") for name in names)
    assert not any(".embeddings." in name or ".layer.0." in name for name in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3, "seed": 1}, ["epochs: 2 → 3", "seed: 42 → 1"]),
        ({"learning_rate": 1e-5}, ["learning_rate: 0.0006 → 1e-05"]),
        ({"resume": "never"}, ["tiene una corrida sin terminar", "resume = 'auto'"]),
    ],
)
def test_another_training_in_its_folder_is_refused_with_the_fields_that_differ(interrupted, notices, changes, words):
    with pytest.raises(UserError) as refused:
        train.fit(interrupted.replace(**changes), notices)
    for word in words:
        assert word in str(refused.value)


def test_other_notices_are_refused(interrupted, notices):
    other = dataclasses.replace(notices, fingerprint="otra")
    with pytest.raises(UserError, match="los avisos no son los mismos"):
        train.fit(interrupted, other)


def test_where_a_run_is_kept_and_how_often_may_change(interrupted, notices):
    assert train.fit(interrupted.replace(checkpoint_minutes=1.0, num_workers=1), notices).is_finished()


def test_an_encoder_that_changed_is_refused(interrupted, notices, monkeypatch):
    load = train.load_encoder
    monkeypatch.setattr(train, "load_encoder", lambda name, tokenizer, seed: load(name, tokenizer, seed + 1))
    with pytest.raises(UserError, match="el codificador «tiny» o su tokenizador han cambiado"):
        train.fit(interrupted, notices)


def test_another_machine_goes_on_and_says_so(interrupted, notices, monkeypatch, capsys):
    here = train.environment.hardware()
    monkeypatch.setattr(train.environment, "hardware", lambda: dataclasses.replace(here, cores=64, gpu="T4"))
    train.fit(interrupted, notices)
    assert f"GPU ninguna (ahora T4), núcleos {here.cores} (ahora 64): continúa bien" in capsys.readouterr().out


def test_the_precision_of_then_is_kept_on_the_device_of_then(config, notices, tmp_path):
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


def test_a_random_state_of_more_gpus_than_there_are_is_put_back_as_far_as_it_goes():
    state = random_state()
    drawn = torch.rand(3)
    restore_random_state([*state, torch.zeros(816, dtype=torch.uint8)] if not torch.cuda.is_available() else state)
    assert torch.equal(torch.rand(3), drawn)


def test_another_version_goes_on_and_says_it_is_not_bit_for_bit(interrupted, notices, monkeypatch, capsys):
    monkeypatch.setattr(train.environment, "versions", lambda: {"torch": "9.9"})
    train.fit(interrupted, notices)
    assert "(ahora 9.9): continúa bien, pero no quedará igual bit a bit" in capsys.readouterr().out


def test_without_a_name_the_same_training_is_found_and_another_gets_the_next_number(
    config, notices, tmp_path, monkeypatch
):
    root = tmp_path / "runs"
    with monkeypatch.context() as patch:
        StopAfter(patch, 4)
        with pytest.raises(AskedToStopError):
            train.fit(config, notices, root=root)
    other = config.replace(epochs=1)
    assert train.fit(other, notices, root=root).path == root / "run-002"
    assert train.fit(config.replace(resume="never", epochs=1), notices, root=root).path == root / "run-003"
    assert train.fit(config, notices, root=root).path == root / "run-001"
    assert train.fit(other, notices, root=root).path == root / "run-004"  # all are finished now


def test_one_that_died_while_it_tidied_up_is_the_finished_run_that_it_is(run, config, notices, tmp_path):
    out = shutil.copytree(run.path, tmp_path / "run")
    (out / LAST).mkdir()
    again = train.fit(config.replace(out=str(out)), notices)
    assert again.metadata == run.metadata
    assert not (out / LAST).exists()


def test_lines_of_a_session_that_died_before_its_first_checkpoint_are_not_there_twice(interrupted, notices, tmp_path):
    shutil.rmtree(tmp_path / "run" / LAST)
    assert [line[0] for line in steps(Run(tmp_path / "run", {}, {}))] == [1, 2, 3, 4]
    assert [line[0] for line in steps(train.fit(interrupted, notices))] == list(range(1, 21))


def test_one_that_another_process_finished_meanwhile_is_left_alone(interrupted, config, notices, tmp_path, monkeypatch):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = resume._lock

    def finished_first(path):
        if path.name == "run-001":
            (path / METRICS).write_text("{}")
            shutil.rmtree(path / LAST)
        return lock(path)

    monkeypatch.setattr(resume, "_lock", finished_first)
    assert train.fit(config, notices, root=tmp_path / "runs").path.name == "run-002"


@pytest.mark.parametrize("part", ["device", "versions", "precision", "hardware", "data", "config"])
def test_a_damaged_config_is_a_sentence(interrupted, notices, tmp_path, part):
    metadata = json.loads((tmp_path / "run" / run_folder.CONFIG).read_text(encoding="utf-8"))
    del metadata[part], metadata[run_folder.CHECKSUM]  # as an earlier version would have written it
    (tmp_path / "run" / run_folder.CONFIG).write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(UserError, match="dañada"):
        train.fit(interrupted, notices)


def test_a_disk_that_refuses_the_history_for_a_while_costs_no_line(config, notices, tmp_path, monkeypatch):
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


def test_half_a_line_of_the_history_is_cut_off_with_what_is_beyond_the_checkpoint(tmp_path):
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


def test_a_finished_run_is_never_written_over(run, config, notices):
    with pytest.raises(UserError, match="ya contiene otra corrida"):
        train.fit(config.replace(out=str(run.path)), notices)


def test_a_damaged_checkpoint_is_a_sentence(interrupted, notices, tmp_path):
    for content in (b"", b"no", None):
        for name in FILES:
            kept = tmp_path / "run" / LAST / name
            kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2] if content is None else content)
        with pytest.raises(UserError, match="dañado"):
            train.fit(interrupted, notices)


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(config, notices, tmp_path):
    out = tmp_path / "run"
    program = (
        "import sys, time; from pathlib import Path; from ocensa_nb.storage import resume\n"
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


def test_a_disk_without_locks_is_said_and_one_that_fails_is_a_sentence(tmp_path, monkeypatch, capsys):
    def fails(number):
        def acquire(self, timeout):
            raise OSError(number, "in English")

        monkeypatch.setattr(resume.FileLock, "acquire", acquire)

    fails(errno.ENOLCK)
    assert resume._lock(tmp_path) is not None
    assert "no tiene bloqueos" in capsys.readouterr().out
    fails(errno.EIO)
    with pytest.raises(UserError, match="el disco falla"):
        resume._lock(tmp_path)
    fails(errno.EACCES)
    assert resume._lock(tmp_path) is None


def test_a_locked_run_of_the_same_training_is_left_alone(interrupted, config, notices, tmp_path):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = resume._lock(tmp_path / "runs/run-001")
    try:
        assert train.fit(config, notices, root=tmp_path / "runs").path.name == "run-002"
    finally:
        lock.release()


def test_a_second_ctrl_c_is_obeyed_at_once():
    with signals.defer_signals() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_next_step(tmp_path):
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
def test_any_state_comes_back_as_it_was_taken_apart(tree):
    def same(a, b):
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return all(map(same, a, b)) and len(a) == len(b) if isinstance(a, list) else a == b

    tensors, rest = flatten_state(tree)
    assert same(tree, unflatten_state(tensors, json.loads(json.dumps(rest))))
