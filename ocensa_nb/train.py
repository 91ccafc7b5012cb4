"""The training loop, top to bottom.

    from ocensa_nb import config, train
    run = train.fit(config.from_recipe("cpu", {"data": "avisos.csv"}))

An optimiser step draws its whole effective batch, so that the loss of its micro-batches adds up to the loss of the
batch, class weights, label smoothing and a ragged last batch included (`objective.py`). What a step does is in
`engine.py`; here it is repeated, scored, and stopped in time.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ocensa_nb import engine as engines
from ocensa_nb import environment, estimate, scoring, trunk_store, used_vocabulary
from ocensa_nb.chance import seed_everything
from ocensa_nb.compiling import require_compiler
from ocensa_nb.config import TrainConfig
from ocensa_nb.encoders import check_length, load_encoder, load_tokenizer
from ocensa_nb.feeding import step_loader
from ocensa_nb.journal import Journal
from ocensa_nb.model import count_parameters, describe_parameters
from ocensa_nb.notices import Notices, prepare, read
from ocensa_nb.optim import EarlyStopping, LinearSchedule
from ocensa_nb.precision import allow_tf32, resolve_precision
from ocensa_nb.runs import CONFIG, METRICS, Run
from ocensa_nb.tokens import encode


def load_notices(config: TrainConfig) -> Notices:
    """Read and prepare the config's data; an empty path is the synthetic data that comes with the project."""
    path = config.data or environment.SAMPLE_DATA
    return prepare(read(path, config.columns, tuple(config.heads), config.text_fields), config)


def fit(config: TrainConfig, notices: Notices | None = None, keep_trunk: bool = True) -> Run:
    """Train a classifier on the notices and return its finished run, with the best epoch's weights.

    keep_trunk: whether what frozen layers give is kept for, and taken from, other runs. Raises `UserError` for
    settings, data, encoder or output folder that cannot be.
    """
    started = time.perf_counter()
    config.validate()
    notices = notices or load_notices(config)
    device = environment.device()
    precision = resolve_precision(config.precision, device)
    allow_tf32(precision)
    torch.set_num_threads(environment.threads())

    seed_everything(config.seed)
    tokenizer = load_tokenizer(config.model, notices.texts)
    table = encode(notices.texts, tokenizer, config.max_length)
    encoder = load_encoder(config.model, tokenizer, config.seed)
    check_length(encoder, config.max_length)
    model = engines.classifier(config, notices, encoder)
    if config.compile:
        require_compiler(device)
    run = Run.create(config, _facts(config, notices, model, precision, device), notices.classes)
    print(describe_parameters(model), flush=True)
    built_from = time.perf_counter()
    cache = trunk_store.default_folder() if keep_trunk else None
    engine = engines.build(config, notices, table, model, precision, device, cache)
    trunk_seconds = time.perf_counter() - built_from

    loader, sampler = step_loader(engine.table, notices, config, device)
    total_steps = config.epochs * len(sampler)
    schedule = LinearSchedule(engine.optimizer, config.warmup_ratio, total_steps)
    stopping = EarlyStopping(config)

    def score(side: str) -> dict[str, float]:
        rows = notices.split[side]
        found = scoring.logits(model, engine.table, rows, precision, config.padding)
        return scoring.metrics({head: y[rows] for head, y in notices.labels.items()}, scoring.predictions(found))

    expected = estimate.expect(engine, loader.dataset, sampler, notices.split, config)
    print(expected, flush=True)
    trained_from = time.perf_counter()
    with Journal(run, total_steps, skips=engine.scaler.is_enabled()) as journal:
        for epoch in range(1, config.epochs + 1):
            epoch_from = time.perf_counter()
            sampler.epoch = epoch
            model.train()
            epoch_loss = torch.zeros((), device=device)
            for micro_batches in loader:
                rate = engine.optimizer.param_groups[0]["lr"]
                loss, norm = engine.step(micro_batches)
                epoch_loss += loss
                skipped = journal.step(epoch, loss, norm, rate, sum(len(m["inputs"]) for m in micro_batches))
                schedule.move(1 - skipped)
            schedule.move(-journal.flush())
            scores = score("val")
            seconds = time.perf_counter() - epoch_from
            mean_loss = epoch_loss.item() / len(sampler)
            journal.epoch({"epoch": epoch, "loss": mean_loss, "seconds": seconds, **scores}, config.monitor)
            if stopping.update(epoch, scores, model):
                break

    stopping.restore(model)
    scores = {side: score(side) for side in ("val", "test")}
    training = time.perf_counter() - trained_from
    used_vocabulary.widen(encoder)
    run.save_model(model, tokenizer)
    run.facts["seconds"] = {
        "expected": expected.training,
        "expected_epoch": expected.epoch,
        "trunk": trunk_seconds,
        "training": training,
        "total": time.perf_counter() - started,
    }
    run.facts["skipped_steps"] = journal.skipped
    run.write_json(CONFIG, run.facts)
    run.write_json(METRICS, {"best_epoch": stopping.best_epoch, "epochs": epoch, **scores})
    return run


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
