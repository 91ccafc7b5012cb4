"""The package installed from its wheel, outside a checkout."""

import json
import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ocensa_nb.paths import ROOT

DATA = ("yaml", "j2", "css", "mplstyle")  # suffixes of the package's own files


@pytest.fixture
def packages(monkeypatch):
    """Return the packages that setuptools finds in pyproject.toml, and their data files."""
    from setuptools import Distribution

    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files(["pyproject.toml"])
    distribution.include_package_data = False  # it would write beside the package
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {(package, module) for package, module, _ in build.find_all_modules()}
    return modules, {(package, name) for package, _, _, names in build.data_files for name in names}


def test_wheel_has_every_module_notebook_and_sample_and_nothing_else(packages):
    modules, data = packages
    files = [path.relative_to(ROOT) for path in (ROOT / "ocensa_nb").rglob("*.py")]
    assert modules == {(".".join(file.parent.parts), file.stem) for file in files}
    notebooks = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    grids = [f"grids/{path.name}" for path in (ROOT / "notebooks/grids").glob("*.yaml")]
    samples = [path.name for path in (ROOT / "data").glob("*.csv")]
    inside = {path.relative_to(ROOT) for kind in DATA for path in (ROOT / "ocensa_nb").rglob(f"*.{kind}")}
    assert {name for package, name in data if package == "ocensa_nb.notebooks"} == {*notebooks, *grids}
    assert {name for package, name in data if package == "ocensa_nb.samples"} == {*samples}
    others = {(package, name) for package, name in data if package not in ("ocensa_nb.notebooks", "ocensa_nb.samples")}
    assert others == {(".".join(file.parent.parts), file.name) for file in inside}


@pytest.mark.slow
def test_installed_wheel_runs_the_suite_outside_the_checkout(tmp_path):
    source, wheels, environment, folder = (tmp_path / name for name in ("source", "wheels", "venv", "folder"))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):  # a copy: setuptools writes beside the package
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("synthetic_training_data", "example_iw69"):  # the first notices: to train on all of them takes minutes
        notices = source / f"data/{name}.csv"
        lines = notices.read_text(encoding="utf-8").splitlines(keepends=True)
        notices.write_text("".join(lines[:151]), encoding="utf-8")
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    assert {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()} <= {
        "ocensa_nb",
        "ocensa_nb-0.1.0.dist-info",
    }
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "present.pth").write_text("\n".join(site.getsitepackages()))  # what the wheel requires
    python = environment / "bin/python"
    install = ["--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)

    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["JUPYTER_PATH"] = str(Path(sys.prefix) / "share/jupyter")  # nbconvert's templates
    shown = subprocess.run(
        [python, "-c", "import ocensa_nb; print(ocensa_nb.__file__)"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(shown.strip()).is_relative_to(packages)
    (folder / "demo").mkdir()  # as if the others were done: 03 and 04 use every file of the wheel
    done_before = ("01_setup_gpu_check", "02_data_audit", "06_review")
    state = {"parameters": {}, "process": "", "seconds": dict.fromkeys(done_before, 1.0)}
    (folder / "demo/.suite.json").write_text(json.dumps(state), encoding="utf-8")
    done = subprocess.run(
        [environment / "bin/ocensa", "suite", "--out", "demo"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["demo"]
    assert (folder / "demo/run/metrics.json").exists()
