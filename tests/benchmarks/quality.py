"""Measure the test F1 of the simple model, the encoder and the blend over several splits.

    python -m tests.benchmarks.quality --data avisos.csv --splits 5 --picture quality.png

Each split is one training with another seed, in a temporary folder; features of frozen layers are not read
from disk. The table has mean and standard deviation over the splits: weighted and macro F1, all classes counted, the
calibration error of the confidence, coverage and size of the suggested sets, and the seconds of the whole training and
of the simple model within it.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from ocensa_nb.config import SOURCES, from_recipe
from ocensa_nb.errors import num
from ocensa_nb.evaluation.metrics import MODEL_NAMES
from ocensa_nb.figures import style
from ocensa_nb.figures.style import GREY, INK, MODEL_COLOURS, new_figure, read_as, styled
from ocensa_nb.runtime import logs
from ocensa_nb.training import train

FIRST = "first 3"
BARS = MODEL_NAMES | {FIRST: "la correcta está entre 3"}
COLOUR_OF = MODEL_COLOURS | {FIRST: GREY}


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
    suggested = {}
    for head, part in metrics["suggestion"].items():
        suggested |= {f"{head} coverage": part["sets"]["right"], f"{head} size": part["size"]}
        suggested |= {f"{head} accepted": part["accepted"]["rows"] / part["all"]["rows"]}
        suggested |= {f"{head} right of the accepted": part["accepted"]["right"] if part["accepted"]["rows"] else None}
        suggested |= {f"{head} in the first {k}": part["top"][k - 1] for k in (1, 2, 3) if k <= len(part["top"])}
    rows = {"seconds": seconds["total"], "seconds of the simple model": seconds["linear"], **errors, **suggested}
    return scores, rows | {"sources": metrics["sources"], "verdict": metrics["verdict"]}


@styled
def f1_by_model(table: pd.DataFrame, title: str, repeats: str = "") -> Figure:
    """Return the F1 of each `label` and `model` as bars, `mean` and `sd`; `repeats` says what the mean is over."""
    figure, axes = new_figure(7.5, 4)
    heads, models = list(dict.fromkeys(table["label"])), [m for m in BARS if m in set(table["model"])]
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        part = table[table["model"] == model].set_index("label").reindex(heads)
        at = np.arange(len(heads)) + (place - (len(models) - 1) / 2) * width
        spread = part["sd"].fillna(0).to_numpy()
        axes.bar(at, part["mean"], 0.92 * width, color=COLOUR_OF[model], label=BARS[model])
        axes.errorbar(at, part["mean"], spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        for x, mean, sd in zip(at, part["mean"], spread, strict=True):
            if np.isfinite(mean):
                above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 9}
                axes.annotate(num(mean, 2), (x, mean + sd), **above)
    axes.set_xticks(np.arange(len(heads)), heads)
    axes.set(
        ylabel="F1 ponderado, o parte de los avisos",
        title=title,
        ylim=(0, 1.12 * float((table["mean"] + table["sd"].fillna(0)).max())),
    )
    axes.grid(False, axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(models))
    reading = "Un modo o una causa se eligen entre 3 clases; la prioridad se deduce de dos columnas."
    read_as(figure, reading + (f" Barras: desviación estándar, {repeats}." if repeats else ""))
    return figure


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
        columns = [f"{head} in the first 3" for head in dict.fromkeys(table["label"])]
        first = pd.DataFrame(others)[columns].rename(columns=lambda name: name.split(" ")[0])
        first = first.melt(var_name="label", value_name="f1").assign(model=FIRST)
        shown = pd.concat([table[table["model"] != "run"], first]).groupby(["label", "model"], sort=False)["f1"]
        shown = shown.agg(mean="mean", sd="std").reset_index()
        figure = f1_by_model(shown, "Avisos reales que ningún modelo vio", f"{splits} repartos")
        style.save(figure, Path(picture))
    if save:
        Path(save).write_text(json.dumps({"scores": scores, "others": others}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
