"""The same grid on a cluster of dask.distributed; skipped if it is not installed."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
import yaml

from ocensa_nb.daily.folder import score_folder
from ocensa_nb.data import synthetic
from ocensa_nb.errors import IncompleteError, UserError
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.experiments import dask
from ocensa_nb.experiments.case import read_case
from ocensa_nb.experiments.run import run_grid
from ocensa_nb.paths import ROOT
from ocensa_nb.runs.run import Run
from tests.helpers import forked
from tests.helpers.experiments import read_cases

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
    monkeypatch.setattr(dask.DaskPool, "_ask", lambda *_: {"tcp://x": dask.RETRIES})
    with pytest.raises(UserError, match=r"no ven la carpeta «.*out».*disco que todas las máquinas vean"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler=cluster.scheduler_address)
    assert [case.status for case in read_cases(tmp_path / "out")] == ["pending"]
    assert not list((tmp_path / "out").glob(".ocensa-*"))


def test_scheduler_that_does_not_listen_raises_user_error(tmp_path, capfd):
    with pytest.raises(UserError, match="no responde"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "address",
    ["tcp://", "http://127.0.0.1:1", "una palabra", "tcp://:8786", "tcp://a:0", "tcp://a:99999", "a:b"],
)
def test_address_that_is_none_raises_user_error_before_anything_connects(address, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"debe ser la dirección.*p\. ej\. tcp://10\.0\.0\.1:8786"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler=address)


COMMANDS = re.search(
    r"^    (dask scheduler)\n    (dask worker .*)\n    python -m ocensa_nb (.*)$",
    (ROOT / "notebooks/README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@contextlib.contextmanager
def started(words, port, place, **environment):
    """Start a command of dask in a folder without the project, as it is installed beside this Python."""
    words = [*words.replace("MAQUINA:8786", f"127.0.0.1:{port}").split(), "--no-dashboard"]
    words[0] = str(Path(sys.executable).parent / words[0])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    process = subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT)


def wait_for_listener(port):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1).close()
        time.sleep(0.1)
    pytest.fail("nobody listens")


@pytest.mark.slow
def test_commands_of_the_readme_run_a_grid_and_say_what_a_worker_lacks(csv, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    content = {"base": {**BASE, "data": str(csv), "epochs": 1}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    scheduler, worker, verb = COMMANDS.groups()
    named = {"GRID.yaml": str(tmp_path / "grid.yaml"), "DIR": str(tmp_path / "out")}
    words = [named.get(word, word) for word in verb.replace("MAQUINA:8786", f"127.0.0.1:{port}").split()]
    with started(f"{scheduler} --port {port}", port, tmp_path):
        wait_for_listener(port)
        with started(worker, port, tmp_path):
            done = forked.run(*words, timeout=LIMIT)
        assert done.returncode == 1
        assert "les falta el paquete ocensa_nb" in done.stderr
        assert "PYTHONPATH" in done.stderr
        with started(worker, port, tmp_path, PYTHONPATH=str(ROOT)):
            done = forked.run(*words, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert "1 caso: 1 terminado" in done.stdout


def test_missing_distributed_raises_user_error_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="pip install distributed"):
        run_grid({"base": BASE}, tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:1")


def test_folder_is_scored_by_workers_a_file_each(cluster, run, tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    for number in (1, 2, 3):
        synthetic.generate(20, number).to_csv(folder / f"{number}.csv", index=False)
    (folder / "broken.csv").write_text("a;b\n1;2\n")
    settings = {"kind": "auto", "source": "linear", "columns": {}, "target": 0.9}
    with pytest.raises(IncompleteError, match=r"Sin resultado: 1 de 4 \(broken.csv\)") as error:
        score_folder(Predictor.load(run), folder, tmp_path / "scored", cluster.scheduler_address, **settings)
    assert "descripcion" in error.value.result["failed"]["broken.csv"]
    (folder / "broken.csv").unlink()
    for name in score_folder(Predictor.load(run), folder, tmp_path / "here", **settings)["files"]:
        assert (tmp_path / "scored" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
