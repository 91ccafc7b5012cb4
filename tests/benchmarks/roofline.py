"""Compare the seconds of each phase of a training step with those that the machine's peaks allow.

    python -m tests.benchmarks.roofline --model beto-random
    python -m tests.benchmarks.roofline --model beto-random --rows feature_cache --repeats 9

One line per phase of each row of the ladder: GFLOP and MB of a step, measured milliseconds (median and spread of the
repeats), milliseconds that the peaks allow, and their share. See `ocensa_nb/benchmark/compare.py` for what is counted.
"""

from dataclasses import dataclass

import numpy as np
import torch
import tyro

from ocensa_nb.benchmark.compare import Bench, Variant, prepare
from ocensa_nb.config import TrainConfig
from ocensa_nb.runtime import timing
from tools import roofline
from tools.roofline import PHASES, Work


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Attributes
    ----------
    model
        Encoder.
    rows
        Rows of the ladder; none for all.
    repeats
        Measured steps of each batch.
    """

    model: str = "minilm"
    rows: tuple[str, ...] = ()
    repeats: int = 5


def profile(bench: Bench, variant: Variant, repeats: int) -> tuple[dict[str, Work], np.ndarray, float]:
    """Return the mean work of each phase over the batches, its seconds, (repeats, phases), and the peak FLOP/s."""
    engine, batches, rounds = bench.build(variant, bench.rows_of(0))
    works = [roofline.work(engine, batches[rows]) for rows in rounds]
    means = {
        phase: Work(*np.mean([(work[phase].flops, work[phase].bytes) for work in works], axis=0)) for phase in PHASES
    }
    seconds = [
        [list(roofline.measure(engine, lambda rows=rows: batches[rows]).values()) for rows in rounds]
        for _ in range(repeats + 1)
    ]
    return means, np.mean(seconds[1:], axis=1), timing.peak_flops(engine.precision, engine.device)


def main(options: Options) -> None:
    """Measure the chosen rows and print a table."""
    bench, _, stacked, _ = prepare(TrainConfig(model=options.model))
    bandwidth = timing.memory_bandwidth(bench.device)
    print(f"{options.model}, {torch.get_num_threads()} threads, {bandwidth / 1e9:.1f} GB/s")
    print(f"{'row':18}{'phase':10}{'GFLOP':>9}{'MB':>9}{'ms':>10}{'min':>9}{'max':>9}{'roofline':>10}{'share':>7}")
    for variant in stacked:
        name = variant.technique.name
        if options.rows and name not in options.rows:
            continue
        means, seconds, peak = profile(bench, variant, options.repeats)
        total = ("step", sum(means.values(), Work()), seconds.sum(axis=1))
        for phase, work, spent in (*zip(PHASES, means.values(), seconds.T, strict=True), total):
            taken, allowed = np.median(spent), work.flops / peak + work.bytes / bandwidth
            print(
                f"{name:18}{phase:10}{work.flops / 1e9:9.2f}{work.bytes / 1e6:9.1f}{1e3 * taken:10.2f}"
                f"{1e3 * spent.min():9.2f}{1e3 * spent.max():9.2f}{1e3 * allowed:10.2f}{allowed / taken:7.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
