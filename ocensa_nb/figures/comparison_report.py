"""Write the results, tables and figures of a comparison of optimisations to a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocensa_nb.benchmark import compare, time_to_target
from ocensa_nb.figures import comparison
from ocensa_nb.figures.training import save as save_figure
from ocensa_nb.files.atomic import create_new
from ocensa_nb.files.write import write_table
from ocensa_nb.runs.run import free_folder


def save(results: Mapping[str, Any], out: str | Path) -> Path:
    """Write the results, their tables and their figures to a new folder, atomically.

    Parameters
    ----------
    results
        From `compare.compare`, with the points of `quality_cost.quality` under `quality` if they were measured.
    out
        A folder that is new or empty.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        If the folder is not empty, or cannot be written.
    """
    path = free_folder(out)
    with create_new(path) as folder:
        folder.mkdir()
        compare.write(results, folder)
        for which in ("ladder", "alone"):
            save_figure(comparison.speedups(results, which), folder / f"{which}.png")
        if "quality" in results:
            points = results["quality"]
            write_table(time_to_target.time_to_target(points).round(4).reset_index(), folder / "quality.csv")
            save_figure(comparison.f1_against_time(points), folder / "quality.png")
    return path
