"""Predict the training time of any settings on this machine from a few measured steps and a linear cost model.

The time of a step is modelled as a sum over the operations it computes (layers on tokens, attention, the last layer for
`[CLS]`, embeddings, weight updates), each with its own rate. The rates are fitted to real steps of a shallow encoder of
the same shape with random weights: nothing is downloaded, and changing a setting needs no new measurement.
"""

import contextlib
import io
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls
from tqdm.auto import tqdm

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.encoders.loading import untrained
from ocensa_nb.encoders.token_table import TokenTable, epoch_batches, sorted_batches
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import StepDataset
from ocensa_nb.runtime import environment
from ocensa_nb.runtime.precision import allow_tf32
from ocensa_nb.runtime.seeding import random_state, restore_random_state
from ocensa_nb.runtime.timing import release_memory, seconds_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DEPTH = 3  # layers of the measured encoder
PROBES = (  # variants chosen so that every rate can be identified
    {"freeze_layers": 0, "cls_only": False},
    {"freeze_layers": 0, "cls_only": True},
    {"freeze_layers": 0, "cls_only": True, "batch_size": 8},
    {"freeze_layers": 1, "cls_only": True, "cache_trunk": False},
    {"freeze_layers": 2, "cls_only": True, "cache_trunk": False},
    {"freeze_layers": 2, "cls_only": True, "cache_trunk": True},
)
# (rows, tokens) of the measured steps; a GPU needs larger ones to be fully used. Odd widths, as in real texts: in bf16
# they are slower.
CPU_SIZES = ((8, 13), (16, 23), (32, 17), (16, 47), (32, 51), (16, 256))
GPU_SIZES = ((16, 16), (32, 32), (64, 48), (32, 128), (16, 256))
VOCABULARY = 2_000
REPEATS = 3
BUDGET_SECONDS = 10.0  # after this time, one repeat per step is enough
SCORING_BATCH = 64
# Relative error measured on the steps of real encoders, which are deeper: tests/measure/prices.py.
EXTRAPOLATION = 0.2


@dataclass(frozen=True)
class Layout:
    """Parts of an encoder that a pass computes.

    Attributes
    ----------
    trained
        Number of layers with a forward and a backward pass.
    run
        Number of layers with a forward pass only.
    short
        1 if the last layer is computed only for `[CLS]`, otherwise 0.
    embeds
        Whether the embeddings are computed.
    learns
        Whether the embeddings are trained.
    """

    trained: int
    run: int
    short: int
    embeds: bool
    learns: bool = False

    @classmethod
    def of(cls, config: TrainConfig, depth: int) -> "Layout":
        """Return the layout of a training step of `config` in an encoder of `depth` layers."""
        short = int(config.cls_only and config.freeze_layers < depth)
        frozen = min(config.freeze_layers, depth - short)
        cached = bool(config.cache_trunk and config.freeze_layers)
        return cls(depth - short - frozen, 0 if cached else frozen, short, not cached, not config.freeze_layers)

    def scoring(self) -> "Layout":
        """Return the layout of scoring: the same layers without a backward pass."""
        return Layout(0, self.trained + self.run, self.short, self.embeds)


def work(shapes: np.ndarray, layout: Layout, trains: bool = True) -> np.ndarray:
    """Return the amount of each kind of work in some passes.

    Parameters
    ----------
    shapes : ndarray of shape (passes, 2), int64
        Rows and width in tokens of each pass.
    layout
        Parts of the encoder that a pass computes.
    trains
        Whether the passes include a backward pass.

    Returns
    -------
    ndarray of shape (kinds,), float64
        The last entry, the optimiser's, is zero; the caller sets it.
    """
    rows, width = shapes.astype(np.float64).T
    tokens, passes = rows * width, len(shapes)
    short = layout.short if trains else layout.short / 3
    return np.array(
        [
            passes,
            passes * layout.trained,
            passes * layout.run,
            layout.trained * tokens.sum(),
            layout.run * tokens.sum(),
            layout.trained * (tokens * width).sum(),
            layout.run * (tokens * width).sum(),  # no dropout here, which is a large cost in trained layers
            short * tokens.sum(),
            short * rows.sum(),
            layout.embeds * tokens.sum(),
            (layout.learns and trains) * tokens.sum(),
            0.0,
        ]
    )


