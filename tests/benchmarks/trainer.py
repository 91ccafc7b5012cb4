"""Compare our training loop with a well-configured `transformers.Trainer`; see README.md in this folder.

python tests/benchmarks/trainer.py epoch --model beto-random --freeze 10 --steps 30 --repeats 3
python tests/benchmarks/trainer.py run   --model beto-random --freeze 10 --epochs 8 --rows 800
python tests/benchmarks/trainer.py f1    --model minilm --freeze 4 --epochs 4 --seeds 3
"""

import argparse
import importlib.metadata
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import inference
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import EpochSampler, step_loader
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.optimizer import LinearSchedule, build_optimizer
from ocensa_nb.evaluation.metrics import flat_metrics, predicted_classes
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.tokens import TokenTable, encode
from ocensa_nb.runtime import machine
from ocensa_nb.runtime.machine import synchronize
from ocensa_nb.runtime.precision import allow_tf32, resolve_precision
from ocensa_nb.runtime.process import seed_everything
from ocensa_nb.training import train

WARM_UP = 3  # steps before the timing of `epoch` starts
Found = dict[str, list[float]]  # measured values, one per repeat or seed


@dataclass(frozen=True)
class Task:
    """Inputs of both sides; `config.precision` is already resolved."""

    config: TrainConfig
    notices: Notices
    tokenizer: Any
    table: TokenTable
    device: torch.device
    batches: list[np.ndarray] | None = None  # rows of every step; None: each side samples its own

    def model(self) -> MultiHeadClassifier:
        """Return a new model, with the same weights for the same seed."""
        seed_everything(self.config.seed)
        encoder = load_encoder(self.config.model, self.tokenizer, self.config.seed)
        return engines.classifier(self.config, self.notices, encoder).to(self.device)

    def only(self, rows: np.ndarray) -> "Task":
        """Return the task restricted to these rows, all for training."""
        texts = [self.notices.texts[row] for row in rows]
        labels = {head: y[rows] for head, y in self.notices.labels.items()}
        notices = replace(self.notices, texts=texts, labels=labels, split={"train": np.arange(len(rows))})
        return replace(self, notices=notices, table=encode(texts, self.tokenizer, self.config.max_length))


class Clock(TrainerCallback):
    """Seconds from the end of step `skip` to the end of training; with 0, from the creation of the clock."""

    def __init__(self, device: torch.device, skip: int = 0) -> None:
        self.device, self.skip, self.steps, self.seconds = device, skip, 0, 0.0
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps += 1
        if self.steps == self.skip:
            synchronize(self.device)
            self.started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.started


def ours(task: Task, model: MultiHeadClassifier, clock: Clock) -> TokenTable | FrozenFeatures:
    """Train with this package's engine; return the table the model is scored on."""
    config = task.config
    engine = engines.build(config, task.notices, task.table, model, config.precision, task.device)
    loader, sampler = step_loader(engine.table, task.notices, config, task.device)
    if task.batches:
        loader = DataLoader(loader.dataset, sampler=task.batches, batch_size=None, pin_memory=loader.pin_memory)
    schedule = LinearSchedule(engine.optimizer, config.warmup_ratio, config.epochs * len(loader))
    model.train()
    for epoch_number in range(1, config.epochs + 1):
        sampler.epoch = epoch_number
        for micro_batches in loader:
            engine.step(micro_batches)
            schedule.move(1)
            clock.on_step_end()
    clock.on_train_end()
    return engine.table


