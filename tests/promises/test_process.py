"""Real processes that lose their output, their disk or their user: never a traceback, never a stopped training."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from ocensa_nb.data import write_table
from ocensa_nb.errors import UserError
from ocensa_nb.paths import ROOT, plain_path
from ocensa_nb.storage.run_folder import Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals, pipes and devices")
LIMIT = 120  # seconds
ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}

# Runs the package as `python -m ocensa_nb` does, and says when the first signal handler is there: before that, an
# interrupt is a matter of the interpreter alone.
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
    """Return the writing end of a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


class TestOutputThatFails:
    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_training_into_a_closed_pipe_finishes(self, stream, csv, tmp_path):
        pipe = closed_pipe()
        train = ["train", "--data", csv, "--model", "tiny", "--epochs", 1, "--out", tmp_path / "run"]
        done = ocensa(*train, **{stream: pipe})
        os.close(pipe)
        assert done.returncode == 0
        assert "Error" not in (done.stderr or "")
        assert "Exception" not in (done.stderr or "")
        assert Run.load(tmp_path / "run")

    def test_training_onto_a_full_disk_of_output_finishes(self, full, csv, tmp_path):
        train = ["train", "--data", csv, "--model", "tiny", "--epochs", 1, "--out", tmp_path / "run"]
        assert ocensa(*train, stdout=full, stderr=full).returncode == 0
        assert Run.load(tmp_path / "run")

    @pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "> /dev/full", "| true"])
    def test_generate_without_its_output_writes_its_file_and_says_nothing_else(self, redirection, tmp_path, full):
        line = f'"{sys.executable}" -m ocensa_nb generate --rows 20 --out "{tmp_path}/a.csv" {redirection}'
        done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT, check=False, timeout=LIMIT)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(pd.read_csv(tmp_path / "a.csv")) == 20

    def test_json_result_that_cannot_be_written_is_exit_code_1(self, full, tmp_path):
        done = ocensa("generate", "--rows", 20, "--out", tmp_path / "a.csv", "--json", "-", stdout=full)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("No se puede escribir el resultado")
        assert "Exception" not in done.stderr

    def test_error_without_stderr_keeps_its_exit_code(self, full):
        assert ocensa("train", "--data", "no-existe.csv", "--model", "tiny", stderr=full).returncode == 1


class TestXlsx:
    TABLE = pd.DataFrame({"a": ["x", "=1", "y"] * 500, "n": range(1500)})

    def test_full_temporary_folder_does_not_matter(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "does-not-exist"))
        write_table.write_table(self.TABLE, tmp_path / "a.xlsx")
        back = pd.read_excel(tmp_path / "a.xlsx", dtype=str)
        assert list(back["a"]) == list(self.TABLE["a"])

    def test_full_disk_is_one_message_without_a_second_traceback(self, tmp_path):
        program = (
            "import resource, signal, sys, pandas as pd\n"
            "from ocensa_nb import errors\nfrom ocensa_nb.data import write_table\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "table = pd.DataFrame({'a': [f'x{i}' for i in range(20_000)]})\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            "try:\n    write_table.write_table(table, sys.argv[1])\n"
            "except errors.UserError as error:\n    print(error)\n"
        )
        line = [sys.executable, "-c", program, str(tmp_path / "a.xlsx")]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False, timeout=LIMIT)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No se puede escribir" in done.stdout
        assert not list(tmp_path.iterdir())


class TestLogFile:
    def test_training_without_terminal_writes_lines_and_no_progress_bars(self, csv, tmp_path):
        done = ocensa("train", "--data", csv, "--model", "tiny", "--epochs", 2, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        written = done.stdout + done.stderr
        assert "\r" not in written
        assert "it/s" not in written
        assert "paso/s" not in written
        assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("Época")] == [
            "Época 1",
            "Época 2",
        ]


class TestNames:
    def test_accents_in_a_path_work_in_the_locale_c(self, tmp_path):
        done = ocensa("generate", "--rows", 20, "--out", tmp_path / "ñandú.csv", env=ASCII)
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / "ñandú.csv").exists()
        assert "ñandú" in done.stdout

    def test_training_into_a_folder_with_accents_in_the_locale_c_finishes(self, csv, tmp_path):
        train = ["train", "--data", csv, "--model", "tiny", "--epochs", 1, "--out", tmp_path / "ñandú"]
        done = ocensa(*train, env=ASCII)
        assert done.returncode == 0, done.stderr
        assert Run.load(tmp_path / "ñandú")

    def test_path_that_is_not_utf8_is_refused(self):
        with pytest.raises(UserError, match="UTF-8"):
            plain_path("a\udcf1o.csv")


class TestInterrupts:
    @staticmethod
    def interrupted(arguments, delay, times=1, gap=0.0):
        """Interrupt a process some seconds after it handles signals; return its exit code and what it says."""
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

    @pytest.mark.parametrize("times", [1, 2, 5])
    @pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.05, 0.2, 0.5])
    def test_interrupt_at_the_start_is_one_line_and_exit_code_130(self, delay, times, tmp_path):
        generate = ["generate", "--rows", 400_000, "--out", tmp_path / "a.csv"]
        assert self.interrupted(generate, delay, times, gap=0.002) == (130, "Interrumpido.\n")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("seed", range(4))
    def test_interrupt_while_torch_is_imported_is_one_line_and_exit_code_130(self, seed, csv, tmp_path):
        delay = random.Random(seed).uniform(0.3, 1.5)
        train = ["train", "--data", csv, "--model", "tiny", "--epochs", 200, "--patience", 200, "--out", tmp_path / "r"]
        code, said = self.interrupted(train, delay, 2, gap=0.004)
        assert code == 130
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith(("Interrumpido.", "Entrenamiento detenido"))

    def test_process_started_to_ignore_interrupts_ignores_them(self, tmp_path):
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
