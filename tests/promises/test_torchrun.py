"""Training by torchrun: a process that dies, a signal to one of them, and other numbers of processes."""

import logging
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ocensa_nb.cli import main as cli
from ocensa_nb.runs.run import LAST, Run
from tests.helpers.crash import LONG

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_processes"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]

TWO = ("--processes", "2")
LAST_SECONDS = 60  # after the death of a process, until the job has ended


def start(csv, out, log, *launcher, options=()):
    """Start a training of some minutes with a launcher before `-m ocensa_nb`, and return its process."""
    words = ["--data", str(csv), "--out", str(out), *options]
    with open(log, "wb") as file:
        return subprocess.Popen(
            [*launcher, "-m", "ocensa_nb", "train", "--model", "tiny", "--freeze-layers", "1", "--precision", "fp32",
             "--recipe", "cpu", "--epochs", "400", "--patience", "400", *words],
            stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OCENSA_LINE_SECONDS": "1"},
        )  # fmt: skip


def wait_for(words, log, process, seconds=120):
    until = time.monotonic() + seconds
    while words not in log.read_text(encoding="utf-8", errors="replace"):
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        assert time.monotonic() < until, f"no «{words}» in {seconds} s"
        time.sleep(0.2)


def of_job(process):
    """Return the two processes of a launcher, by their ranks."""
    while len(children := psutil.Process(process.pid).children()) < 2:
        time.sleep(0.02)
    return sorted(children, key=lambda child: child.pid)


@pytest.fixture(scope="module")
def torchrun():
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_killed_or_stopped_process_ends_the_job_with_a_message_and_a_checkpoint(csv, tmp_path, torchrun):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    job = start(csv, out, log, *torchrun)
    wait_for("Entrenando:", log, job)
    of_job(job)[1].kill()
    assert job.wait(LAST_SECONDS) != 0
    text = log.read_text(encoding="utf-8")
    assert text.count("Otro de los procesos que trabajan juntos terminó de forma inesperada") == 1
    assert (out / LAST).exists()

    job = start(csv, out, log, *torchrun)
    wait_for("Continúa «", log, job)
    wait_for("Entrenando:", log, job)
    of_job(job)[1].send_signal(signal.SIGTERM)
    assert job.wait(LAST_SECONDS) != 0
    text = log.read_text(encoding="utf-8")
    assert text.count("Entrenamiento detenido; el avance quedó guardado en") == 1
    assert "Error" not in text.partition("Traceback")[0]  # torchrun prints its own report

    job = start(csv, out, log, sys.executable)
    wait_for("Los procesos eran 2 al guardar el entrenamiento, y ahora son 1", log, job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(LAST_SECONDS) == 128 + signal.SIGTERM


@pytest.fixture
def logging_again():
    """Turn logging on again after a launcher, which turns it off."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("logging_again")
def test_processes_option_ends_with_the_exit_code_and_message_of_the_verb(config, tmp_path, capfd):
    short = ["train", "--model", "tiny", "--freeze-layers", "1", "--precision", "fp32", "--epochs", "1"]
    words = [*short, "--data", config.data, "--out", str(tmp_path / "run"), "--processes", "2"]
    assert cli.main([*words, "--json", str(tmp_path / "result.json")]) == 0
    assert (tmp_path / "result.json").exists()
    assert Run.load(tmp_path / "run").metrics["epochs"] == 1
    capfd.readouterr()
    assert cli.main(words) == 1
    printed = capfd.readouterr()
    assert printed.err.count("ya contiene otra corrida, terminada") == 1
    assert "Traceback" not in printed.err + printed.out
    assert len(printed.err.strip().splitlines()) == 1
    for number in ("99", "0", "-1", "1000000"):
        assert cli.main([*words[:-2], f"--processes={number}"]) == 1
        assert f"processes = {number}: debe ser de 1 a" in capfd.readouterr().err


MOMENTS = [random.Random(n).uniform(0.2, 20) for n in range(20)] if LONG else [0.3]  # seconds after the start
NEW = ("env", sys.executable)  # a new interpreter, not a fork


@pytest.mark.parametrize("moment", MOMENTS)
def test_rank_killed_at_any_moment_ends_the_job_with_a_message(csv, tmp_path, moment):
    log, rank = tmp_path / "log.txt", int(moment * 100) % 2
    job = start(csv, tmp_path / "run", log, *(NEW if LONG else NEW[1:]), options=TWO)
    ranks = of_job(job)
    time.sleep(moment)
    ranks[rank].kill()
    assert job.wait(LAST_SECONDS) == 1
    assert not psutil.wait_procs(ranks, LAST_SECONDS)[1]
    text = log.read_text(encoding="utf-8")
    assert f"El proceso {rank} (PID {ranks[rank].pid})" in text or "Otro de los procesos que trabajan juntos" in text
    assert "empezarlo si aún no hay ninguno, ejecute lo mismo otra vez" in text
    assert "Traceback" not in text


LAUNCHER_KILLS = [("own", "Entrenando:"), ("torchrun", "")]  # how it was started, and when


@pytest.mark.parametrize(("by", "at"), [*LAUNCHER_KILLS, *([("own", ""), ("torchrun", "Entrenando:")] if LONG else [])])
def test_processes_end_after_their_launcher_is_killed(csv, tmp_path, torchrun, by, at):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    launcher, options = (torchrun, ()) if by == "torchrun" else ([sys.executable], TWO)
    job = start(csv, out, log, *launcher, options=options)
    ranks = of_job(job)
    wait_for(at, log, job)
    job.kill()
    assert not psutil.wait_procs(ranks, LAST_SECONDS)[1]
    if at:
        assert log.read_text(encoding="utf-8").count("Entrenamiento detenido; el avance quedó guardado en") == 1
        assert (out / LAST).exists()


def test_verb_that_is_not_shared_is_refused_under_torchrun(torchrun, run, tmp_path):
    words = ["-m", "--", "ocensa_nb", "evaluate", "--run", str(run.path), "--out", str(tmp_path / "out")]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("evaluate no se reparte entre procesos: ejecútelo sin torchrun.") == 1
    assert not (tmp_path / "out").exists()
