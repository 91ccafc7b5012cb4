"""Measure a few steps of a training before it starts, and estimate its time from them."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ocensa_nb.config import TrainConfig
from ocensa_nb.engine.batching import EpochSampler, StepDataset
from ocensa_nb.engine.inference import logits
from ocensa_nb.engine.step import Engine
from ocensa_nb.errors import num
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.runtime.timing import duration, seconds_of

QUANTILES = (1.0, 0.0, 0.5, 0.25, 0.75, 0.9)  # of an epoch's batches by size, in the order they are measured
REPEATS = 3
BUDGET_SECONDS = 6.0  # after which the largest and the smallest are enough
SCORED_ROWS = 256


@dataclass(frozen=True)
class Estimate:
    """Expected time of a training."""

    epoch: float
    training: float
    measured: float

    def after(self, epochs: float) -> "Estimate":
        return dataclasses.replace(self, training=self.training - epochs * self.epoch)

    def __str__(self) -> str:
        return (
            f"Tiempo previsto: {duration(self.training)}, a {duration(self.epoch)} por época. Sale de pasos medidos en "
            f"esta máquina durante {num(self.measured, 1)} s; si deja de mejorar antes, será menos."
        )


def estimate_time(
    engine: Engine, batches: StepDataset, sampler: EpochSampler, split: dict[str, np.ndarray], config: TrainConfig
) -> Estimate:
    """Return the expected time; a step is interpolated by the size of its batch between a few measured ones."""
    started = time.perf_counter()
    sampler.epoch = 1
    steps = list(sampler)
    fixed = config.max_length if config.padding == "max_length" and isinstance(engine.table, TokenTable) else 0
    lengths = engine.table.lengths
    sizes = np.array([len(rows) * (fixed or int(lengths[rows].max())) for rows in steps])
    by_size = np.argsort(sizes, kind="stable")
    chosen = list(dict.fromkeys(by_size[round(q * (len(steps) - 1))] for q in QUANTILES))
    with _without_effect(engine):
        engine.step(batches[steps[chosen[0]]])  # warms up
        seconds: dict[int, list[float]] = {}
        first = time.perf_counter()
        for _ in range(REPEATS):
            for index in chosen:
                over = time.perf_counter() - first >= BUDGET_SECONDS
                if len(seconds) < 2 or not engine.world.largest(over):  # all processes make the same steps
                    seconds.setdefault(index, []).append(_step_seconds(engine, batches, steps[index]))
    measured = sorted(seconds, key=lambda index: sizes[index])
    medians = [float(np.median(seconds[index])) for index in measured]
    steps_seconds = np.interp(sizes, sizes[measured], medians).sum()

    scoring_seconds = {
        side: _scoring_seconds(engine, rows, config.padding) / engine.world.size
        for side, rows in split.items()
        if side != "train"
    }
    epoch = float(steps_seconds + scoring_seconds["val"])
    training = config.epochs * epoch + sum(scoring_seconds.values())
    return Estimate(epoch, training, time.perf_counter() - started)


@contextlib.contextmanager
def _without_effect(engine: Engine) -> Iterator[None]:
    """Set the learning rate to zero inside the block; restore it, the random state and the moments afterwards."""
    before, scale = random_state(), engine.scaler.state_dict()
    rates = [group["lr"] for group in engine.optimizer.param_groups]
    for group in engine.optimizer.param_groups:
        group["lr"] = 0.0
    engine.model.train()
    try:
        yield
    finally:
        for group, rate in zip(engine.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        engine.optimizer.state.clear()
        if scale:  # a scaler that is switched off has none
            engine.scaler.load_state_dict(scale)
        restore_random_state(before)


def _step_seconds(engine: Engine, batches: StepDataset, rows: np.ndarray) -> float:
    return seconds_of(lambda: engine.step(batches[rows]), engine.device)


def _scoring_seconds(engine: Engine, rows: np.ndarray, padding: str) -> float:
    """Return the expected seconds to score all rows, measured on some of every length."""
    by_length = rows[np.argsort(engine.table.lengths[rows], kind="stable")]
    some = by_length[:: -(-len(rows) // SCORED_ROWS)]
    started = time.perf_counter()
    logits(engine.model, engine.table, some, engine.precision, padding)
    return (time.perf_counter() - started) * len(rows) / len(some)
