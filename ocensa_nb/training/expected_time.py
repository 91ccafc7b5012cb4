"""Measure a few steps of a training before it starts, and estimate its time from them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ocensa_nb.config import TrainConfig
from ocensa_nb.engine.batching import EpochSampler, StepDataset
from ocensa_nb.engine.inference import logits
from ocensa_nb.engine.step import Engine
from ocensa_nb.errors import duration, num
from ocensa_nb.models.tokens import scoring_batches
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.runtime.timing import seconds_of

SCORED = ("val", "test")
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # of the batches by size
REPEATS = 3
BUDGET_SECONDS = 6.0  # if all of them take longer, the smallest and the largest are enough


@dataclass(frozen=True)
class Estimate:
    """Expected time of a training."""

    epoch: float
    training: float
    measured: float
    spread: float = 0.0  # half the range of the rounds, over their median

    def after(self, epochs: float) -> "Estimate":
        return dataclasses.replace(self, training=self.training - epochs * self.epoch)

    def __str__(self) -> str:
        return (
            f"Tiempo previsto: {duration(self.training)} ± {100 * self.spread:.0f} %, a {duration(self.epoch)} por "
            f"época. Sale de {REPEATS} rondas de pasos medidos en esta máquina durante {num(self.measured, 1)} s; si "
            "deja de mejorar antes, será menos."
        )


def estimate_time(
    engine: Engine, batches: StepDataset, sampler: EpochSampler, split: dict[str, np.ndarray], config: TrainConfig
) -> Estimate:
    """Return the expected time, the median of some rounds of measured steps and scored batches."""
    started = time.perf_counter()
    sampler.epoch = 1
    steps, widths = list(sampler), engine.table.widths(config.padding)
    sides = {side: [split[side][b] for b in scoring_batches(widths[split[side]], engine.device)] for side in SCORED}

    def score(rows: np.ndarray) -> None:
        logits(engine.model, engine.table, rows, engine.precision, config.padding)

    with _without_effect(engine):
        stepping = _measure(engine, steps, widths, lambda rows: engine.step(batches[rows]))
    scoring = _measure(engine, [rows for side in SCORED for rows in sides[side]], widths, score)
    val, test = (scoring(sides[side]) / engine.world.size for side in SCORED)
    epochs = stepping(steps) + val
    trainings = config.epochs * epochs + val + test
    epoch, training = float(np.median(epochs)), float(np.median(trainings))
    return Estimate(epoch, training, time.perf_counter() - started, float(np.ptp(trainings)) / training / 2)


def _measure(
    engine: Engine, batches: list[np.ndarray], widths: np.ndarray, work: Callable[[np.ndarray], object]
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Return a function from batches to their seconds in each round, interpolated by size between a few measured."""

    def sizes(batches: list[np.ndarray]) -> list[int]:
        return [len(rows) * int(widths[rows].max()) for rows in batches]

    def seconds(rows: np.ndarray) -> float:
        return seconds_of(lambda: work(rows), engine.device)

    known, index = np.unique(sizes(batches), return_index=True)
    chosen = np.unique([round(q * (len(known) - 1)) for q in QUANTILES])
    seconds(batches[index[-1]])  # a cold device starts here, and reserves its memory
    expected = seconds(batches[index[-1]]) * len(chosen) * (REPEATS + 1)
    if engine.world.largest(expected > BUDGET_SECONDS):  # all processes make the same steps
        chosen = chosen[:: max(1, len(chosen) - 1)]
    else:
        for i in chosen:
            seconds(batches[index[i]])
    rounds = [[seconds(batches[index[i]]) for i in chosen] for _ in range(REPEATS)]
    return lambda batches: np.array([np.interp(sizes(batches), known[chosen], one).sum() for one in rounds])


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
