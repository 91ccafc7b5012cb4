"""The seconds that the machine's peaks allow a training step, beside the seconds it takes.

Per phase: FLOPs over the measured peak of matrix products, plus bytes over the measured memory bandwidth. Counted are
the FLOPs of matrix products and the bytes of weights, gradients, moments and inputs; activations and the operators on
them are not, so a step takes longer. The bandwidth is that of arrays larger than the caches, and on a shared machine it
varies between processes: a phase whose data is still in a cache may exceed it, and its share is then over 100%.

Source: Williams, Waterman & Patterson, "Roofline", CACM 52(4), 2009. There compute and traffic overlap; here they add
up, because a step's products and its updates follow each other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ocensa_nb.engine.batching import MicroBatch
from ocensa_nb.engine.frozen_features import FeatureTable
from ocensa_nb.engine.step import Engine
from ocensa_nb.runtime import timing
from ocensa_nb.runtime.device import synchronize
from ocensa_nb.runtime.precision import autocast

LOADING, FORWARD, BACKWARD, CLIPPING, UPDATE = PHASES = ("loading", "forward", "backward", "clipping", "update")
HALF = ("bf16", "fp16")
CAST = 2 + 4  # bytes per value: fp32 to half precision or back
NORM_AND_SCALING = 4 + 8  # bytes per gradient: read for the norm, read and written to scale it
ADAMW = 16 + 12  # bytes per parameter: gradient, weight and two moments read; weight and moments written


@dataclass(frozen=True)
class Work:
    """Work of one phase of a step: FLOPs of matrix products, and bytes to or from memory."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of a machine: FLOP/s of matrix products in one precision, and bytes per second."""

    flops: float
    bandwidth: float

    def seconds(self, work: Work) -> float:
        """Return the seconds that the peaks allow for some work."""
        return work.flops / self.flops + work.bytes / self.bandwidth


def peaks(engine: Engine) -> Peaks:
    """Return the measured peaks of the engine's device in its precision."""
    return Peaks(timing.peak_flops(engine.precision, engine.device), timing.memory_bandwidth(engine.device))


def work(engine: Engine, micro_batches: Sequence[MicroBatch]) -> dict[str, Work]:
    """Return the work of each phase of a step; it makes the step, so weights and moments change.

    Parameters
    ----------
    engine
        With AdamW.
    micro_batches
        All micro-batches of the step, on the engine's device.

    Returns
    -------
    dict
        The work of each of `PHASES`.
    """
    forward = timing.flops_of(lambda: [_forward(engine, micro) for micro in micro_batches])
    whole = timing.flops_of(lambda: engine.step(list(micro_batches)))
    found = traffic(engine, micro_batches)
    found[FORWARD] += Work(flops=forward)
    found[BACKWARD] += Work(flops=whole - forward)
    return found


def traffic(engine: Engine, micro_batches: Sequence[MicroBatch]) -> dict[str, Work]:
    """Return the bytes that each of `PHASES` of a step must move.

    In half precision autocast converts the weights of linear layers once per micro-batch, and the gradients of the
    trained ones back.
    """
    trained = sum(p.numel() for p in engine.model.parameters() if p.requires_grad)
    cached = isinstance(engine.table, FeatureTable)  # the frozen layers do not run
    linear = [p for m in engine.model.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
    casts = CAST * len(micro_batches) * (engine.precision in HALF)
    used = sum(p.numel() for p in linear if p.requires_grad or not cached)
    returned = sum(p.numel() for p in linear if p.requires_grad)
    inputs = sum(micro["inputs"].nbytes + micro["attention_mask"].nbytes for micro in micro_batches)
    return {
        LOADING: Work(bytes=2 * inputs),
        FORWARD: Work(bytes=casts * used),
        BACKWARD: Work(bytes=casts * returned),
        CLIPPING: Work(bytes=NORM_AND_SCALING * trained),
        UPDATE: Work(bytes=ADAMW * trained),
    }


def measure(engine: Engine, load: Callable[[], list[MicroBatch]]) -> dict[str, float]:
    """Return the seconds of each of `PHASES` of one step.

    The casts belong to the forward and the backward pass; clipping includes the release of the gradients.

    Parameters
    ----------
    engine
        Ready for a step. Its functions are wrapped during the measurement.
    load
        Returns the micro-batches of the step.
    """
    clock = _Clock(engine)
    started = clock.now()
    micro_batches = load()
    loaded = clock.now()
    before, after = engine.optimizer.register_step_pre_hook, engine.optimizer.register_step_post_hook
    hooks = [before(lambda *_: clock.start(UPDATE)), after(lambda *_: clock.stop(UPDATE))]
    forward, passes = engine.forward, engine.micro_batches
    engine.forward = clock.wrap(FORWARD, forward)
    passes.run = clock.wrap(BACKWARD, passes.run)
    try:
        engine.step(micro_batches)
        whole = clock.now() - loaded
    finally:
        engine.forward = forward
        del passes.run  # the method of the class is visible again
        for hook in hooks:
            hook.remove()
    spent = clock.seconds
    return {
        LOADING: loaded - started,
        FORWARD: spent[FORWARD],
        BACKWARD: spent[BACKWARD] - spent[FORWARD],  # the passes are both
        CLIPPING: whole - spent[BACKWARD] - spent[UPDATE],
        UPDATE: spent[UPDATE],
    }


class _Clock:
    """Sum the seconds of named parts of a step on the engine's device."""

    def __init__(self, engine: Engine) -> None:
        self.device = engine.device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()

    def start(self, name: str) -> None:
        self.seconds[name] -= self.now()

    def stop(self, name: str) -> None:
        self.seconds[name] += self.now()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            self.start(name)
            try:
                return function(*args)
            finally:
                self.stop(name)

        return timed


def _forward(engine: Engine, micro: MicroBatch) -> None:
    with autocast(engine.precision, engine.device), engine.attention:
        engine.forward(micro["inputs"], micro["attention_mask"])
