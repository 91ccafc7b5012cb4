"""Whatever a grid file or an experiment folder holds: a result or a message. `OCENSA_LONG=1` tries ten times."""

import contextlib
import json
import os
import random
import shutil

import pytest
import yaml

from ocensa_nb.errors import UserError
from ocensa_nb.experiments import run as grids
from ocensa_nb.experiments.grid import expand, read_grid
from ocensa_nb.experiments.report import write_report, write_results
from ocensa_nb.experiments.results import read_results
from ocensa_nb.experiments.run import failures, run_grid
from ocensa_nb.notebook.grid_panel import CaseTable
from tests.helpers.experiments import MeasuringPool, write_config

TIMES = 10 if os.environ.get("OCENSA_LONG") else 1
GRID = {
    "base": {"model": "tiny", "epochs": 2, "heads": {"causa": 1.0}, "columns": {"causa": "c"}, "learning_rate": 1e-4},
    "grid": {"freeze_layers": [0, 1]},
    "cases": [{"name": "uno", "predict_with": "linear"}],
    "seeds": [1, 2],
}
YAML = [
    *("NaN", "1e999", "-.5e-999", "infinity", "!!int abc", "!!float x", "!!binary x", "!!set {a, b}", "!!bool 3"),
    *("9" * 5000, r'"\ud800"', r'"\0"', "2001-01-01", "{a: 1, a: 2}", "[" * 500, "{[1]: 2}", "{1: 2, a: 3}", "&a [*a]"),
    *("[[]]", "{}", "[]", "''", "*x", "-1", "0x10", "1:30", "<<", "{<<: 3}", "!!python/name:os.system ''", "true", "?"),
    *("!!map x", "~", "\t"),
]
ODD = [10**400, -1, 0, True, 1e308, 2**63, "\ud800", "", "../x", "a\0b", "x" * 300]
ODD += [[], {}, [[]], {"a": {}}, None, 1.5, "nan"]


def places(tree, path=()):
    """Yield the path of every value in a JSON tree."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def rewritten(tree, path, value):
    """Return a copy of a tree with another value at a path, or none there if the value is `...`."""
    copy = json.loads(json.dumps(tree))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def test_grid_file_with_any_value_anywhere_gives_cases_or_a_message(tmp_path):
    draw, file = random.Random(1), tmp_path / "grid.yaml"
    for _ in range(100 * TIMES):
        text = yaml.safe_dump(rewritten(GRID, draw.choice(list(places(GRID))), "HERE"), default_flow_style=True)
        file.write_text(text.replace("HERE", draw.choice(YAML)), encoding="utf-8")
        with contextlib.suppress(UserError):
            assert expand(read_grid(file)[0], "cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a finished experiment of two cases and two seeds."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "POLL_SECONDS", 0)
        patch.setattr(grids, "_pool", lambda *_: contextlib.nullcontext(MeasuringPool(4)))
        small = {**GRID, "base": {"model": "tiny"}, "cases": [], "seeds": [1, 2]}
        assert run_grid({name: value for name, value in small.items() if value}, out)["cases"]["finished"] == 4
    return out


def damaged(draw, whole, out):
    """Make a copy of an experiment with one value of one file replaced; a sealed file is sealed again."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(whole, out)
    case = sorted((out / "cases").iterdir())[0]
    file = draw.choice(
        [*[case / "case.json"] * 3, case / "run/config.json", case / "run/metrics.json", out / "recipe.json"]
    )
    content = json.loads(file.read_text(encoding="utf-8"))
    if file.name == "case.json":  # entries that a finished case lacks
        content |= {
            "started": 1.8e9,
            "jobs": 1,
            "error": {"notebook": "", "cell": 1, "line": "x"},
            "dropped": False,
        }
        content["status"] = draw.choice(["finished", "failed", "running", "interrupted", "pending"])
    content = rewritten(content, draw.choice(list(places(content))), draw.choice([*ODD, ...]))
    if file.name == "config.json" and draw.random() < 0.9:
        content.pop("sha256", None)
        write_config(file.parent, content)
    else:
        file.write_text(json.dumps(content), encoding="utf-8")


def test_experiment_folder_with_any_value_anywhere_is_read_and_continued(whole, tmp_path, monkeypatch):
    draw, out = random.Random(2), tmp_path / "out"
    monkeypatch.setattr(grids, "POLL_SECONDS", 0)
    monkeypatch.setattr(grids, "_pool", lambda *_: contextlib.nullcontext(MeasuringPool(4)))
    monkeypatch.setattr("ocensa_nb.experiments.report.picture", lambda *_: ["", ""])  # drawn from the tables
    grid = yaml.safe_load((whole / "grid.yaml").read_text(encoding="utf-8"))
    for number in range(50 * TIMES):
        damaged(draw, whole, out)
        table = CaseTable(out)
        table.update()
        assert table.html("", running=True)
        with contextlib.suppress(UserError):
            results = read_results(out)
            write_results(results)
            if number % 5 == 0:
                write_report(results)
        if number % 5 == 0:
            with contextlib.suppress(UserError):
                failures(run_grid(grid, out))
