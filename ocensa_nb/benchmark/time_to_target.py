"""Time to a target F1: when each technique reaches 95 % of the best validation F1 (Coleman et al., DAWNBench, 2017)."""

from typing import Any

import pandas as pd

SHARE = 0.95  # of the best F1
Points = list[dict[str, Any]]


def mean_curves(points: Points) -> pd.DataFrame:
    """Return the curve of each technique, averaged over the seeds."""
    return pd.DataFrame(points).groupby(["title", "epoch"], sort=False, as_index=False)[["seconds", "f1"]].mean()


def target(points: Points) -> float:
    """Return the target F1: `SHARE` of the best mean F1 of any technique and epoch."""
    return SHARE * float(mean_curves(points)["f1"].max())


def time_to_target(points: Points) -> pd.DataFrame:
    """Return when each technique reaches the target.

    Parameters
    ----------
    points
        From `quality_cost.quality`.

    Returns
    -------
    DataFrame
        One row per technique, its title in the index. `epoch`, `seconds` and `f1` of the first epoch whose mean F1
        reaches the target, NaN if none does; `best`, `lowest` and `highest`: the mean F1 of its best epoch, and its
        minimum and maximum over the seeds.
    """
    wanted, curves = target(points), mean_curves(points)
    order = curves["title"].unique()
    reached = curves[curves["f1"] >= wanted].groupby("title")[["epoch", "seconds", "f1"]].first()
    found = reached.reindex(order)
    scores = pd.DataFrame(points).groupby(["title", "epoch"])["f1"].agg(["mean", "min", "max"])
    best = scores.loc[scores.groupby("title")["mean"].idxmax()].droplevel("epoch").reindex(order)
    return found.assign(best=best["mean"], lowest=best["min"], highest=best["max"])


def table(points: Points) -> pd.DataFrame:
    """Return `time_to_target` as a table for the user, with formatted text and Spanish column names."""
    rows = time_to_target(points)
    return pd.DataFrame(
        {
            "técnica": rows.index,
            "segundos hasta el 95 %": [in_seconds(seconds) for seconds in rows["seconds"]],
            "época": ["–" if pd.isna(epoch) else f"{epoch:.0f}" for epoch in rows["epoch"]],
            "mejor F1 (menor a mayor)": [
                f"{row.best:.3f} ({row.lowest:.3f} a {row.highest:.3f})" for row in rows.itertuples()
            ],
        }
    )


def reading(points: Points) -> str:
    """Return a Spanish sentence that compares the time to the target of the fastest technique with the first's."""
    rows = time_to_target(points)
    fastest, first = rows["seconds"].idxmin(), rows.index[0]
    shortest, baseline = rows.seconds[fastest], rows.seconds[first]
    said = f"95 % del mejor F1 ({target(points):.3f}): «{fastest}», en {in_seconds(shortest)} s"
    if pd.isna(baseline):
        return f"{said}; el punto de partida no llega."
    if fastest == first:
        return f"{said}; ninguna llega antes."
    return f"{said}; el punto de partida, en {in_seconds(baseline)} s ({baseline / shortest:.3g} veces)."


def in_seconds(seconds: float) -> str:
    """Return seconds with three significant digits, without the unit; «no llega» for NaN."""
    return "no llega" if pd.isna(seconds) else f"{float(f'{seconds:.3g}'):,g}"
