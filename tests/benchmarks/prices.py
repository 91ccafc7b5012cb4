"""Compare the predicted time of an epoch with the measured one.

    python -m tests.benchmarks.prices --model minilm

For each precision and config: the time of an epoch predicted from the counted FLOPs and the measured throughput, the
time measured on some steps of every length with the real encoder, and their ratio.
"""

import numpy as np
import torch
import tyro

from ocensa_nb.benchmark.forecast import Forecast
from ocensa_nb.config import TrainConfig, baseline_of, from_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import step
from ocensa_nb.engine.batching import step_loader
from ocensa_nb.models import catalogue
from ocensa_nb.models.tokens import TokenTable, encode
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.timing import seconds_of
from ocensa_nb.training import train


def settings(config: TrainConfig, depth: int) -> dict[str, TrainConfig]:
    """Return the configs to compare, fastest first."""
    return {
        "all frozen but two, cached": config.replace(freeze_layers=depth - 2),
        "the same, not cached": config.replace(freeze_layers=depth - 2, cache_features=False),
        "nothing frozen, 16": config.replace(freeze_layers=0, batch_size=16),
        "nothing frozen, 8 × 4": config.replace(freeze_layers=0, batch_size=8, gradient_accumulation_steps=4),
        "baseline": baseline_of(config),
    }


def epoch_seconds(made: step.Engine, config: TrainConfig, notices: Notices, table: TokenTable, steps: int) -> float:
    """Estimate the seconds of an epoch from `steps` of its batches, sampled evenly by size."""
    made.model.train()
    loader, sampler = step_loader(made.table, notices, config, made.device)
    by_size = sorted(sampler, key=lambda rows: len(rows) * table.lengths[rows].max())
    some = [by_size[round(q * (len(by_size) - 1))] for q in np.linspace(0.04, 0.96, steps)]
    for _ in range(2):  # the first pass creates the kernels for new shapes
        took = [seconds_of(lambda rows=rows: made.step(loader.dataset[rows]), made.device) for rows in some]
    return len(by_size) * float(np.mean(took))


def main(model: str = "minilm", precisions: tuple[str, ...] = ("bf16", "fp32"), steps: int = 12) -> None:
    """Measure `steps` steps of every config."""
    device = machine.device()
    torch.set_num_threads(machine.threads())
    config = from_recipe("cpu", {"model": model})
    notices = train.load_notices(config)
    tokenizer = catalogue.load_tokenizer(model, notices.texts)
    depth = catalogue.architecture(model, tokenizer).num_hidden_layers
    forecast = Forecast(notices)
    for precision in precisions:
        for title, tried in settings(config.replace(precision=precision), depth).items():
            tried = tried.replace(precision=precision)  # the baseline has its own
            forecast.measure(tried)
            table = encode(notices.texts, tokenizer, tried.max_length)
            classifier = step.classifier(tried, notices, catalogue.load_encoder(model, tokenizer))
            made = step.build(tried, notices, table, classifier, precision, device)
            predicted = forecast.epoch(tried, table.lengths[notices.split["train"]])
            took = epoch_seconds(made, tried, notices, table, steps)
            print(
                f"  {title:<28} predicted {predicted:8.1f} s, takes {took:8.1f} s: {predicted / took:.2f}", flush=True
            )
        rates = forecast._measured[model, precision]
        print(f"{model}, {precision}: ± {rates.spread:.0%}, measured in {rates.measured:.1f} s", rates, flush=True)


if __name__ == "__main__":
    tyro.cli(main)