@dataclass(frozen=True)
class Prices:
    """Fitted cost of each kind of work on this machine, in one precision.

    Attributes
    ----------
    rates : ndarray of shape (kinds,), float64
        Seconds per unit of work.
    spread
        Relative uncertainty of the predictions.
    measured
        Seconds the measurement took.
    """

    rates: np.ndarray
    spread: float
    measured: float

    def epoch(self, config: TrainConfig, depth: int, lengths: np.ndarray, updated: int) -> float:
        """Return the predicted seconds of the training steps of one epoch.

        Parameters
        ----------
        config
            Settings of the training.
        depth
            Number of layers of the encoder.
        lengths : ndarray of shape (rows,), int64
            Tokens of each text, after truncation.
        updated
            Number of parameters that the optimiser updates.

        Returns
        -------
        float
            Seconds.
        """
        shapes, steps = [], 0
        for rows in epoch_batches(lengths, config.effective_batch_size, config.seed, 1):
            steps += 1
            for start in range(0, len(rows), config.batch_size):
                micro = lengths[rows[start : start + config.batch_size]]
                shapes.append((len(micro), _width(config, micro)))
        amount = work(np.array(shapes), Layout.of(config, depth))
        amount[-1] = steps * updated
        return float(amount @ self.rates)

    def scoring(self, config: TrainConfig, depth: int, lengths: np.ndarray) -> float:
        """Return the predicted seconds to score texts of `lengths` tokens, int64 (rows,), once."""
        return self._forward(config, Layout.of(config, depth).scoring(), lengths)

    def trunk(self, config: TrainConfig, lengths: np.ndarray) -> float:
        """Return the predicted seconds to compute the frozen layers of texts of `lengths` tokens, int64 (rows,)."""
        return self._forward(config.replace(padding="dynamic"), Layout(0, config.freeze_layers, 0, True), lengths)

    def _forward(self, config: TrainConfig, layout: Layout, lengths: np.ndarray) -> float:
        batches = [lengths[rows] for rows in sorted_batches(lengths, SCORING_BATCH)]
        shapes = np.array([(len(batch), _width(config, batch)) for batch in batches])
        return float(work(shapes, layout, trains=False) @ self.rates)


def measure(shape: "PretrainedConfig", precision: str, config: TrainConfig, notices: Notices) -> Prices:
    """Measure steps of a shallow encoder and return the fitted prices.

    The random state is restored afterwards.

    Parameters
    ----------
    shape
        Architecture of the encoder; its depth and vocabulary are reduced for the measurement.
    precision
        Resolved precision, not `auto`.
    config
        Base settings; batch size, padding and frozen layers are overridden by each probe.
    notices
        Determine the heads and classes of the model.

    Returns
    -------
    Prices
        Rates in this precision, with their spread.
    """
    started = time.perf_counter()
    device = environment.device()
    torch.set_num_threads(environment.threads())
    shallow = type(shape).from_dict({**shape.to_dict(), "vocab_size": max(VOCABULARY, (shape.pad_token_id or 0) + 1)})
    shallow.num_hidden_layers = DEPTH
    sizes = np.array(GPU_SIZES if device.type == "cuda" else CPU_SIZES)
    before = random_state()
    try:
        table = _table(sizes)
        amounts, seconds = [], []
        for probe in tqdm(PROBES, "Midiendo pasos", unit="variante", leave=False, delay=1):
            tried = config.replace(compile=False, padding="dynamic", max_length=int(sizes.max()))
            tried = tried.replace(**{"batch_size": int(sizes.max())} | probe)
            engine = _engine(tried, notices, table, shallow, precision, device)
            updated = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
            for size, found in zip(sizes, _steps(engine, tried, notices, sizes, started), strict=True):
                amounts.append(work(_micro_batches(size, tried.batch_size), Layout.of(tried, DEPTH)))
                amounts[-1][-1] = updated
                seconds.append(found)
    finally:
        restore_random_state(before)
        engine = None  # release its memory for the training
        release_memory()
    rates, spread = fit(np.array(amounts), np.array(seconds))
    return Prices(rates, float(np.hypot(spread, EXTRAPOLATION)), time.perf_counter() - started)


