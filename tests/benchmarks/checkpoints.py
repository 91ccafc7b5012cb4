"""Measure the overhead of checkpoints: blocks of the same steps, with and without one written in the background.

    python -m tests.benchmarks.checkpoints --model minilm

Prints the size of a checkpoint, the time lost per checkpoint, and its share of the default interval and of an epoch.
Rounds are interleaved; the median, minimum and maximum of their differences are reported.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.engine import batching, step
from ocensa_nb.engine.optimizer import LinearSchedule
from ocensa_nb.models import catalogue, tokens
from ocensa_nb.runs.checkpoint import CheckpointManager, TrainerState
from ocensa_nb.runtime import machine, precision
from ocensa_nb.training import train
from ocensa_nb.training.early_stopping import EarlyStopping


def main(model: str = "minilm", freeze: int = 4, recipe: str = "cpu", seconds: float = 8.0, rounds: int = 7) -> None:
    """Measure `rounds` pairs of blocks of about `seconds` each."""
    config = from_recipe(recipe, {"model": model, "freeze_layers": freeze})
    notices = train.load_notices(config)
    tokenizer = catalogue.load_tokenizer(model, notices.texts)
    table = tokens.encode(notices.texts, tokenizer, config.max_length)
    device = machine.device()
    classifier = step.classifier(config, notices, catalogue.load_encoder(model, tokenizer))
    resolved = precision.resolve_precision(config.precision, device)
    made = step.build(config, notices, table, classifier, resolved, device)
    loader, sampler = batching.step_loader(made.table, notices, config, device)
    batches = list(loader)
    stopping = EarlyStopping(config)
    stopping.update(1, {config.monitor: 0.5}, classifier)  # a checkpoint also contains the best weights
    parts = {
        "engine": made,
        "schedule": LinearSchedule(made.optimizer, 0.1, 100),
        "stopping": stopping,
        "at": TrainerState(),
    }

    started = time.perf_counter()
    for batch in batches[:10]:
        made.step(batch)
    a_step = (time.perf_counter() - started) / 10
    block = batches[: max(2, min(len(batches), round(seconds / a_step)))]

    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        CheckpointManager(Path(folder) / "last", 5, parts) as checkpoints,
    ):
        checkpoints.save()

        def run(kept: bool) -> float:
            checkpoints._finish()
            since = time.perf_counter()
            if kept:
                checkpoints.save()
            for batch in block:
                made.step(batch)
            return time.perf_counter() - since

        pairs = [(run(True), run(False)) if i % 2 else (run(False), run(True))[::-1] for i in range(rounds)]
    lost = np.array([kept - plain for kept, plain in pairs])
    epoch = np.median([plain for _, plain in pairs]) / len(block) * len(sampler)
    print(
        f"{model}, freeze {freeze}, {resolved}: a checkpoint of {checkpoints.bytes / 2**20:.0f} MiB costs "
        f"{np.median(lost):.3f} s "
        f"({lost.min():.3f} to {lost.max():.3f}, {rounds} rounds of {len(block)} steps): "
        f"{np.median(lost) / (60 * TrainConfig().checkpoint_minutes):.2%} of the default interval, "
        f"{np.median(lost) / epoch:.2%} of an epoch of {epoch:.0f} s"
    )


if __name__ == "__main__":
    tyro.cli(main)
