"""Measure the quality cost of the cumulative techniques: validation F1 of short trainings against their time."""

import logging
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

logger = logging.getLogger(__name__)

# The guide's rate of 2e-5 learns almost nothing in a few epochs. Variants with frozen lower layers use the rate of the
# `cpu` recipe; a fully trained encoder uses this one, low enough to preserve the pretrained weights.
WHOLE_RATE = 1e-4


def quality(config: TrainConfig, results: Mapping[str, Any], epochs: int = 3, seeds: int = 2) -> list[dict[str, Any]]:
    """Train the cumulative techniques for a few epochs and return the time and validation F1 of each.

    Consecutive techniques that compute the same function share their F1: only the last, the fastest, is trained.

    Parameters
    ----------
    config
        Settings whose data, encoder, heads and seed are used.
    results
        From `compare.compare`.
    epochs
        Epochs per training, at least 1.
    seeds
        Number of trainings per technique, each with its own seed; at least 1.

    Returns
    -------
    list of dict
        One point per technique. `f1`, `f1_min`, `f1_max`: mean, minimum and maximum over the seeds of the weighted F1
        averaged over the heads. `seconds`: measured steps of that many epochs, plus building the cache. `trained`:
        whether this technique was trained; if so, `trained_seconds` is the time of the training and its scoring.

    Raises
    ------
    UserError
        If `epochs` or `seeds` is less than 1.
    AskedToStopError
        If a training is interrupted; the trainings cannot be resumed.
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
            logger.info(f"{technique.title}: semilla {seed}, {epochs} épocas.")
            rate = frozen.learning_rate if rung.freeze_layers else WHOLE_RATE
            with tempfile.TemporaryDirectory() as folder:
                chosen = rung.replace(seed=seed, learning_rate=rate, out=str(Path(folder) / "run"))
                try:
                    run = fit(chosen, notices, keep_trunk=False)
                except AskedToStopError as error:  # the temporary folder and its checkpoint are deleted
                    said = "Detenido. Estos entrenamientos no se continúan: lo medido antes queda."
                    raise AskedToStopError(said, error.signal) from None
                scores.append(float(np.mean([run.metrics["val"][f"{head}_f1"] for head in run.classes])))
                times.append(run.metadata["seconds"]["training"] + run.metadata["seconds"]["trunk"])
        points[-1] |= {"trained_seconds": float(np.mean(times)), "trained": True}
        for point in points:  # and the previous points, which compute the same function
            if "f1" not in point:
                point |= {"f1": float(np.mean(scores)), "f1_min": min(scores), "f1_max": max(scores)}
    return points


def check(epochs: int, seeds: int) -> None:
    """Raise `UserError` if `epochs` or `seeds` is less than 1."""
    for name, value in (("epochs", epochs), ("seeds", seeds)):
        if value < 1:
            raise UserError(f"{name} = {value}: debe ser 1 como mínimo.")


def reading(points: list[dict[str, Any]]) -> str:
    """Return a Spanish sentence that compares the time and F1 of the last point with the first."""
    first, last = points[0], points[-1]
    return (
        f"Del primero al último: de {duration(first['seconds'])} a {duration(last['seconds'])}, con un F1 medio de "
        f"{first['f1']:.3f} y de {last['f1']:.3f}."
    )