def fit(amounts: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit the rates by non-negative least squares on relative error; also return the leave-one-out error.

    Source: Lawson & Hanson, "Solving Least Squares Problems", 1974.

    Parameters
    ----------
    amounts : ndarray of shape (steps, kinds), float64
        Amount of each kind of work in each step.
    seconds : ndarray of shape (steps,), float64
        Measured time of each step.

    Returns
    -------
    rates : ndarray of shape (kinds,), float64
        Seconds per unit of work, none negative.
    spread : float
        Twice the root mean square of the relative error of each step under the rates fitted to the other steps.
    """
    relative = amounts / seconds[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(np.float64).tiny)

    def solve(kept: np.ndarray) -> np.ndarray:
        return nnls(relative[kept] / scale, np.ones(int(kept.sum())))[0] / scale

    everything = np.ones(len(seconds), bool)
    errors = []
    for left_out in range(len(seconds)):
        kept = everything.copy()
        kept[left_out] = False
        errors.append(relative[left_out] @ solve(kept) - 1)
    return solve(everything), float(2 * np.sqrt(np.mean(np.square(errors))))


def _width(config: TrainConfig, lengths: np.ndarray) -> int:
    fixed = config.padding == "max_length" and not (config.cache_trunk and config.freeze_layers)
    return config.max_length if fixed else int(lengths.max())


def _micro_batches(size: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the sizes, int64 (passes, 2), of the micro-batches that a step of `size` is split into."""
    rows, width = size
    return np.array([(min(batch_size, rows - start), width) for start in range(0, rows, batch_size)])


def _table(sizes: np.ndarray) -> TokenTable:
    """Return texts of random ids for each size (rows, tokens); every second row is one token shorter.

    The shorter rows give each batch padding and a mask, as real batches have.
    """
    lengths = np.concatenate([width - np.arange(rows) % 2 for rows, width in sizes])
    ids = np.random.default_rng(0).integers(1, VOCABULARY, int(lengths.sum()), np.int32)
    return TokenTable(ids, np.concatenate([[0], np.cumsum(lengths)]), 0, int(sizes[:, 1].max()))


def _engine(
    config: TrainConfig,
    notices: Notices,
    table: TokenTable,
    shape: "PretrainedConfig",
    precision: str,
    device: torch.device,
) -> engines.Engine:
    model = engines.classifier(config, notices, untrained(shape).float())
    allow_tf32(precision)
    with contextlib.redirect_stdout(io.StringIO()):  # `build` prints a line for every new engine
        engine = engines.build(config, notices, table, model, precision, device)
    engine.model.train()
    return engine


def _steps(
    engine: engines.Engine, config: TrainConfig, notices: Notices, sizes: np.ndarray, started: float
) -> list[float]:
    """Return the median seconds per step for each size."""
    labels = {head: np.zeros(len(engine.table), np.int64) for head in notices.classes}
    batches = StepDataset(engine.table, labels, config.batch_size, config.padding)
    bounds = np.concatenate([[0], np.cumsum(sizes[:, 0])])
    rows = [np.arange(a, b) for a, b in itertools.pairwise(bounds)]
    for step in rows[:2]:
        engine.step(batches[step])  # allocates the moments and warms up the kernels
    found: list[list[float]] = [[] for _ in rows]
    for _ in range(REPEATS):
        if found[0] and time.perf_counter() - started > BUDGET_SECONDS:
            break
        for seconds, step in zip(found, rows, strict=True):
            seconds.append(seconds_of(lambda step=step: engine.step(batches[step]), engine.device))
    return [float(np.median(seconds)) for seconds in found]
