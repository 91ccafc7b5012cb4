"""The same grid on a cluster of dask.distributed; skipped if it is not installed."""

import os
import signal
import sys
import threading
import time
from multiprocessing import forkserver

import psutil
import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import dask
from ocensa_nb.experiments.case import read_case, read_cases
from ocensa_nb.experiments.run import run_grid
from ocensa_nb.runs.run import Run
from tests.helpers import forked

distributed = pytest.importorskip("distributed")
dask_config = pytest.importorskip("dask.config")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
LIMIT = 150  # seconds
BASE = {"model": "tiny", "freeze_layers": 1, "precision": "fp32", "recipe": "cpu"}


@pytest.fixture(scope="module")
def cluster():
    forked.context()
    forkserver.ensure_running()  # the workers come from the server of the other tests
    with (
        dask_config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
    ):
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(forked.fork_from_here)
        yield cluster


def kill_worker_of(history, epoch, killed):
    """Kill, with SIGKILL, the worker whose case has finished an epoch; record its process id."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and not killed:
        for file in history():
            if f'"epoch": {epoch}' in file.read_text(encoding="utf-8"):
                case = read_case(file.parent.parent).content
                killed.append(psutil.Process(int(case["process"].split("-")[1])).ppid())
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.1)


@pytest.mark.slow
def test_case_of_a_killed_worker_resumes_from_its_checkpoint_on_another(cluster, csv, tmp_path):
    killed = []
    base = {**BASE, "data": str(csv), "epochs": 15, "patience": 15, "checkpoint_minutes": 0.01}
    killer = threading.Thread(
        target=kill_worker_of, args=(lambda: tmp_path.glob("out/cases/*/run/history.jsonl"), 2, killed), daemon=True
    )
    killer.start()
    result = run_grid({"base": base}, tmp_path / "out", backend="dask", scheduler=cluster.scheduler_address)
    assert killed
    assert result["cases"] == {"finished": 1, "failed": 0, "interrupted": 0}
    (case,) = read_cases(tmp_path / "out")
    assert "Continúa «" in (case.folder / "log.txt").read_text(encoding="utf-8")
    assert Run.load(case.run).metrics["epochs"] == 15
    assert not list((tmp_path / "out").glob(".ocensa-*"))


@pytest.mark.slow
def test_folder_that_a_worker_does_not_see_raises_user_error(cluster, csv, tmp_path, monkeypatch):
    here = os.getpid()
    monkeypatch.setattr(dask, "_size", lambda path: 0 if os.getpid() == here else None)
    with pytest.raises(UserError, match=r"no ven la carpeta «.*out».*disco que todas las máquinas vean"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler=cluster.scheduler_address)
    assert [case.status for case in read_cases(tmp_path / "out")] == ["pending"]
    assert not list((tmp_path / "out").glob(".ocensa-*"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no es una dirección", "http://127.0.0.1:1"])
def test_unreachable_scheduler_raises_user_error(address, tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    with pytest.raises(UserError, match="no responde"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler=address)
    assert not (tmp_path / "out").exists()


def test_missing_distributed_raises_user_error_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="pip install distributed"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:1")