class Peer(Trainer):
    """The Trainer with our multi-head loss, and a sequential sampler if the batches are given."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        logits = model(inputs["inputs"], inputs["attention_mask"])
        return self.objective(logits, inputs["labels"], self.objective.normalisers([inputs])).sum()

    def _get_train_sampler(self, *given: Any) -> Any:
        return SequentialSampler(self.train_dataset) if self.in_order else super()._get_train_sampler(*given)


def theirs(task: Task, model: MultiHeadClassifier, clock: Clock) -> TokenTable:
    """Train with `transformers.Trainer`; return the table the model is scored on."""
    config, table = task.config, task.table
    rows = np.concatenate(task.batches) if task.batches else task.notices.split["train"]
    dataset = [{"input_ids": table.ids[table.offsets[row] : table.offsets[row + 1]], "row": row} for row in rows]

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = np.array([feature["row"] for feature in features])
        ids, mask = table.batch(batch)  # one gather from encoded ids: faster than tokenizer.pad
        labels = {head: torch.from_numpy(y[batch]) for head, y in task.notices.labels.items()}
        return {"inputs": ids, "attention_mask": mask, "labels": labels}

    optimizer = build_optimizer(model, config)
    steps = config.epochs * -(-len(rows) // config.batch_size)
    warm_up = int(config.warmup_ratio * steps)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warm_up, steps)
    on_gpu = task.device.type == "cuda"
    where = {"use_cpu": not on_gpu, "dataloader_pin_memory": on_gpu, "accelerator_config": {"non_blocking": on_gpu}}
    half = {name: config.precision == name for name in ("bf16", "fp16")}
    new = hasattr(TrainingArguments, "train_sampling_strategy")  # transformers 5
    grouped = {"train_sampling_strategy": "group_by_length"} if new else {"group_by_length": True}
    silent = {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_size,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            remove_unused_columns=False,
            logging_nan_inf_filter=False,  # it would synchronise with the GPU at every step
            **(half | where | grouped | silent),
        )
        given = {"train_dataset": dataset, "data_collator": collate, "optimizers": (optimizer, schedule)}
        trainer = Peer(model=model, args=arguments, callbacks=[clock], **given)
    trainer.remove_callback(PrinterCallback)
    plain = config.replace(cache_features=False, cls_only=False)
    engine = engines.build(plain, task.notices, table, model, config.precision, task.device, fast=engines.Fast.NONE)
    trainer.objective, trainer.in_order = engine.objective, task.batches is not None
    # The Trainer calls `model.train()` at every step. Ours checks every parameter, to keep frozen layers in eval mode
    # (2 ms at BETO's size), and our loop calls it once per epoch: do not charge the Trainer for it.
    model.train()
    model.train = lambda mode=True: model
    trainer.train()
    del model.train
    return table


SIDES = {"ours": ours, "Trainer": theirs}


def race(task: Task, repeats: int, skip: int = 0) -> Found:
    """Return the seconds of each side per repeat, in alternating order, so that neither has an advantage."""
    seconds: Found = {name: [] for name in SIDES}
    for repeat in range(repeats):
        for name in list(SIDES)[:: -1 if repeat % 2 else 1]:
            model = task.model()
            clock = Clock(task.device, skip)
            SIDES[name](task, model, clock)
            seconds[name].append(clock.seconds)
    return seconds


def times_as_fast(seconds: Found) -> Found:
    """Return the ratios of the seconds of both sides, per repeat."""
    return {"times as fast": [b / a for a, b in zip(*seconds.values(), strict=True)]}


def epoch(task: Task, options: argparse.Namespace) -> Found:
    """Rows per second on the same batches on both sides, after our features are cached."""
    # Sampled from an epoch of all data: grouping a few rows by length would give the Trainer longer batches than in
    # real training, the longest of them in its warm-up.
    size = task.config.batch_size
    sampler = EpochSampler(task.notices.split["train"], task.table.lengths, size, task.config.seed)
    whole = [rows for rows in sampler if len(rows) == size][: WARM_UP + options.steps]
    batches = list(np.arange(len(whole) * size).reshape(-1, size))
    task = replace(task.only(np.concatenate(whole)), config=task.config.replace(epochs=1), batches=batches)
    race(task, 1)  # one-time cost per process: kernels for every length
    seconds = race(task, options.repeats, WARM_UP)
    timed = (len(whole) - WARM_UP) * size
    return {f"{name}, rows/s": [timed / s for s in values] for name, values in seconds.items()} | times_as_fast(seconds)


def run(task: Task, options: argparse.Namespace) -> Found:
    """Seconds of a complete training, including the computation of our cached features."""
    rows = np.random.default_rng(task.config.seed).permutation(task.notices.split["train"])
    first = replace(task.only(rows[: 20 * task.config.batch_size]), config=task.config.replace(epochs=1))
    race(first, 1)  # one-time cost per process, as in `epoch`
    seconds = race(task.only(rows[: options.rows or None]), options.repeats)
    return {f"{name}, seconds": values for name, values in seconds.items()} | times_as_fast(seconds)


def f1(task: Task, options: argparse.Namespace) -> Found:
    """Weighted F1 on the test rows after the last epoch; same split, different training seeds."""
    rows = task.notices.split["test"]
    truth = {head: y[rows] for head, y in task.notices.labels.items()}
    found: Found = {f"{head}_f1, {name}": [] for head in truth for name in (*SIDES, "difference")}
    for seed in range(task.config.seed, task.config.seed + options.seeds):
        seeded, scores = replace(task, config=task.config.replace(seed=seed)), {}
        for name, side in SIDES.items():
            model = seeded.model()
            table = side(seeded, model, Clock(task.device))
            logits = inference.logits(model, table, rows, task.config.precision)
            scores[name] = flat_metrics(truth, predicted_classes(logits))
        scores["difference"] = {key: value - scores["Trainer"][key] for key, value in scores["ours"].items()}
        for key, values in found.items():
            score, name = key.split(", ")
            values.append(scores[name][score])
    return found


MODES = {epoch: {"steps": 30, "repeats": 3}, run: {"epochs": 8, "rows": 0, "repeats": 1}, f1: {"epochs": 4, "seeds": 3}}
COMMON = {"model": "minilm", "freeze": 4, "data": "", "batch_size": 16, "precision": "auto", "json": ""}
HELP = {"data": "empty = the shipped data", "rows": "to train on; 0 = all", "json": "file for the values"}


def main() -> None:
    """Run the benchmark given on the command line and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode, numbers in MODES.items():
        sub = modes.add_parser(mode.__name__, help=mode.__doc__, description=mode.__doc__)
        sub.set_defaults(measure=mode)
        for name, default in (COMMON | numbers).items():
            shown = f"{HELP.get(name, '')} (default: {default!r})"
            sub.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=shown)
    options = parser.parse_args()

    transformers.logging.set_verbosity_error()
    device = machine.device()
    torch.set_num_threads(machine.threads())
    precision = resolve_precision(options.precision, device)
    allow_tf32(precision)
    given = {name: value for name, value in vars(options).items() if name in ("model", "data", "batch_size", "epochs")}
    config = from_recipe("cpu", {**given, "freeze_layers": options.freeze, "precision": precision})
    notices = train.load_notices(config)
    tokenizer = load_tokenizer(config.model, notices.texts)
    table = encode(notices.texts, tokenizer, config.max_length)
    found = options.measure(Task(config, notices, tokenizer, table, device), options)

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")}
    print(f"{options.mode}: {config.model}, {precision}, {torch.get_num_threads()} threads, {versions}")
    for name, values in found.items():
        print(f"{name:24}{np.median(values):10.4g} median{np.mean(values):10.4g} mean", end="")
        print(f"   {min(values):.4g} to {max(values):.4g}")
    if options.json:
        asked = {name: value for name, value in vars(options).items() if name != "measure"}
        metadata = {"options": asked, "config": config.to_dict(), "versions": versions}
        metadata |= {"threads": torch.get_num_threads(), "hardware": machine.hardware().to_dict()}
        Path(options.json).write_text(json.dumps({"found": found, **metadata}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
