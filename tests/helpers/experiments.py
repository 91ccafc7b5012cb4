"""Experiment folders for tests: made from a finished run, by the format of case.json."""

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import execute, report
from ocensa_nb.experiments import run as grids
from ocensa_nb.experiments.case import TRAIN, Case, case_folders, read_case, record, reread
from ocensa_nb.files.atomic import create_new, write_text
from ocensa_nb.runs import manifest
from ocensa_nb.runs.run import CONFIG, HISTORY, METRICS, Run

HEADS = ("modo", "causa", "prioridad")


def settings_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a case with some changes of the base of these tests."""
    return {"recipe": "baseline", "model": "tiny", "predict_with": "auto", "evaluation_data": "", **changes}


def add_case(out: Path, changes: Mapping[str, Any], /, seed: int, status: str = "finished", **state: Any) -> Path:
    """Write the case.json of a case and its notebooks; return its folder."""
    label = "_".join(f"{name}-{value}" for name, value in changes.items()) or "baseline"
    title = ", ".join(f"{name}={value}" for name, value in changes.items()) or "baseline"
    folder = out / "cases" / f"{label}_seed-{seed}"
    folder.mkdir(parents=True)
    content = {
        "title": title,
        "settings": settings_of(changes) | {"seed": seed},
        "changes": dict(changes),
        "group": label,
        "seed": seed,
        "files": {"model": "tiny", "data": "", "corrections": "", "evaluation_data": ""},
        "inputs": {},
        "trainer": folder.name,
        "status": status,
        "command": f"python -m ocensa_nb train --recipe baseline --seed {seed} --out NUEVA",
    }
    if status == "finished":
        for name in ("03_train", "04_evaluate"):
            (folder / f"{name}.html").write_text("<html>", encoding="utf-8")
    (folder / "case.json").write_text(json.dumps(content | state, ensure_ascii=False), encoding="utf-8")
    return folder


def add_run(
    folder: Path, f1: float, took: float, linear: float = 0.5, cores: int = 2, **metadata: Any
) -> dict[str, Any]:
    """Write the config.json and metrics.json of a run with a known F1 and seconds; return the metadata.

    The validation F1 is 0.01 higher than the test F1. The blend predicts all labels.
    The history has two epochs, of the same time; the encoder reaches half of its best F1 in the first.
    """
    state = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    content = {
        "config": {"heads": dict.fromkeys(HEADS, 1 / 3), "monitor": "f1", "max_length": 256, **state["settings"]},
        "seconds": {
            "training": took,
            "linear": 0.0,
            "features": 5.0 if metadata.get("features") else 0.0,
            "earlier": 0.0,
            "total": took + 9,
        },
        "hardware": {"cores": cores, "system": "Linux x86_64"},
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        **metadata,
    }
    values = {"test": f1, "val": f1 + 0.01}
    flat = {side: _flat(value) for side, value in values.items()}
    difference = f1 - linear
    compared = {"f1": {"difference": difference, "low": difference - 0.02, "high": difference + 0.02}}
    metrics = {
        **flat,
        "encoder": {side: _flat(value - 0.05) for side, value in values.items()},
        "linear": {side: _flat(linear) for side in values},
        "blend": flat,
        "sources": dict.fromkeys(HEADS, "blend"),
        "comparison": {head: {"blend-linear": compared} for head in HEADS},
    }
    (folder / "run").mkdir()
    write_config(folder / "run", content)
    (folder / "run" / METRICS).write_text(json.dumps(metrics), encoding="utf-8")
    lines = [{"epoch": epoch, "seconds": took * epoch / 2, "f1": (f1 + 0.01) * epoch / 2} for epoch in (1, 2)]
    (folder / "run" / HISTORY).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return content


def write_config(run: Path, content: Mapping[str, Any]) -> None:
    """Write the config.json of a run with its checksum."""
    (run / CONFIG).write_text(json.dumps(manifest.sealed(content)), encoding="utf-8")


def copy_run(folder: Path, run: Run) -> None:
    """Copy a real finished run into the folder of a case."""
    shutil.copytree(run.path, folder / "run")


def _flat(value: float) -> dict[str, float]:
    return {"f1": value, "f1_macro": value} | {f"{head}_{name}": value for head in HEADS for name in ("f1", "f1_macro")}


def read_cases(out: Path) -> list[Case]:
    """Return the cases of the grid of an experiment folder, by name; not those with a damaged case.json."""
    cases = []
    for folder in case_folders(out):
        with contextlib.suppress(UserError):
            cases.append(read_case(folder))
    return [case for case in cases if not case.content.get("dropped")]


class FakeJob:
    """A case that trains for some polls, and can store its features and finish its run before it ends."""

    def __init__(self, pool, case):
        self.pool, self.case, self.polls, self.stopped = pool, case, 0, False

    def is_done(self):
        self.polls += 1
        crashes = self.case.title in self.pool.crash
        if self.polls == 2 and self.case.owns_run and not crashes:
            with contextlib.suppress(OSError):  # a damaged case
                (self.case.run / "last").mkdir(parents=True)
        done = self.polls >= 6 or self.stopped
        if done and not crashes:
            case = reread(self.case)
            if case.status == "running" and case.owns_run and not self.stopped:
                (case.run / "manifest.json").touch()
            if case.status == "running":
                record(case, status="interrupted" if self.stopped else "finished", seconds=1.0)
        if done:
            self.pool.running.discard(self)
        return done

    def problem(self):
        return "murió"

    def stop(self):
        self.stopped = True
        self.pool.stops += 1

    def kill(self):
        raise AssertionError("not needed")


class FakePool:
    """Runs a `FakeJob` per case."""

    def __init__(self, slots, crash=(), shares_cache=True, signal_at=99):
        self.slots, self.crash, self.shares_cache, self.signal_at = slots, crash, shares_cache, signal_at
        self.started, self.running, self.most, self.stops = [], set(), 0, 0

    def require_seen(self, cases):
        pass

    def share(self, case):
        return {}

    def start(self, case):
        job = FakeJob(self, case)
        self.started.append(case.title)
        self.running.add(job)
        self.most = max(self.most, len(self.running))
        if len(self.running) == self.signal_at:
            signal.raise_signal(signal.SIGTERM)
        return job


class MeasuringPool(FakePool):
    """Cases that end with metrics."""

    def start(self, case):
        job = super().start(case)
        if not case.run.exists():
            add_run(case.folder, 0.5, 10)
        return job


class EndedJob:
    """A case that ended before it was returned."""

    def is_done(self):
        return True

    def problem(self):
        return "murió"


class HerePool(grids.LocalPool):
    """Runs each case in this process."""

    def start(self, case):
        execute.run_case(case.folder, lambda: False)
        return EndedJob()


@contextlib.contextmanager
def quick_cases(trained: Path) -> Iterator[None]:
    """Run the cases of a grid in this process; notebook 03 copies a finished run, and 04 writes empty metrics."""

    def run_notebook(notebook: Path, folder: Path, parameters: Mapping[str, Any], _: Any) -> None:
        out = Path(parameters["out"])
        if notebook.stem == TRAIN:
            shutil.copytree(trained, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(manifest.MANIFEST))
            shutil.copy(trained / manifest.MANIFEST, out)  # the last one, as in a training
        else:
            with create_new(out) as temporary:
                temporary.mkdir()
                (temporary / METRICS).write_text("{}")
        for suffix in (".ipynb", ".html"):
            write_text(folder / f"{notebook.stem}{suffix}", "{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "POLL_SECONDS", 0)
        patch.setattr(grids, "_pool", lambda *_: contextlib.nullcontext(HerePool(1)))
        patch.setattr(execute, "execute", run_notebook)
        patch.setattr(report, "picture", lambda *_: ["", ""])  # drawn from the tables
        yield
