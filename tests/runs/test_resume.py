"""Which run a training resumes: rejected changes, numbered folders and locks."""

import dataclasses
import errno
import json
import shutil
import time

import pytest
from filelock import FileLock

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.files.lock import LOCK, lock_folder
from ocensa_nb.runs import manifest, resume
from ocensa_nb.runs import run as run_folder
from ocensa_nb.runs.manifest import MANIFEST
from ocensa_nb.runs.run import LAST, Run
from ocensa_nb.runtime import machine
from ocensa_nb.training import inputs, train
from tests.helpers import forked
from tests.helpers.stopping import StopAfter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3, "seed": 1}, ["epochs: 2 → 3", "seed: 42 → 1"]),
        ({"learning_rate": 1e-5}, ["learning_rate: 0.0002 → 1e-05"]),
        ({"resume": "never"}, ["tiene una corrida sin terminar", "resume = 'auto'"]),
    ],
)
def test_resume_with_other_config_raises_user_error_naming_the_fields(stopped, notices, changes, words):
    with pytest.raises(UserError) as refused:
        train.fit(stopped.replace(**changes), notices)
    for word in words:
        assert word in str(refused.value)


def test_resume_with_other_notices_raises_user_error(stopped, notices):
    other = dataclasses.replace(notices, fingerprint="otra")
    with pytest.raises(UserError, match="los avisos no son los mismos"):
        train.fit(stopped, other)


def stop_after_a_step(monkeypatch, *arguments, **options):
    """Train one step; return the message of the stop, which names the folder."""
    with monkeypatch.context() as patch:
        StopAfter(patch, 1)
        with pytest.raises(AskedToStopError) as stopped:
            train.fit(*arguments, **options)
    return str(stopped.value)


def test_resume_with_other_checkpoint_interval_or_workers_succeeds(stopped, notices):
    assert train.fit(stopped.replace(checkpoint_minutes=1.0, num_workers=1), notices).is_finished()


def test_resume_with_changed_encoder_raises_user_error(stopped, notices, monkeypatch):
    load = inputs.load_encoder
    monkeypatch.setattr(inputs, "load_encoder", lambda name, tokenizer, seed: load(name, tokenizer, seed + 1))
    with pytest.raises(UserError, match="el codificador «tiny» o su tokenizador han cambiado"):
        train.fit(stopped, notices)


def test_resume_on_other_hardware_continues_and_reports_it(stopped, notices, monkeypatch, capsys):
    here = machine.hardware()
    monkeypatch.setattr(machine, "hardware", lambda: dataclasses.replace(here, cores=64, gpu="T4"))
    stop_after_a_step(monkeypatch, stopped, notices)
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


def test_resume_with_other_versions_continues_and_warns(stopped, notices, monkeypatch, capsys):
    monkeypatch.setattr(machine, "versions", lambda: {"torch": "9.9"})
    stop_after_a_step(monkeypatch, stopped, notices)
    assert "(ahora 9.9): puede continuar, pero el resultado no será idéntico bit a bit" in capsys.readouterr().out


def test_fit_without_out_resumes_the_same_config_or_creates_a_numbered_run(
    run, stopped, config, notices, tmp_path, monkeypatch
):
    root = tmp_path / "runs"
    shutil.copytree(tmp_path / "run", root / "run-001")
    shutil.copytree(run.path, root / "run-002")
    other = config.replace(epochs=1)
    assert f"{root / 'run-003'}»" in stop_after_a_step(monkeypatch, other, notices, root=root)
    never = config.replace(resume="never")
    assert f"{root / 'run-004'}»" in stop_after_a_step(monkeypatch, never, notices, root=root)
    shutil.rmtree(root / "run-004")
    assert train.fit(config, notices, root=root).path == root / "run-001"
    assert f"{root / 'run-003'}»" in stop_after_a_step(monkeypatch, other, notices, root=root)
    # All runs of this config are finished.
    assert f"{root / 'run-004'}»" in stop_after_a_step(monkeypatch, config, notices, root=root)


def test_fit_of_run_killed_during_cleanup_returns_the_finished_run(run, config, notices, tmp_path):
    out = shutil.copytree(run.path, tmp_path / "run")
    (out / LAST).mkdir()
    again = train.fit(config.replace(out=str(out)), notices)
    assert again.metadata == run.metadata
    assert not (out / LAST).exists()


def test_fit_with_run_finished_meanwhile_by_another_process_creates_a_new_one(
    stopped, config, notices, tmp_path, monkeypatch
):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = resume.lock_folder

    def finished_first(path):
        if path.name == "run-001":
            (path / MANIFEST).write_text("{}")
            shutil.rmtree(path / LAST)
        return lock(path)

    monkeypatch.setattr(resume, "lock_folder", finished_first)
    assert "run-002»" in stop_after_a_step(monkeypatch, config, notices, root=tmp_path / "runs")


@pytest.mark.parametrize("part", ["device", "versions", "precision", "hardware", "data", "config"])
def test_resume_with_incomplete_config_raises_user_error(stopped, notices, tmp_path, part):
    metadata = json.loads((tmp_path / "run" / run_folder.CONFIG).read_text(encoding="utf-8"))
    del metadata[part], metadata[manifest.CHECKSUM]
    Run(tmp_path / "run", metadata, {}).write_config()
    with pytest.raises(UserError, match=rf"{run_folder.CONFIG}.*dañado"):
        train.fit(stopped, notices)


def test_fit_with_out_of_finished_run_raises_user_error(run, config, notices):
    with pytest.raises(UserError, match="ya contiene otra corrida"):
        train.fit(config.replace(out=str(run.path)), notices)


def hold(folder, held):
    """Lock a folder until the process is killed."""
    _, lock = resume._hold(folder)
    held.set()
    time.sleep(60)
    lock.release()


def test_fit_in_locked_folder_raises_and_after_kill_of_the_holder_succeeds(config, notices, tmp_path):
    out = tmp_path / "run"
    held = forked.context().Event()
    holder = forked.context().Process(target=hold, args=(out, held))
    holder.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match="Otro proceso está entrenando en la carpeta"):
            train.fit(config.replace(out=str(out)), notices)
    finally:
        holder.kill()
        holder.join()
    assert train.fit(config.replace(out=str(out), epochs=1), notices).is_finished()
    assert not (out / LOCK).exists()


def test_lock_on_disk_without_locks_warns_and_on_failing_disk_raises(tmp_path, monkeypatch, capsys):
    def fails(number):
        def acquire(self, timeout):
            raise OSError(number, "in English")

        monkeypatch.setattr(FileLock, "acquire", acquire)

    fails(errno.ENOLCK)
    assert lock_folder(tmp_path) is not None
    assert "no admite bloqueos" in capsys.readouterr().out
    fails(errno.EIO)
    with pytest.raises(UserError, match="el disco falla"):
        lock_folder(tmp_path)
    fails(errno.EACCES)
    assert lock_folder(tmp_path) is None


def test_fit_without_out_skips_a_locked_run_of_the_same_config(stopped, config, notices, tmp_path, monkeypatch):
    shutil.move(tmp_path / "run", tmp_path / "runs/run-001")
    lock = lock_folder(tmp_path / "runs/run-001")
    try:
        assert "run-002»" in stop_after_a_step(monkeypatch, config, notices, root=tmp_path / "runs")
    finally:
        lock.release()
