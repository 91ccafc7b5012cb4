"""What each rung of the ladder costs in quality: short trainings, and their F1 beside their time."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ocensa_nb.benchmark.ablation import EPOCHS
from ocensa_nb.benchmark.techniques import cumulative
from ocensa_nb.config import RECIPES, TrainConfig, baseline_of
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.runtime.timing import duration
from ocensa_nb.training.train import fit, load_notices

# The guide's rate of 2e-5 learns next to nothing in a few epochs. What is frozen low takes the rate of the recipe for a
# CPU, and a whole encoder one that does not undo what it knows.
WHOLE_RATE = 1e-4


def quality(config: TrainConfig, results: Mapping[str, Any], epochs: int = 3, seeds: int = 2) -> list[dict[str, Any]]:
    """Train rungs of a measured ladder for a few epochs and return a point a rung: seconds and validation F1.

    Rungs that compute the same function share their F1: one of them is trained, the fastest (`trained`). f1: the mean
    over heads of the weighted F1, over `seeds` seeds, from f1_min to f1_max. seconds: of the measured steps of so many
    epochs, and of building the cache; trained_seconds: of the training itself, with its scoring. Raises `UserError`
    for numbers that cannot be.
    """
    check(epochs, seeds)
    frozen = TrainConfig().replace(**RECIPES["cpu"])
    base = baseline_of(config).replace(
        heads={head: 1 / len(config.heads) for head in config.heads},
        head_learning_rate=frozen.head_learning_rate,
        epochs=epochs,
        patience=epochs,
        class_weights=False,
    )
    notices = load_notices(base)
    stacked = cumulative(base, results["depth"], results["cuts"], results["halves"])
    points: list[dict[str, Any]] = []
    for place, (technique, rung) in enumerate(stacked):
        measured = results["ladder"][place]
        seconds = measured["build_seconds"] + (measured["run_seconds"] - measured["build_seconds"]) * epochs / EPOCHS
        points.append({"name": technique.name, "title": technique.title, "seconds": seconds, "trained": False})
        followed_by_same = place + 1 < len(stacked) and stacked[place + 1][0].exact
        if followed_by_same:
            continue
        scores, times = [], []
        for seed in range(base.seed, base.seed + seeds):
            print(f"{technique.title}: semilla {seed}, {epochs} épocas.", flush=True)
            rate = frozen.learning_rate if rung.freeze_layers else WHOLE_RATE
            with tempfile.TemporaryDirectory() as folder:
                chosen = rung.replace(seed=seed, learning_rate=rate, out=str(Path(folder) / "run"))
                try:
                    run = fit(chosen, notices, keep_trunk=False)
                except AskedToStopError as error:  # the folder goes, and with it what could be gone on with
                    said = "Detenido. Estos entrenamientos no se continúan: lo medido antes queda."
                    raise AskedToStopError(said, error.signal) from None
                scores.append(float(np.mean([run.metrics["val"][f"{head}_f1"] for head in run.classes])))
                times.append(run.metadata["seconds"]["training"] + run.metadata["seconds"]["trunk"])
        points[-1] |= {"trained_seconds": float(np.mean(times)), "trained": True}
        for point in points:  # and all before it that compute the same
            if "f1" not in point:
                point |= {"f1": float(np.mean(scores)), "f1_min": min(scores), "f1_max": max(scores)}
    return points


def check(epochs: int, seeds: int) -> None:
    """Raise `UserError` for numbers of epochs or seeds that cannot be."""
    for name, value in (("epochs", epochs), ("seeds", seeds)):
        if value < 1:
            raise UserError(f"{name} = {value}: debe ser 1 como mínimo.")


def reading(points: list[dict[str, Any]]) -> str:
    """Say in one Spanish sentence what the fastest rung costs against the first."""
    first, last = points[0], points[-1]
    return (
        f"Del primero al último: de {duration(first['seconds'])} a {duration(last['seconds'])}, con un F1 medio de "
        f"{first['f1']:.3f} y de {last['f1']:.3f}."
    )
