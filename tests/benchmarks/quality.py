"""Measure the test F1 of the simple model, the encoder and the blend over several splits.

    python -m tests.benchmarks.quality --data avisos.csv --splits 5 --picture quality.png

Each split is one training with another seed, in a temporary folder; features of frozen layers are not read
from disk. The table has mean and standard deviation over the splits: weighted and macro F1, all classes counted, the
calibration error of the confidence, and the seconds of the whole training and of the simple model within it.
"""

import json
import tempfile
from pathlib import Path

import pandas as pd
import tyro

from ocensa_nb.config import from_recipe
from ocensa_nb.evaluation.blend import SOURCES
from ocensa_nb.figures import quality, style
from ocensa_nb.runtime import logs
from ocensa_nb.training import train


def measure(data: str, recipe: str, split: int) -> tuple[list[dict], dict]:
    """Return the F1 of each label and model, and what else was measured, for one split."""
    with tempfile.TemporaryDirectory() as folder:
        config = from_recipe(recipe, {"data": data, "seed": split, "out": str(Path(folder) / "run")})
        run = train.fit(config)
        metrics, seconds = run.metrics, run.metadata["seconds"]
    scores = [
        {"label": head, "model": model, "f1": found[f"{head}_f1"], "f1_macro": found[f"{head}_f1_macro"]}
        for model, found in {**{source: metrics[source]["test"] for source in SOURCES}, "run": metrics["test"]}.items()
        for head in metrics["sources"]
    ]
    errors = {f"{head} {when}": error for head, both in metrics["calibration"].items() for when, error in both.items()}
    rows = {"seconds": seconds["total"], "seconds of the simple model": seconds["linear"], **errors}
    return scores, rows | {"sources": metrics["sources"], "verdict": metrics["verdict"]}


def main(
    data: str = "", recipe: str = "cpu", splits: int = 5, first: int = 1, picture: str = "", save: str = ""
) -> None:
    """Train on `splits` splits, the first with seed `first`; print the tables, write the picture and a JSON file."""
    logs.configure(rank=1)  # errors only
    scores, others = [], []
    for split in range(first, first + splits):
        found, other = measure(data, recipe, split)
        scores += [{"split": split, **row} for row in found]
        others.append({"split": split, **other})
        print(f"split {split}: {other['seconds']:.0f} s, {other['sources']}", flush=True)
    table = pd.DataFrame(scores)
    print(table.groupby(["model", "label"], sort=False)[["f1", "f1_macro"]].agg(["mean", "std"]).round(3).to_string())
    print(
        pd.DataFrame(others).drop(columns=["split", "sources", "verdict"]).agg(["mean", "std"]).round(3).T.to_string()
    )
    if picture:
        shown = table[table["model"] != "run"].groupby(["label", "model"], sort=False)["f1"]
        shown = shown.agg(mean="mean", sd="std").reset_index()
        figure = quality.f1_by_model(shown, "F1 en avisos que ningún modelo vio", f"{splits} repartos")
        style.save(figure, Path(picture))
    if save:
        Path(save).write_text(json.dumps({"scores": scores, "others": others}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
