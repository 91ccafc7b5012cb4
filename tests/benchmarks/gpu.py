"""Measure what was changed for a T4 against what it was before, and write one Markdown table.

    python -m tests.benchmarks.gpu                            # a GPU, in under 10 minutes
    python -m tests.benchmarks.gpu --device cpu               # does the script work? about a minute
    python -m tests.benchmarks.gpu --folder /content/drive/MyDrive    # checkpoints are written there

Both sides of a statement run in turns; a ratio is that of one round, its median and extremes those of all rounds. Under
1, the change is quicker. A statement that needs two GPUs is left out with fewer. After `minutes` none is started.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import tyro

from ocensa_nb.config import from_recipe
from ocensa_nb.data import synthetic
from ocensa_nb.data.notices import Notices, load_notices
from ocensa_nb.engine import batching, inference, step
from ocensa_nb.engine.out_of_memory import explained, releases_memory
from ocensa_nb.engine.step import Engine
from ocensa_nb.errors import UserError
from ocensa_nb.models import catalogue, tokens
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.runs.checkpoint import CheckpointManager, TrainerState
from ocensa_nb.runtime import distributed, machine, precision, timing
from ocensa_nb.training import expected_time

SCORED_TOKENS = (8192, 16_384)
KEPT_BYTES = 2**28


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Attributes
    ----------
    device
        `cuda` or `cpu`.
    rounds
        Rounds of each statement.
    minutes
        No statement is started after so many.
    folder
        Where checkpoints are written; empty for a temporary folder.
    out
        The file of the table; empty to print it only.
    worker
        Used by the command itself: the folder with the data of a process that measures steps for some seconds.
    """

    device: str = "cuda"
    rounds: int = 5
    minutes: float = 8.0
    folder: str = ""
    out: str = ""
    worker: str = ""

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def worker_steps(self) -> int:
        return 60 if self.on_gpu else 8


