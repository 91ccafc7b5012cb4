"""The training loop, top to bottom.

    from ocensa_nb import config, train
    run = train.fit(config.from_recipe("cpu", {"data": "avisos.csv"}))

An optimiser step draws its whole effective batch, so that the loss of its micro-batches adds up to the loss of the
batch, class weights, label smoothing and a ragged last batch included (`objective.py`).
"""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ocensa_nb import environment, scoring, trunk
from ocensa_nb.config import TrainConfig
from ocensa_nb.encoders import check_length, load_encoder, load_tokenizer
from ocensa_nb.feeding import MicroBatch, step_loader, to_device
from ocensa_nb.journal import Journal
from ocensa_nb.model import MultiHeadClassifier, count_parameters, describe_parameters, freeze
from ocensa_nb.notices import Notices, prepare, read
from ocensa_nb.objective import Objective
from ocensa_nb.optim import EarlyStopping, build_optimizer, linear_schedule
from ocensa_nb.precision import allow_tf32, autocast, resolve_precision
from ocensa_nb.runs import CONFIG, METRICS, Run
from ocensa_nb.tokens import encode


def load_notices(config: TrainConfig) -> Notices:
    """Read and prepare the config's data; an empty path is the synthetic data that comes with the project."""
    path = config.data or environment.SAMPLE_DATA
    return prepare(read(path, config.columns, tuple(config.heads), config.text_fields), config)


def fit(config: TrainConfig, notices: Notices | None = None) -> Run:
    """Train a classifier on the notices and return its finished run, with the best epoch's weights.

    Raises `UserError` for settings, data, encoder or output folder that cannot be.
    """
    started = time.perf_counter()
    config.validate()
    notices = notices or load_notices(config)
    device = environment.device()
    precision = resolve_precision(config.precision, device)
    allow_tf32(precision)

    seed_everything(config.seed)
    tokenizer = load_tokenizer(config.model, notices.texts)
    table = encode(notices.texts, tokenizer, config.max_length)
    encoder = load_encoder(config.model, tokenizer, config.seed)
    check_length(encoder, config.max_length)
    sizes = {head: len(names) for head, names in notices.classes.items()}
    model = MultiHeadClassifier(encoder, sizes, config.dropout).to(device)
    freeze(model, config.freeze_layers)
    run = Run.create(config, _facts(config, notices, model, precision, device), notices.classes)
    if config.cache_trunk and config.freeze_layers:
        table, note = trunk.build(model, table, config.freeze_layers, precision)
        if note:
            print(note, flush=True)
    print(describe_parameters(model), flush=True)

    loader, sampler = step_loader(table, notices, config, device)
    objective = Objective(config.heads, _tensors(notices.class_weights, device), config.label_smoothing)
    optimizer = build_optimizer(model, config)
    schedule = linear_schedule(optimizer, config.warmup_ratio, config.epochs * len(sampler))
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    stopping = EarlyStopping(config)
    total_steps = config.epochs * len(sampler)

    def score(side: str) -> dict[str, float]:
        rows = notices.split[side]
        found = scoring.logits(model, table, rows, precision, config.padding)
        return scoring.metrics({head: y[rows] for head, y in notices.labels.items()}, scoring.predictions(found))

    trained_from = time.perf_counter()
    with Journal(run, total_steps) as journal:
        for epoch in range(1, config.epochs + 1):
            epoch_from = time.perf_counter()
            sampler.epoch = epoch
            model.train()
            epoch_loss = torch.zeros((), device=device)
            for micro_batches in loader:
                micro_batches = to_device(micro_batches, device)
                loss = accumulate(model, micro_batches, objective, scaler, precision)
                rate = schedule.get_last_lr()[0]
                applied = apply_step(model, optimizer, scaler, config.max_grad_norm)
                if applied:
                    schedule.step()
                epoch_loss += loss
                journal.step(epoch, loss, rate, sum(len(m["inputs"]) for m in micro_batches), applied)
            journal.flush()
            scores = score("val")
            seconds = time.perf_counter() - epoch_from
            mean_loss = epoch_loss.item() / len(sampler)
            journal.epoch({"epoch": epoch, "loss": mean_loss, "seconds": seconds, **scores}, config.monitor)
            if stopping.update(epoch, scores, model):
                break

    stopping.restore(model)
    run.save_model(model, tokenizer)
    training = time.perf_counter() - trained_from
    scores = {side: score(side) for side in ("val", "test")}
    run.facts["seconds"] = {"training": training, "total": time.perf_counter() - started}
    run.facts["skipped_steps"] = journal.skipped
    run.write_json(CONFIG, run.facts)
    run.write_json(METRICS, {"best_epoch": stopping.best_epoch, "epochs": epoch, **scores})
    return run


def accumulate(
    model: MultiHeadClassifier,
    micro_batches: list[MicroBatch],
    objective: Objective,
    scaler: torch.amp.GradScaler,
    precision: str,
) -> torch.Tensor:
    """Add the gradients of one whole effective batch, micro-batch by micro-batch; return its loss, a scalar.

    The gradients are those of the batch in one piece, for any cut into micro-batches.
    """
    normalisers = objective.normalisers(m["labels"] for m in micro_batches)
    total = torch.zeros((), device=micro_batches[0]["inputs"].device)
    for micro in micro_batches:
        with autocast(precision, total.device):
            logits = model(micro["inputs"], micro["attention_mask"])
        loss = objective(logits, micro["labels"], normalisers)
        scaler.scale(loss).backward()
        total += loss.detach()
    return total


def apply_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, max_grad_norm: float
) -> bool:
    """Unscale, clip, step and clear; return whether the optimiser moved.

    The scaler lowers its scale when it skips a step for an overflow; a disabled one never does.
    """
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_grad_norm)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return scaler.get_scale() >= scale


def seed_everything(seed: int) -> None:
    """Seed every source of chance a training touches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _tensors(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values, dtype=torch.float32, device=device) for name, values in arrays.items()}


def _facts(
    config: TrainConfig, notices: Notices, model: nn.Module, precision: str, device: torch.device
) -> dict[str, Any]:
    """Return what config.json says of a run beside its config."""
    trainable, total = count_parameters(model)
    return {
        "data": {
            "path": str(Path(config.data or environment.SAMPLE_DATA).resolve()),
            "fingerprint": notices.fingerprint,
            "columns": notices.report.columns,
        },
        "device": device.type,
        "precision": precision,
        "parameters": {"trainable": trainable, "total": total},
        "versions": environment.versions(),
        "hardware": environment.hardware().to_dict(),
    }
