"""Count the work of a pass on a model without weights; measure the seconds per unit of work on a shallow encoder."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from scipy.optimize import nnls
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import MicroBatch, StepDataset
from ocensa_nb.models.catalogue import untrained
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.machine import to_device
from ocensa_nb.runtime.precision import allow_tf32, without_gradients
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.runtime.timing import release_memory, seconds_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Progress = Callable[[float], None]  # is called with the share that is done
Cancelled = Callable[[], bool]
WIDTHS = (8, 16, 24)  # tokens; three determine the quadratic polynomial exactly
DEPTH = 2  # layers of the measured encoder
VOCABULARY = 2_000
# (rows, tokens) of the measured steps: small and large, short and long. A GPU needs larger ones to be fully used.
CPU_SIZES = ((8, 13), (16, 26), (32, 17), (2, 256))  # the smallest first: the update is measured on it
GPU_SIZES = ((16, 16), (64, 32), (128, 48), (16, 256))
BUDGET_SECONDS = 2.5  # no round is started that would end after this time, except the first two
ROUNDS = 5
# Uncertainty per processor second that other programs take from one of torch's: a page that is redrawn takes a few
# percent and hardly slows it down, a second torch process takes half and slows it down up to ten times.
COMPETITION = 2.0
# Relative error measured on the epochs of real encoders: tests/benchmarks/prices.py.
EXTRAPOLATION = 0.25


@dataclass(frozen=True)
class PassFlops:
    """Work of one pass over a batch."""

    operators: int  # the same for every batch
    # float64 (2, 3): FLOPs of a row, with weights and between activations, as polynomials of the tokens
    per_row: np.ndarray

    def work(self, shapes: np.ndarray) -> np.ndarray:
        """Return (operators, FLOPs with weights, FLOPs between activations), float64 (passes, 3)."""
        rows, width = shapes.astype(np.float64).T
        flops = rows[:, None] * (width[:, None] ** np.arange(3) @ self.per_row.T)
        return np.column_stack([np.full(len(shapes), float(self.operators)), flops])


def count(
    model: nn.Module, features: int = 0, backward: bool = True, forward: Callable[..., Any] | None = None
) -> PassFlops:
    """Count the work of one pass through a model, or through `forward`, a part of it, on the device `meta`.

    `features` is the size of cached hidden states, 0 for token ids. Attention must be computed by separate products
    ("eager"): the fused kernel of a CPU is not in the registry of `torch.utils.flop_counter`.
    """
    counts = np.array([_count_once(model, forward or model, width, features, backward) for width in WIDTHS])
    powers = np.array(WIDTHS, np.float64)[:, None] ** np.arange(3)
    return PassFlops(int(counts[0, 0]), np.linalg.solve(powers, counts[:, 1:]).T)


class _OperatorCounter(TorchDispatchMode):
    """Count the operators that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))


def _count_once(
    model: nn.Module, forward: Callable[..., Any], width: int, features: int, backward: bool
) -> tuple[float, float, float]:
    inputs = torch.empty((1, width, features) if features else (1, width), device="meta")
    inputs = inputs if features else inputs.long()
    mask = torch.ones((1, width), dtype=torch.int64, device="meta")
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as flops, _OperatorCounter() as counter:
        outputs = forward(inputs, mask)
        if backward:
            sum(logits.sum() for logits in outputs.values()).backward()
    model.zero_grad(set_to_none=True)
    counts = {str(operator): total for operator, total in flops.get_flop_counts()["Global"].items()}
    between = sum(total for operator, total in counts.items() if "bmm" in operator)
    return counter.operators, sum(counts.values()) - between, between


@dataclass(frozen=True)
class Throughput:
    """Speed of this machine in one precision."""

    training: np.ndarray  # float64 (3,): seconds per operator, per FLOP with weights and per FLOP between activations
    scoring: np.ndarray  # the same of a forward pass
    update: float  # seconds of an optimiser update per trained parameter
    spread: float  # relative uncertainty of a predicted time
    measured: float  # seconds that the measurement took


