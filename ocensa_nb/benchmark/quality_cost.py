"""Measure the quality cost of the cumulative techniques: validation F1 after each epoch against its time."""

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ocensa_nb.benchmark.measure import EPOCHS
from ocensa_nb.benchmark.techniques import Setting, Technique, cumulative
from ocensa_nb.config import RECIPES, TrainConfig, baseline_of
from ocensa_nb.data.notices import Notices
from ocensa_nb.errors import AskedToStopError, UserError
from ocensa_nb.runtime.timing import duration
from ocensa_nb.training.train import fit, load_notices

logger = logging.getLogger(__name__)

# The guide's rate of 2e-5 learns almost nothing in a few epochs. Variants with frozen lower layers use the rate of the
# `cpu` recipe; a fully trained encoder uses this one, low enough to preserve the pretrained weights.
WHOLE_RATE = 1e-4


SEEDS = 3


def quality(
    config: TrainConfig, results: Mapping[str, Any], epochs: int | None = None, seeds: int = SEEDS
) -> list[dict[str, Any]]:
    """Train the cumulative techniques and return the validation F1 of each after every epoch, with its time.

    Consecutive techniques that compute the same function share their F1: only the last, the fastest, is trained.

    Parameters
    ----------
    config
        Settings whose data, encoder, heads and seed are used.
    results
        From `compare.compare`.
    epochs
        Epochs per training, at least 1; None for those of the recipe `cpu`, whose learning rates are used.
    seeds
        Number of trainings per technique, each with its own seed; at least 1.

    Returns
    -------
    list of dict
        One point per technique, seed and epoch, in that order. `f1`: weighted F1 averaged over the heads, 0 to 1.
        `seconds`: the measured steps up to the end of that epoch, plus building the cache; without the evaluation.
        `trained`: whether this technique was trained; if so, `trained_seconds` is the time that its training took up to
        there, with the evaluation and the cache.

    Raises
    ------
    UserError
        If `epochs` or `seeds` is less than 1.
    AskedToStopError
        If a training is interrupted; the trainings cannot be resumed.
    """
    check(epochs, seeds)
    frozen = TrainConfig().replace(**RECIPES["cpu"])
    epochs = epochs or frozen.epochs
    base = baseline_of(config).replace(
        heads={head: 1 / len(config.heads) for head in config.heads},
        head_learning_rate=frozen.head_learning_rate,
        epochs=epochs,
        patience=epochs,
        class_weights=False,
    )
    notices = load_notices(base)
    stacked = cumulative(base, Setting(**{field.name: results[field.name] for field in fields(Setting)}))
    groups = _same_function([technique for technique, _, _ in stacked])
    progress = _Progress([_seconds(results["ladder"][group[-1]], epochs) for group in groups], seeds)
    points: list[dict[str, Any]] = []
    for group in groups:
        technique, rung, _ = stacked[group[-1]]
        rung = rung.replace(learning_rate=frozen.learning_rate if rung.freeze_layers else WHOLE_RATE)
        runs = []
        for seed in range(base.seed, base.seed + seeds):
            progress.announce(technique.title, seed, epochs)
            runs.append((seed, _train(rung.replace(seed=seed), notices)))
            progress.finished()
        for place in group:
            measured = results["ladder"][place]
            trained = place == group[-1]
            points += [
                {
                    "name": measured["name"],
                    "title": measured["title"],
                    "trained": trained,
                    "seed": seed,
                    "epoch": epoch,
                    "seconds": _seconds(measured, epoch),
                    "f1": f1,
                    "trained_seconds": seconds if trained else None,
                }
                for seed, curve in runs
                for epoch, (seconds, f1) in enumerate(curve, 1)
            ]
    return points


def check(epochs: int | None, seeds: int) -> None:
    """Raise `UserError` if `epochs` or `seeds` is less than 1."""
    for name, value in (("epochs", epochs), ("seeds", seeds)):
        if value is not None and value < 1:
            raise UserError(f"{name} = {value}: debe ser 1 como mínimo.")


class _Progress:
    """Say which training begins, of how many, and the expected time left."""

    def __init__(self, expected: list[float], seeds: int) -> None:
        self.expected = [seconds for seconds in expected for _ in range(seeds)]
        self.done, self.started = 0, time.perf_counter()

    def announce(self, title: str, seed: int, epochs: int) -> None:
        """Log a line before a training."""
        # The measured steps leave the evaluation out; the trainings already made say by how much the time is longer.
        before = sum(self.expected[: self.done])
        slower = (time.perf_counter() - self.started) / before if before else 1.0
        left = duration(slower * sum(self.expected[self.done :]))
        number = f"Entrenamiento {self.done + 1} de {len(self.expected)}"
        logger.info(f"{number}: {title}, semilla {seed}, {epochs} épocas. Faltan unos {left}.")

    def finished(self) -> None:
        """Count a training."""
        self.done += 1


def _same_function(techniques: list[Technique]) -> list[list[int]]:
    """Return the places of consecutive techniques that compute the same function, together."""
    groups: list[list[int]] = []
    for place, technique in enumerate(techniques):
        if groups and technique.exact:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _seconds(measured: Mapping[str, Any], epochs: int) -> float:
    """Return the projected seconds of some epochs of a technique, from its measured steps."""
    build = measured["build_seconds"]
    return build + (measured["run_seconds"] - build) * epochs / EPOCHS


def _train(config: TrainConfig, notices: Notices) -> list[tuple[float, float]]:
    """Train and return, per epoch, the seconds since the beginning and the mean validation F1 of the heads."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = fit(config.replace(out=str(Path(folder) / "run")), notices, keep_features=False)
        except AskedToStopError as error:  # the temporary folder and its checkpoint are deleted
            said = "Detenido. Estos entrenamientos no se pueden continuar; lo ya medido se conserva."
            raise AskedToStopError(said, error.signal) from None
        lines = [line for line in run.history() if "step" not in line]
        seconds = run.metadata["seconds"]["features"] + np.cumsum([line["seconds"] for line in lines])
        scores = [float(np.mean([line[f"{head}_f1"] for head in run.classes])) for line in lines]
        return list(zip(seconds.tolist(), scores, strict=True))
