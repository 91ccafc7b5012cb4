"""A folder with all that a comparison of optimisations found: results, tables and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.benchmark import compare, quality_cost
from ocensa_nb.figures import plots
from ocensa_nb.files.atomic import create_new
from ocensa_nb.storage.run_folder import free_folder


def save(results: Mapping[str, Any], out: str | Path) -> Path:
    """Write the results, their tables and their figures to a new folder, which appears complete, and return it.

    Raises
    ------
    UserError
        If the folder has something in it, or the disk refuses.
    """
    path = free_folder(out)
    with create_new(path) as folder:
        folder.mkdir()
        compare.write(results, folder)
        for which in ("ladder", "alone"):
            plots.save(plots.speedups(results, which), folder / f"{which}.png")
        if "quality" in results:
            points = results["quality"]
            plots.save(plots.f1_against_time(points, quality_cost.reading(points)), folder / "quality.png")
    return path