def measure(
    shape: "PretrainedConfig",
    precision: str,
    config: TrainConfig,
    notices: Notices,
    on_progress: Progress = lambda share: None,
    cancelled: Cancelled = lambda: False,
) -> Throughput | None:
    """Measure training steps and forward passes of a shallow encoder; None once `cancelled` returns True."""
    started = time.perf_counter()
    device = machine.device()
    torch.set_num_threads(machine.threads())
    sizes = np.array(GPU_SIZES if device.type == "cuda" else CPU_SIZES)
    shallow = type(shape).from_dict({**shape.to_dict(), "vocab_size": max(VOCABULARY, (shape.pad_token_id or 0) + 1)})
    shallow.num_hidden_layers = DEPTH
    most = int(sizes.max())  # the whole batch in one pass, and every layer trained on every token
    config = config.replace(batch_size=most, gradient_accumulation_steps=1, max_length=most, padding="dynamic")
    config = config.replace(freeze_layers=0, cls_only=False, compile=False)
    state, busy = random_state(), _busy_seconds()
    engine = None
    try:
        allow_tf32(precision)
        model = engines.classifier(config, notices, untrained(shallow).float())
        engine = engines.build(config, notices, _table(sizes), model, precision, device)
        rounds = list(_rounds(engine, _batches(engine, config, notices, sizes), started, on_progress, cancelled))
        if cancelled():
            return None
        every, own = _busy_seconds() - busy  # per core; the rest of them is of other programs
        others = max(0.0, every - own) / (time.perf_counter() - started)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        bare = engines.classifier(config, notices, untrained(shallow, "meta")).to("meta")
    finally:
        restore_random_state(state)
        engine = model = None  # release its memory for the training
        release_memory()
    seconds = np.array([passes for passes, _ in rounds])
    training, scoring = np.median(seconds, axis=0)
    noise = float(np.median(np.ptp(seconds, axis=0) / np.median(seconds, axis=0)))
    return Throughput(
        training=_fit(count(bare.train()).work(sizes), training),
        scoring=_fit(count(bare.eval(), backward=False).work(sizes), scoring),
        update=float(np.median([update for _, update in rounds])) / parameters,
        spread=float(np.linalg.norm([noise, EXTRAPOLATION, COMPETITION * others / max(1e-3, 1 - others)])),
        measured=time.perf_counter() - started,
    )


def _table(sizes: np.ndarray) -> TokenTable:
    """Return texts of random ids for each size (rows, tokens); every second is one token shorter, to have padding."""
    lengths = np.concatenate([width - np.arange(rows) % 2 for rows, width in sizes])
    ids = np.random.default_rng(0).integers(1, VOCABULARY, int(lengths.sum()), np.int32)
    return TokenTable(ids, np.concatenate([[0], np.cumsum(lengths)]), 0, int(sizes[:, 1].max()))


def _batches(
    engine: engines.Engine, config: TrainConfig, notices: Notices, sizes: np.ndarray
) -> list[list[MicroBatch]]:
    labels = {head: np.zeros(len(engine.table), np.int64) for head in notices.classes}
    dataset = StepDataset(engine.table, labels, config.batch_size, config.padding)
    bounds = np.concatenate([[0], np.cumsum(sizes[:, 0])])
    return [to_device(dataset[np.arange(start, end)], engine.device) for start, end in itertools.pairwise(bounds)]


def _rounds(
    engine: engines.Engine, batches: list[list[MicroBatch]], started: float, on_progress: Progress, cancelled: Cancelled
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield, per round, the seconds of each size's training and scoring passes, (2, sizes), and of an update."""

    def forward(micro_batches: list[MicroBatch]) -> None:
        for micro in micro_batches:
            engine.model(micro["inputs"], micro["attention_mask"])

    for number in range(ROUNDS + 1):  # the first allocates the moments and warms up the kernels
        spent = time.perf_counter() - started
        if number > 1 and spent * (number + 1) / number > BUDGET_SECONDS:
            return
        training = []
        for index, micro_batches in enumerate(batches):
            if cancelled():
                return
            on_progress(min(1.0, (number + index / len(batches)) / (ROUNDS + 1)))
            engine.model.train()
            engine.optimizer.zero_grad(set_to_none=True)
            training.append(seconds_of(lambda micro=micro_batches: engine.accumulate(micro), engine.device))
        with in_eval_mode(engine.model), without_gradients(engine.model, engine.precision, engine.device):
            forward(batches[0])  # casts the weights, which scoring does once
            scoring = [seconds_of(lambda micro=micro: forward(micro), engine.device) for micro in batches]
        engine.optimizer.zero_grad(set_to_none=True)
        whole = seconds_of(lambda: engine.step(batches[0]), engine.device)
        if number:
            yield np.array([training, scoring]), max(0.0, whole - training[0])


def _fit(work: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the seconds per unit of each kind of work, none negative, that fit with the least relative error."""
    # Lawson & Hanson, "Solving Least Squares Problems", 1974.
    relative = work / seconds[:, None]
    scale = np.maximum(relative.max(axis=0), np.finfo(np.float64).tiny)
    return nnls(relative / scale, np.ones(len(seconds)))[0] / scale


def _busy_seconds() -> np.ndarray:
    """Return the mean busy seconds of the cores of this process, and its processor seconds per core."""
    process, every = psutil.Process(), psutil.cpu_times(percpu=True)
    allowed = process.cpu_affinity() if hasattr(process, "cpu_affinity") else list(range(len(every)))
    # In a container with a quota, or that hides cores, the counters are those of other programs too.
    if len(allowed) > machine.cores() or max(allowed) >= len(every):
        return np.zeros(2)
    used = process.cpu_times()
    busy = sum(every[core].user + every[core].system for core in allowed)
    return np.array([busy, used.user + used.system]) / len(allowed)
