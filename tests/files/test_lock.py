"""Heartbeat lock of a run folder, for disks without `flock`: one process at a time, stale locks are taken over."""

import errno
import json
import os
import platform
import re
import signal
import socket
import threading
import time
from dataclasses import asdict, replace

import pytest

from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.files import lock as heartbeat_lock
from ocensa_nb.files.lock import HEARTBEAT, STALE_SECONDS, HeartbeatLock, Holder, lock_folder
from ocensa_nb.runs import resume
from ocensa_nb.runtime import process as signals
from ocensa_nb.training import train
from tests.helpers import crash, forked

fcntl = pytest.importorskip("fcntl", reason="Windows locks files on any disk")


def flock(*_):
    raise OSError(errno.ENOSYS, "no locks")


@pytest.fixture(autouse=True)
def no_flock(monkeypatch):
    """Simulate a disk without `flock`."""
    monkeypatch.setattr(fcntl, "flock", flock)


def hold(folder, host):
    """Lock a folder on a disk without `flock`, on the given host, and die."""
    fcntl.flock = flock
    if host:
        platform.node = socket.gethostname = lambda: host
    resume._hold(folder)
    os.kill(os.getpid(), signal.SIGKILL)


def lock_by_killed_process(folder, host=""):
    """Lock a folder from another process, on this host or on the given one, that is killed."""
    process = forked.context().Process(target=hold, args=(folder, host))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def age(folder, seconds):
    """Set the modification time of the locks of a folder to so many seconds ago."""
    for file in folder.glob(".lock*"):
        os.utime(file, (time.time() - seconds,) * 2)


def write_foreign_lock(folder, **changes):
    """Write the lock of a process on another host, with the given changes; return its path."""
    path = folder / HEARTBEAT
    path.write_text(json.dumps(asdict(replace(Holder.here(), host="otro", **changes))), encoding="utf-8")
    return path


def test_lock_of_killed_process_is_taken_over_at_once(tmp_path, capsys):
    lock_by_killed_process(tmp_path / "run")
    _, lock = resume._hold(tmp_path / "run")
    lock.release()
    assert re.search(r"Se toma la carpeta .*que la usaba, ya no existe", capsys.readouterr().out)


def test_lock_of_dead_host_is_taken_over_after_ten_minutes(tmp_path, capsys):
    lock_by_killed_process(tmp_path / "run", "otro-equipo")
    age(tmp_path / "run", STALE_SECONDS + 1)
    _, lock = resume._hold(tmp_path / "run")
    lock.release()
    assert re.search(r"proceso \d+ de «otro-equipo».* no da señales desde hace 10 min", capsys.readouterr().out)


def test_lock_of_other_host_within_ten_minutes_is_refused_with_the_wait(tmp_path):
    lock_by_killed_process(tmp_path / "run", "otro-equipo")
    age(tmp_path / "run", 180)
    with pytest.raises(UserError, match=r"«otro-equipo», que dio señales hace 18\d s.*dentro de 7 min"):
        resume._hold(tmp_path / "run")


