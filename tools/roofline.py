"""Measure the seconds of each phase of a training step, and the FLOPs and bytes that it needs.

`python -m tests.benchmarks.roofline` prints them beside the seconds that the machine's peaks allow.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ocensa_nb.benchmark.compare import traffic
from ocensa_nb.engine.batching import MicroBatch
from ocensa_nb.engine.step import Engine
from ocensa_nb.runtime import timing
from ocensa_nb.runtime.machine import synchronize
from ocensa_nb.runtime.precision import autocast

LOADING, FORWARD, BACKWARD, CLIPPING, UPDATE = PHASES = ("loading", "forward", "backward", "clipping", "update")


@dataclass(frozen=True)
class Work:
    """Work of one phase of a step: FLOPs of matrix products, and bytes to or from memory."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def work(engine: Engine, micro_batches: Sequence[MicroBatch]) -> dict[str, Work]:
    """Return the work of each phase of a step; it makes the step, so weights and moments change.

    Parameters
    ----------
    engine
        With AdamW.
    micro_batches
        All micro-batches of the step, on the engine's device.
    """
    forward = timing.flops_of(lambda: [_forward(engine, micro) for micro in micro_batches])
    whole = timing.flops_of(lambda: engine.step(list(micro_batches)))
    flops = {FORWARD: forward, BACKWARD: whole - forward}
    return {phase: Work(flops.get(phase, 0), moved) for phase, moved in traffic(engine, micro_batches).items()}


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
    forward = engine.forward
    engine.forward = clock.wrap(FORWARD, forward)
    engine.accumulate = clock.wrap(BACKWARD, engine.accumulate)
    try:
        engine.step(micro_batches)
        whole = clock.now() - loaded
    finally:
        engine.forward = forward
        del engine.accumulate  # the method of the class is visible again
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
    with autocast(engine.precision, engine.device):
        engine.forward(micro["inputs"], micro["attention_mask"])
