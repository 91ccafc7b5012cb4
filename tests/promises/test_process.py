"""Subprocesses with broken output, full disks, unusual paths or interrupts: no traceback, training continues."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.files import write
from ocensa_nb.paths import ROOT, plain_path
from ocensa_nb.runs.run import Run
from tests.helpers import forked
from tests.helpers.words import TRAIN

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals, pipes and devices")
slow = pytest.mark.slow
LIMIT = 120  # seconds
ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}

# Run the package as `python -m ocensa_nb` does; print "ready" when the first signal handler is installed, since
# before that the interpreter handles an interrupt.
MARKED = """
import runpy, signal, sys
install = signal.signal
def marked(*arguments):
    signal.signal = install
    before = install(*arguments)
    print("ready", flush=True)
    return before
signal.signal = marked
runpy.run_module("ocensa_nb", run_name="__main__", alter_sys=True)
"""


def command(*arguments):
    return [sys.executable, "-m", "ocensa_nb", *map(str, arguments)]


def ocensa(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, "timeout": LIMIT, **options}
    return subprocess.run(command(*arguments), text=True, encoding="utf-8", check=False, **options)


@pytest.fixture
def full():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as device:
        yield device


def closed_pipe():
    """Return the write end of a pipe whose read end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


class TestBrokenOutput:
    @pytest.mark.parametrize("stream", ["stdout", pytest.param("stderr", marks=slow)])
    def test_train_with_closed_output_pipe_finishes(self, stream, csv, tmp_path):
        pipe = closed_pipe()
        train = [*TRAIN, "--data", csv, "--epochs", 1, "--out", tmp_path / "run"]
        done = forked.run(*train, **{stream: pipe})
        os.close(pipe)
        assert done.returncode == 0
        assert "Error" not in done.stderr
        assert "Exception" not in done.stderr
        assert Run.load(tmp_path / "run")

    @pytest.mark.slow
    def test_train_with_output_to_full_device_finishes(self, full, csv, tmp_path):
        train = [*TRAIN, "--data", csv, "--epochs", 1, "--out", tmp_path / "run"]
        assert forked.run(*train, stdout=full, stderr=full).returncode == 0
        assert Run.load(tmp_path / "run")

    @pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "> /dev/full", "| true"])
    def test_generate_with_broken_stdout_or_stderr_writes_its_file_silently(self, redirection, tmp_path, full):
        line = f'"{sys.executable}" -m ocensa_nb generate --rows 20 --out "{tmp_path}/a.csv" {redirection}'
        done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT, check=False, timeout=LIMIT)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(pd.read_csv(tmp_path / "a.csv")) == 20

    def test_json_result_to_full_device_exits_1(self, full, tmp_path):
        done = ocensa("generate", "--rows", 20, "--out", tmp_path / "a.csv", "--json", "-", stdout=full)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("No se puede escribir el resultado")
        assert "Exception" not in done.stderr

    def test_user_error_with_broken_stderr_exits_1(self, full, tmp_path):
        assert ocensa("generate", "--rows", 0, "--out", tmp_path / "a.csv", stderr=full).returncode == 1


class TestXlsx:
    TABLE = pd.DataFrame({"a": ["x", "=1", "y"] * 500, "n": range(1500)})

    def test_write_xlsx_with_missing_temporary_folder_succeeds(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "does-not-exist"))
        write.write_table(self.TABLE, tmp_path / "a.xlsx")
        back = pd.read_excel(tmp_path / "a.xlsx", dtype=str)
        assert list(back["a"]) == list(self.TABLE["a"])

    def test_write_xlsx_on_full_disk_raises_user_error_and_leaves_no_file(self, tmp_path):
        program = (
            "import resource, signal, sys, pandas as pd\n"
            "from ocensa_nb import errors\nfrom ocensa_nb.files import write\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "table = pd.DataFrame({'a': [f'x{i}' for i in range(20_000)]})\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            "try:\n    write.write_table(table, sys.argv[1])\n"
            "except errors.UserError as error:\n    print(error)\n"
        )
        line = [sys.executable, "-c", program, str(tmp_path / "a.xlsx")]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False, timeout=LIMIT)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No se puede escribir" in done.stdout
        assert not list(tmp_path.iterdir())


class TestLogFile:
    def test_training_without_terminal_writes_lines_and_no_progress_bars(self, csv, tmp_path):
        done = forked.run(*TRAIN, "--data", csv, "--epochs", 2, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        written = done.stdout + done.stderr
        assert "\r" not in written
        assert "it/s" not in written
        assert "paso/s" not in written
        assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("Época")] == [
            "Época 1",
            "Época 2",
        ]


class TestPathEncoding:
    def test_generate_to_path_with_accents_in_locale_c_succeeds(self, tmp_path):
        done = ocensa("generate", "--rows", 20, "--out", tmp_path / "ñandú.csv", env=ASCII)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "ñandú.csv").exists()
        assert "ñandú" in done.stdout

    @pytest.mark.slow
    def test_train_to_folder_with_accents_in_locale_c_succeeds(self, csv, tmp_path):
        train = [*TRAIN, "--data", csv, "--epochs", 1, "--out", tmp_path / "ñandú"]
        done = ocensa(*train, env=ASCII)
        assert done.returncode == 0, done.stderr
        assert Run.load(tmp_path / "ñandú")

    def test_path_that_is_not_utf8_raises_user_error(self):
        with pytest.raises(UserError, match="UTF-8"):
            plain_path("a\udcf1o.csv")


class TestInterrupts:
    @staticmethod
    def interrupted(arguments, delay, times=1, gap=0.0):
        """Interrupt a process `delay` seconds after it handles signals; return exit code and stderr."""
        line = [sys.executable, "-c", MARKED, *map(str, arguments)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            for _ in range(times):
                process.send_signal(signal.SIGINT)
                time.sleep(gap)
            _, said = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        return process.returncode, said

    @pytest.mark.parametrize(
        ("delay", "times"),
        [
            (0.0, 5),
            *(pytest.param(*case, marks=slow) for case in [(0.01, 1), (0.03, 2), (0.05, 5), (0.2, 1), (0.5, 2)]),
        ],
    )
    def test_interrupt_during_generate_prints_one_line_and_exits_130(self, delay, times, tmp_path):
        generate = ["generate", "--rows", 400_000, "--out", tmp_path / "a.csv"]
        assert self.interrupted(generate, delay, times, gap=0.002) == (130, "Interrumpido.\n")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=slow) for seed in (1, 2, 3))])
    def test_interrupt_during_import_of_torch_prints_no_traceback_and_exits_130(self, seed, csv, tmp_path):
        delay = random.Random(seed).uniform(0.3, 1.5)
        train = [*TRAIN, "--data", csv, "--epochs", 200, "--patience", 200, "--out", tmp_path / "r"]
        code, said = self.interrupted(train, delay, 2, gap=0.004)
        assert code == 130
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith(("Interrumpido.", "Entrenamiento detenido"))

    def test_process_started_with_sigint_ignored_ignores_interrupts(self, tmp_path):
        process = subprocess.Popen(
            command("generate", "--rows", 2_000, "--out", tmp_path / "a.csv"),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        assert process.returncode == 0
        assert (tmp_path / "a.csv").exists()
