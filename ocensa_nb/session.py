"""What a notebook's session lacks: packages to install, and a place to keep runs.

Runs before anything is installed, so at import it needs the standard library alone.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from ocensa_nb.errors import UserError

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


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

    Colab and Kaggle ship a torch built for their GPUs, so it is pinned while the rest is installed.
    Raises `UserError` where torch itself is missing or pip fails.
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
            command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pin), *missing]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        importlib.invalidate_caches()
        if done.returncode:
            raise UserError(
                f"No se pudo instalar {', '.join(missing)}. En Kaggle, active Settings → Internet → On. "
                f"pip dijo: {done.stderr.strip()[-300:]}"
            )
    return missing


def mount_drive(folder: str = "ocensa-runs") -> Path:
    """Mount Google Drive and return a folder of it where runs outlive the session.

    Raises `UserError` outside Colab, or where the user does not give permission.
    """
    from ocensa_nb.environment import platform

    if platform() != "colab":
        raise UserError("Google Drive solo se puede montar en Colab; ponga mount_drive = False.")
    from google.colab import drive

    try:
        drive.mount("/content/drive")
    except Exception as error:  # google.colab raises its own kinds when permission is refused
        raise UserError("No se pudo montar Google Drive: acepte el permiso y ejecute la celda de nuevo.") from error
    path = Path("/content/drive/MyDrive") / folder
    path.mkdir(parents=True, exist_ok=True)
    return path