def test_fit_of_run_locked_by_other_host_within_ten_minutes_starts_no_new_run(config, notices, tmp_path, monkeypatch):
    def stopped(asked, *_):
        raise AskedToStopError("detenido", signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(signals.StopRequest, "check", stopped)
        with pytest.raises(AskedToStopError):
            train.fit(config, notices, root=tmp_path)
    write_foreign_lock(tmp_path / "run-001")
    with pytest.raises(UserError, match="dentro de 10 min: continúa donde quedó"):
        train.fit(config, notices, root=tmp_path)
    assert not (tmp_path / "run-002").exists()


def test_lock_of_live_process_is_refused_even_if_stale(tmp_path):
    lock = lock_folder(tmp_path)
    age(tmp_path, 10 * STALE_SECONDS)
    with pytest.raises(UserError, match="en esta máquina"):
        lock_folder(tmp_path)
    lock.release()
    lock_folder(tmp_path).release()
    assert not (tmp_path / HEARTBEAT).exists()


def test_lock_of_dead_process_with_reused_pid_is_taken_over(tmp_path):
    here = Holder.here()
    (tmp_path / HEARTBEAT).write_text(json.dumps(asdict(replace(here, started=here.started - 3600))), encoding="utf-8")
    lock_folder(tmp_path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', '{"host":"a","pid":1,"started":1,"id":"../x"}'])
def test_damaged_lock_is_refused_until_it_is_ten_minutes_old(tmp_path, content):
    (tmp_path / HEARTBEAT).write_text(content)
    with pytest.raises(UserError, match="un proceso desconocido"):
        lock_folder(tmp_path)
    age(tmp_path, STALE_SECONDS + 1)
    lock_folder(tmp_path).release()


def test_lock_with_filelock_soft_fallback_is_a_heartbeat_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat_lock, "NO_FALLBACK", {})
    lock = lock_folder(tmp_path)
    assert isinstance(lock, HeartbeatLock)
    lock.release()


def test_stale_lock_with_competing_threads_is_acquired_by_exactly_one(tmp_path):
    for _ in range(20):
        write_foreign_lock(tmp_path)
        age(tmp_path, STALE_SECONDS + 1)
        locks = [HeartbeatLock(tmp_path / HEARTBEAT) for _ in range(8)]
        together, winners = threading.Barrier(len(locks)), []

        def compete(lock, together=together, winners=winners):
            together.wait()
            try:
                lock.acquire()
                winners.append(lock)
            except UserError:
                pass

        threads = [threading.Thread(target=compete, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners[0].check()
        winners[0].release()
        assert list(tmp_path.iterdir()) == []


def test_lock_taken_over_between_check_and_claim_is_refused(tmp_path, monkeypatch):
    path = write_foreign_lock(tmp_path)
    age(tmp_path, STALE_SECONDS + 1)
    quick, slow = HeartbeatLock(path), HeartbeatLock(path)
    refuse = slow._refuse_live

    def late(holder, since):
        refuse(holder, since)
        monkeypatch.setattr(slow, "_refuse_live", refuse)
        quick.acquire()

    monkeypatch.setattr(slow, "_refuse_live", late)
    with pytest.raises(UserError, match="en esta máquina"):
        slow.acquire()
    quick.check()
    quick.release()


def test_claim_of_process_killed_during_take_over_is_removed(tmp_path):
    path = write_foreign_lock(tmp_path)
    claim = path.with_name(f"{HEARTBEAT}-{json.loads(path.read_text())['id']}")
    claim.write_text(path.read_text())
    age(tmp_path, STALE_SECONDS + 1)
    lock = lock_folder(tmp_path)
    assert not claim.exists()
    lock.check()
    lock.release()


def test_held_lock_is_refreshed_periodically(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat_lock, "REFRESH_SECONDS", 0.01)
    lock = lock_folder(tmp_path)
    age(tmp_path, 1000)
    deadline = time.monotonic() + 30
    while time.time() - (tmp_path / HEARTBEAT).stat().st_mtime > 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock.release()


def test_fit_that_lost_its_lock_stops_and_writes_nothing_more(config, notices, tmp_path, monkeypatch):
    def content():
        return {file: file.read_bytes() for file in sorted((tmp_path / "run").rglob("*")) if file.is_file()}

    def check(asked, folder, *_):
        calls.append(1)
        if len(calls) == 4:  # as if another host took the run over while this one was suspended
            write_foreign_lock(folder)
            left.update(content())

    calls, left = [], {}
    monkeypatch.setattr(signals.StopRequest, "check", check)
    with pytest.raises(UserError, match="no escribe nada más"):
        train.fit(config.replace(out=str(tmp_path / "run")), notices)
    assert content() == left
    assert Holder.parse((tmp_path / "run" / HEARTBEAT).read_text()).host == "otro"


def test_fit_without_flock_is_bit_identical_and_leaves_no_lock(run, config, notices, tmp_path):
    other = train.fit(config.replace(out=str(tmp_path / "run")), notices)
    assert crash.run_content(other.path) == crash.run_content(run.path)
    assert not list(other.path.glob(".lock*"))