@dataclass(frozen=True)
class Row:
    """One line of the table; the numbers of each side are those of the rounds."""

    statement: str
    before: list[float]
    after: list[float]
    unit: str = "s"

    def __str__(self) -> str:
        ratios = [a / b for b, a in zip(self.before, self.after, strict=True)] if all(self.before) else []
        middle = [f"{statistics.median(side):.4g} {self.unit}" for side in (self.before, self.after)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else "–"
        return f"| {self.statement} | {middle[0]} | {middle[1]} | {ratio} |"


class Bench:
    """The data and the engines of the statements."""

    def __init__(self, options: Options, csv: Path) -> None:
        self.options, self.csv, self.device = options, csv, torch.device(options.device)
        model = "beto-random" if options.on_gpu else "tiny"
        self.config = from_recipe("t4", {"model": model, "data": str(csv), "cls_only": True})
        self.notices: Notices = load_notices(self.config)
        self.tokenizer = catalogue.load_tokenizer(model, self.notices.texts)
        self.table = tokens.encode(self.notices.texts, self.tokenizer, self.config.max_length)
        # A CPU computes `tiny` in half precision too, so that the casts are there to be counted.
        self.precision = precision.resolve_precision("auto", self.device) if options.on_gpu else "bf16"

    def engine(self, frozen: int = 0, cached: bool = False, world: distributed.World = distributed.ALONE) -> Engine:
        config = self.config.replace(freeze_layers=frozen, cache_features=cached)
        model = step.classifier(config, self.notices, catalogue.load_encoder(config.model, self.tokenizer))
        return step.build(config, self.notices, self.table, model, self.precision, self.device, world=world)

    def steps(self, made: Engine, multiple: int = 0) -> list[list[batching.MicroBatch]]:
        """Return the batches of an epoch on the CPU, of widths that are multiples of a number."""
        _, sampler = batching.step_loader(made.table, self.notices, self.config, self.device, made.world)
        multiple = multiple or machine.width_multiple(self.device)
        dataset = batching.StepDataset(
            made.table, self.notices.labels, self.config.batch_size, "dynamic", made.world, multiple
        )
        return [dataset[rows] for rows in sampler]

    def seconds(self, work: Callable[[], object]) -> float:
        return timing.seconds_of(work, self.device)

    def compare(self, statement: str, before: Callable[[], object], after: Callable[[], object]) -> Row:
        """Measure both sides in turns, after a round that is not counted."""
        sides: tuple[list[float], list[float]] = ([], [])
        for number in range(self.options.rounds + 1):
            for side, work in list(zip(sides, (before, after), strict=True))[:: 1 if number % 2 else -1]:
                side.append(self.seconds(work))
        return Row(statement, *(side[1:] for side in sides))


def cold_start(bench: Bench) -> Iterator[Row]:
    made = bench.engine(frozen=-2)
    batches = bench.steps(made)
    made.model.train()
    first = bench.seconds(lambda: made.step(batches[0]))
    later = [bench.seconds(lambda: made.step(batches[0])) for _ in range(3)]
    yield Row("8. the first step of a process, and the later ones", [first], [statistics.median(later)])
    with mock.patch.object(expected_time, "BUDGET_SECONDS", np.inf):
        loader, sampler = batching.step_loader(made.table, bench.notices, bench.config, bench.device)
        found = expected_time.estimate_time(made, loader.dataset, sampler, bench.notices.split, bench.config)

    def epoch() -> None:
        made.model.train()
        for micro_batches in loader:
            made.step(micro_batches)
        inference.logits(made.model, made.table, bench.notices.split["val"], bench.precision)

    taken = [bench.seconds(epoch) for _ in range(2)]
    yield Row(f"8. an epoch as expected (± {found.spread:.0%}), and as it was", [found.epoch] * 2, taken)


def casts(bench: Bench) -> Iterator[Row]:
    made = bench.engine(frozen=-2)
    order = np.argsort(bench.table.lengths, kind="stable")
    batches = [order[start : start + 64] for start in range(0, len(order), 64)]
    multiple = machine.width_multiple(bench.device)

    def passing(
        forward: Callable[[torch.Tensor, torch.Tensor], object],
        context: Callable[[], contextlib.AbstractContextManager],
    ) -> Callable[[], None]:
        def work() -> None:
            with in_eval_mode(made.model), context():
                for rows in batches:
                    forward(*machine.to_device(list(bench.table.batch(rows, multiple=multiple)), bench.device))

        return work

    @contextlib.contextmanager
    def before() -> Iterator[None]:
        with torch.inference_mode(), precision.autocast(bench.precision, bench.device):
            yield

    def after() -> contextlib.AbstractContextManager:
        return precision.without_gradients(made.model, bench.precision, bench.device)

    for what, forward in (
        ("scoring", made.model),
        ("frozen layers", made.model.frozen_forward(made.model.frozen)),
    ):
        yield bench.compare(
            f"4. {what}: weights cast at every batch, or once", passing(forward, before), passing(forward, after)
        )


def token_batches(bench: Bench) -> Iterator[Row]:
    made = bench.engine(frozen=-2)
    rows = np.arange(len(bench.table))

    def of_64_rows(widths: np.ndarray, device: torch.device) -> Iterator[np.ndarray]:
        order = np.argsort(widths, kind="stable")
        yield from (order[start : start + 64] for start in range(0, len(order), 64))

    def score() -> None:
        inference.logits(made.model, bench.table, rows, bench.precision)

    def before() -> None:
        with mock.patch.object(inference, "scoring_batches", of_64_rows):
            score()

    for budget in SCORED_TOKENS:
        with mock.patch.dict(tokens.SCORING_TOKENS, {bench.device.type: budget}):
            yield bench.compare(f"5. scoring by 64 rows, or by {budget:,} tokens", before, score)


def checkpoints(bench: Bench) -> Iterator[Row]:
    made = bench.engine()
    batches = bench.steps(made)
    parts = {"engine": made, "at": TrainerState()}
    with tempfile.TemporaryDirectory(dir=bench.options.folder or None) as folder:
        with CheckpointManager(Path(folder) / "last", 5, parts) as manager:

            def epochs(save: bool) -> None:
                for _ in range(2):
                    for micro_batches in batches:
                        made.step(micro_batches)
                    if save:
                        manager.save()
                manager._finish()  # or the other side would write it

            made.model.train()
            row = bench.compare("", lambda: epochs(True), lambda: epochs(False))
            size = f"{manager.bytes / 2**20:,.0f} MiB, {len(batches)} steps an epoch"
        yield Row(f"6. two epochs with a checkpoint after each ({size}), or if due", row.before, row.after)


def widths(bench: Bench) -> Iterator[Row]:
    made = bench.engine(frozen=-2)
    sides = [bench.steps(made, multiple) for multiple in (1, 8)]

    def training(batches: list[list[batching.MicroBatch]]) -> Callable[[], None]:
        def work() -> None:
            made.model.train()
            for micro_batches in batches:
                made.step(micro_batches)

        return work

    yield bench.compare("9. an epoch of steps with widths as they come, or multiples of 8", *map(training, sides))


def kept_errors(bench: Bench) -> Iterator[Row]:
    def train(what: contextlib.AbstractContextManager) -> None:
        weights = torch.ones(KEPT_BYTES // 4, device=bench.device)
        with what:
            raise torch.OutOfMemoryError(f"CUDA out of memory beside {weights.nbytes} bytes")

    def kept(work: Callable[..., None], *arguments: object) -> float:
        timing.release_memory()
        before = machine.memory_taken(bench.device)
        try:
            work(*arguments)
        except (UserError, RuntimeError) as error:
            timing.release_memory()
            held = machine.memory_taken(bench.device) - before
            del error
            return held / 2**20
        raise AssertionError

    sides = [
        [kept(train, contextlib.nullcontext()), kept(releases_memory(train), explained("la prueba"))]
        for _ in range(bench.options.rounds)
    ]
    yield Row("10. memory that a kept error of a frame with 256 MiB holds", *map(list, zip(*sides, strict=True)), "MiB")


def pinned(bench: Bench) -> Iterator[Row]:
    made = bench.engine(frozen=-2, cached=True)
    loader, _ = batching.step_loader(made.table, bench.notices, bench.config, bench.device)

    def after() -> None:
        made.model.train()
        for micro_batches in loader:
            made.step(micro_batches)

    def before() -> None:
        with mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor):
            after()

    yield bench.compare("11. an epoch on frozen features: copies from pageable, or from pinned memory", before, after)


def several_gpus(bench: Bench) -> Iterator[Row]:
    """Measure two cases of a grid at once, and one training in two processes; on a CPU only that the script works."""
    gpus = machine.visible_gpus() if bench.options.on_gpu else ["", ""]
    if len(gpus) < 2:
        return
    rounds = range(2 if bench.options.on_gpu else 1)
    pairs = [[_workers(bench, [gpus[0]] * 2), _workers(bench, gpus[:2])] for _ in rounds]
    yield Row("7. a step of two cases at once: on one GPU, or on two", *map(list, zip(*pairs, strict=True)))
    both = [",".join(gpus[:2])]
    pairs = [[_workers(bench, gpus[:1]), _workers(bench, both, together=2)] for _ in rounds]
    yield Row("7. a step of one training: one process, or two that sum gradients", *map(list, zip(*pairs, strict=True)))


STATEMENTS = (cold_start, casts, token_batches, checkpoints, widths, kept_errors, pinned, several_gpus)


def _workers(bench: Bench, gpus: list[str], together: int = 1) -> float:
    """Start a process for each value of `CUDA_VISIBLE_DEVICES` at the same time; return the mean seconds of a step."""
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={together}"] if together > 1 else []
    words = ["--device", bench.options.device, "--worker", str(bench.csv)]
    running = [
        subprocess.Popen(
            [sys.executable, *launcher, "-m", "tests.benchmarks.gpu", *words],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for gpu in gpus
    ]
    outputs = [process.communicate()[0] for process in running]
    return statistics.fmean(json.loads(output.splitlines()[-1])["seconds"] for output in outputs)


def work_alone(options: Options) -> None:
    """Print the median seconds of a step of the whole encoder, measured for some seconds."""
    with distributed.join(os.environ) as world:
        bench = Bench(options, Path(options.worker))
        made = bench.engine(world=world)
        batches = bench.steps(made)
        made.model.train()
        taken = [bench.seconds(lambda i=i: made.step(batches[i % len(batches)])) for i in range(options.worker_steps)]
        if world.is_first:
            print(json.dumps({"seconds": statistics.median(taken[len(taken) // 4 :])}), flush=True)


def main(options: Options) -> None:
    """Measure every statement and print the table."""
    if options.worker:
        return work_alone(options)
    started = time.perf_counter()
    device = torch.cuda.get_device_name() if options.on_gpu else "CPU"
    rows: list[Row] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "avisos.csv"
        synthetic.write_csv(synthetic.generate(4000 if options.on_gpu else 150, 5), csv)
        bench = Bench(options, csv)
        for statement in STATEMENTS:
            if time.perf_counter() - started > 60 * options.minutes:
                left_out.append(statement.__name__)
                continue
            for row in statement(bench):
                rows.append(row)
                print(row, flush=True)
            timing.release_memory()
    rows.sort(key=lambda row: int(row.statement.split(".")[0]))
    lines = [f"{device}, torch {torch.__version__}", ""]
    lines += ["| statement | before | after | ratio (min to max) |", "|---|---|---|---|", *map(str, rows)]
    lines += ["", f"In {time.perf_counter() - started:.0f} s, {options.rounds} rounds."]
    lines += [f"Out of time: {', '.join(left_out)}."] if left_out else []
    print("\n".join(["", *lines]))
    if options.out:
        Path(options.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
