"""Detect folders on a mounted Google Drive, which uploads a complete file after each write to it."""

from pathlib import Path

DRIVE = Path("/content/drive")  # where Colab's own notebooks mount it
MOUNTS = Path("/proc/self/mounts")
FILE_SYSTEM = "fuse.drive"  # google.colab.drive looks for this type to tell whether a Drive is mounted


def is_on_drive(path: Path) -> bool:
    path = path.resolve()
    return any(path.is_relative_to(mount) for mount in (DRIVE.resolve(), *_mounts()))


def _mounts() -> list[Path]:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    # proc_mounts(5): device, mount point, type, options; a space in a mount point is written as \040
    return [Path(field[1].replace("\\040", " ")) for field in fields if len(field) > 2 and field[2] == FILE_SYSTEM]
