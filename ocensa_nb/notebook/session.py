"""What a notebook's session lacks: packages to install, the user's own file, and a place to keep runs.

Runs before anything is installed, so at import it needs the standard library alone.
"""

import filecmp
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import create_new
from ocensa_nb.files.drive import DRIVE
from ocensa_nb.paths import REQUIREMENTS

WHEELS = "wheels"  # a folder beside the requirements with what to install where there is no internet
UPLOADS = "avisos"  # a folder of Drive, next to the runs
KAGGLE_INPUT = Path("/kaggle/input")  # what the user attaches, read-only
KAGGLE_WORKING = Path("/kaggle/working")  # what Kaggle keeps of a session


def set_up(root: Path) -> None:
    """Move to the folder where a session leaves its results and install what is missing.

    `root` is the folder of the project. If it was attached in Kaggle it is read-only, so the results go to what Kaggle
    keeps. Raises `UserError` as `install_missing` does.
    """
    os.chdir(KAGGLE_WORKING if KAGGLE_INPUT in root.parents else root)
    installed = install_missing()
    print(f"Listo. Se instaló: {', '.join(installed)}." if installed else "Listo.")


def missing_requirements(requirements: Path) -> list[str]:
    """Return the lines of a requirements file that the installed packages do not satisfy, torch left out."""
    from packaging.requirements import Requirement

    missing = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text or Requirement(text).name == "torch":
            continue
        requirement = Requirement(text)
        try:
            satisfied = requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            satisfied = False
        if not satisfied:
            missing.append(text)
    return missing


def install_missing(requirements: Path = REQUIREMENTS) -> list[str]:
    """Install what a notebook's Python lacks and return it; torch stays exactly as it is.

    Colab and Kaggle ship a torch built for their GPUs, so it is pinned while the rest is installed. A folder `wheels`
    beside the requirements is installed from alone, without internet. Raises `UserError` where torch itself is missing
    or pip fails.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "Falta PyTorch, y estos cuadernos no lo instalan para no dañar el de su equipo. En una terminal, desde la "
            "carpeta del proyecto: pip install -r requirements.txt -c constraints.txt"
        )
    missing = missing_requirements(requirements)
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            pin = Path(folder) / "torch.txt"
            pin.write_text(f"torch=={importlib.metadata.version('torch')}\n", encoding="utf-8")
            wheels = requirements.parent / WHEELS
            source = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
            command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pin), *source, *missing]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        importlib.invalidate_caches()
        if done.returncode:
            raise UserError(
                f"No se pudo instalar {', '.join(missing)}. En Kaggle, active Settings → Internet → On; si no puede, "
                "ejecute en la carpeta del proyecto, con internet y la misma versión de Python, "
                f"pip download --no-deps -d {WHEELS} {shlex.join(missing)} y adjunte de nuevo el proyecto entero. "
                f"pip dijo: {done.stderr.strip()[-300:]}"
            )
    return missing


def mount_drive(folder: str = "ocensa-runs") -> Path:
    """Mount Google Drive and return a folder of it where runs outlive the session.

    Raises `UserError` outside Colab, or where the user does not give permission.
    """
    from ocensa_nb.runtime.environment import platform

    if platform() != "colab":
        raise UserError("Google Drive solo se puede montar en Colab; ponga mount_drive = False.")
    from google.colab import drive

    try:
        if not os.path.ismount(DRIVE):  # mounted already, it would say so in English
            drive.mount(str(DRIVE))
    except Exception as error:  # google.colab raises its own kinds when permission is refused
        raise UserError("No se pudo montar Google Drive: acepte el permiso y ejecute la celda de nuevo.") from error
    path = DRIVE / "MyDrive" / folder
    path.mkdir(parents=True, exist_ok=True)
    return path


def runs_folder(on_drive: bool) -> Path:
    """Return where runs go: Google Drive where it is asked for, what Kaggle keeps, or `runs`.

    Raises `UserError` where Drive is asked for and cannot be had.
    """
    from ocensa_nb.runtime.environment import platform
    from ocensa_nb.storage.run_folder import RUNS

    if on_drive:
        return mount_drive()
    return KAGGLE_WORKING / RUNS if platform() == "kaggle" else RUNS


def placed(path: str, on_drive: bool) -> str:
    """Return a path of the user's as it is, but a relative one on Google Drive where that is asked for.

    Raises `UserError` where Drive is asked for and cannot be had.
    """
    return str(mount_drive() / path) if path and on_drive else path


def cautions(on_drive: bool) -> list[str]:
    """Return, in Spanish, what to know in Colab or Kaggle before hours of work: no GPU, a disk that is erased."""
    from ocensa_nb.runtime.environment import gpu_advice, hardware

    machine = hardware()
    found = []
    if machine.platform != "local" and not machine.gpu_usable:
        found.append(gpu_advice(machine))
    if machine.platform == "colab" and not on_drive:
        found.append(
            "⚠️ Colab borra su disco al desconectarse: con mount_drive = True, lo que se guarda queda en Google Drive."
        )
    return found


def upload(on_drive: bool = False) -> str:
    """Show Colab's upload button, wait for the user, and return the path of the file.

    Parameters
    ----------
    on_drive
        Keep the file on Google Drive next to the runs, so that a notebook in another runtime finds it. Otherwise it
        goes to a new temporary folder of this runtime.

    Raises
    ------
    UserError
        Outside Colab, if Drive cannot be mounted or written to, or if the user chose anything but one CSV or XLSX.
    """
    from ocensa_nb.runtime.environment import platform

    if platform() != "colab":
        raise UserError("El botón para subir un archivo solo existe en Colab; ponga upload = False y la ruta en data.")
    from google.colab import files

    drive = mount_drive() / UPLOADS if on_drive else None  # before the upload: the user may refuse
    folder, before = Path(tempfile.mkdtemp(prefix="avisos-")), Path.cwd()
    os.chdir(folder)  # Colab saves where it is
    try:
        files.upload()
    finally:
        os.chdir(before)
    chosen = sorted(folder.iterdir())
    if not chosen:
        raise UserError("No se eligió ningún archivo. Ejecute la celda otra vez, o ponga upload = False.")
    if len(chosen) > 1:
        names = ", ".join(file.name for file in chosen)
        raise UserError(f"Se eligieron {len(chosen)} archivos ({names}). Ejecute la celda otra vez y elija uno.")
    if chosen[0].suffix.lower() not in (".csv", ".xlsx"):
        raise UserError(f"«{chosen[0].name}» no es un CSV ni un XLSX. Guárdelo como uno de los dos y súbalo otra vez.")
    return str(_keep(chosen[0], drive) if drive else chosen[0])


def _keep(file: Path, folder: Path) -> Path:
    """Copy a file to a folder and return the copy; a different file with the same name is left as it is.

    A copy with the same content is reused, so that the same file uploaded again has the same path.
    """
    copy, number = folder / file.name, 1
    while copy.exists() and not filecmp.cmp(file, copy, shallow=False):
        number += 1
        copy = folder / f"{file.stem}-{number}{file.suffix}"
    if not copy.exists():
        with create_new(copy) as fresh:
            shutil.copyfile(file, fresh)
    return copy


def is_interactive() -> bool:
    """Tell whether this cell is executed for somebody who can answer, and not by papermill or nbconvert.

    A front end says with each cell whether it can be asked for input. Source: "Messaging in Jupyter", execute_request.
    """
    try:
        from IPython import get_ipython

        return bool(get_ipython().get_parent()["content"].get("allow_stdin"))
    except (ImportError, AttributeError, KeyError, TypeError):  # not in a notebook
        return False
