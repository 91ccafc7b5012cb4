"""Stop a grid in every way: SIGTERM, SIGKILL of the command or of a case; nothing runs on, and it resumes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from ocensa_nb.paths import ROOT
from tests.helpers.experiments import read_cases

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_processes"),
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals"),
]
LIMIT = 150  # seconds


def wait_for(condition):
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def start(grid, out):
    words = [sys.executable, "-m", "ocensa_nb", "experiments", "--grid", str(grid), "--out", str(out)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def is_training(out):
    return [file for file in out.glob("cases/*/run/history.jsonl") if '"epoch": 2' in file.read_text(encoding="utf-8")]


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def write_grid(path, csv, epochs):
    base = {"model": "tiny", "freeze_layers": 1, "precision": "fp32", "recipe": "cpu", "data": str(csv)}
    base |= {"epochs": epochs, "patience": 1000}
    path.write_text(yaml.safe_dump({"base": base}), encoding="utf-8")
    return path


def test_killed_command_leaves_no_process_and_a_checkpoint_and_resumes(csv, tmp_path):
    grid, out = write_grid(tmp_path / "grid.yaml", csv, 300), tmp_path / "out"
    process = start(grid, out)
    wait_for(lambda: is_training(out))
    children = family(process)
    assert len(children) == 2  # the case and its kernel
    process.kill()
    process.wait()
    wait_for(lambda: not any(child.is_running() for child in children))
    (case,) = read_cases(out)
    assert case.status == "interrupted"
    assert list(case.run.glob("last/*.safetensors"))

    process = start(grid, out)
    log = case.folder / "log.txt"
    wait_for(lambda: "Continúa «" in log.read_text(encoding="utf-8"))
    children = family(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Para continuar, ejecute lo mismo otra vez" in output
    assert not any(child.is_running() for child in children)
    (case,) = read_cases(out)
    assert case.status == "interrupted"
    assert case.error == ""


def test_killed_kernel_and_killed_case_fail_with_a_message_and_do_not_stop_the_rest(csv, tmp_path):
    grid, out = write_grid(tmp_path / "grid.yaml", csv, 300), tmp_path / "out"
    content = yaml.safe_load(grid.read_text(encoding="utf-8"))
    grid.write_text(yaml.safe_dump(content | {"seeds": [1, 2]}), encoding="utf-8")
    process = start(grid, out)
    for number, index in enumerate((-1, 0), 1):
        wait_for(lambda number=number: len(is_training(out)) == number)
        child, kernel = family(process)
        (child, kernel)[index].kill()
        wait_for(lambda child=child, kernel=kernel: not (child.is_running() or kernel.is_running()))
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "Traceback" not in output
    lines = [case.error for case in read_cases(out)]
    assert sum("El núcleo de Python murió" in line for line in lines) == 1
    assert sum("El proceso terminó de forma inesperada (código -9)" in line for line in lines) == 1
