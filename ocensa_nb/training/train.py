"""The training loop, top to bottom.

    from ocensa_nb import config, fit
    run = fit(config.from_recipe("cpu", {"data": "avisos.csv"}))

An optimizer step draws its whole effective batch. The losses of its micro-batches therefore add up to the loss of the
batch, with class weights, label smoothing and a ragged last batch (`engine/loss.py`). `engine/step.py` makes one step;
this module repeats it, evaluates each epoch, saves checkpoints and stops early.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.corrections import read_corrections, write_corrections
from ocensa_nb.data.notices import Notices, prepare, read
from ocensa_nb.engine import step as engines
from ocensa_nb.engine.batching import step_loader
from ocensa_nb.engine.frozen_features import FeatureTable
from ocensa_nb.engine.memory import memory_note
from ocensa_nb.engine.optimizer import LinearSchedule
from ocensa_nb.engine.step import Engine
from ocensa_nb.evaluation import predictor
from ocensa_nb.evaluation.blend import write_blends
from ocensa_nb.evaluation.metrics import confusion_counts, flat_metrics
from ocensa_nb.models.catalogue import load_encoder, load_tokenizer
from ocensa_nb.models.classifier import count_parameters, describe_parameters, sha256, trained_weights
from ocensa_nb.models.probe import probe
from ocensa_nb.models.save import save_linear, save_model
from ocensa_nb.models.tokenizer_checks import check_unknown_share, unknown_share
from ocensa_nb.models.tokenizer_checks import describe as describe_tokens
from ocensa_nb.models.tokens import encode
from ocensa_nb.paths import RUNS, SAMPLE_DATA
from ocensa_nb.runs import array_cache
from ocensa_nb.runs.checkpoint import CheckpointManager, TrainerState
from ocensa_nb.runs.manifest import CORRECTIONS
from ocensa_nb.runs.run import LAST, Run
from ocensa_nb.runs.shared_run import acquire_shared_run
from ocensa_nb.runtime import distributed, machine
from ocensa_nb.runtime.compilation import require_compiler
from ocensa_nb.runtime.precision import allow_tf32, replacement_note, resolve_precision
from ocensa_nb.runtime.process import defer_signals, interrupt_as_error
from ocensa_nb.runtime.seeding import seed_everything
from ocensa_nb.training import estimate
from ocensa_nb.training.early_stopping import EarlyStopping
from ocensa_nb.training.logger import TrainingLogger
from ocensa_nb.training.nonfinite import NonFiniteGuard
from ocensa_nb.training.quality import SIDES, class_rows, fit_linear, measure_quality

logger = logging.getLogger(__name__)


def load_notices(config: TrainConfig) -> Notices:
    """Read and prepare the data of a config, corrected; an empty path means the synthetic data of the project."""
    path = config.data or SAMPLE_DATA
    given = read_corrections(config.corrections, config.heads) if config.corrections else None
    return prepare(read(path, config.columns, tuple(config.heads), config.text_fields, given=given), config)


def fit(config: TrainConfig, notices: Notices | None = None, keep_features: bool = True, root: Path = RUNS) -> Run:
    """Train a classifier and return its finished run, with the weights of the best epoch.

    An interrupted run with the same fingerprint is resumed, unless `config.resume` is "never".

    Parameters
    ----------
    config
        The settings of the training.
    notices
        The labelled notices; if None, they are read from `config.data`.
    keep_features
        Whether the cached features of frozen layers are shared with other runs, on disk.
    root
        The folder of the numbered runs, used if `config.out` is empty.

    Returns
    -------
    Run
        The run folder, with model, metrics and history.

    Raises
    ------
    UserError
        If a setting, the data, the encoder or the output folder is not valid.
    StoppedError
        If the training stopped before its end; it can be resumed.
    """
    started = time.perf_counter()
    config.validate()
    notices = notices or load_notices(config)
    device = machine.device()
    torch.set_num_threads(machine.threads())
    world = distributed.world()

    with world.agreed():
        seed_everything(config.seed)
        tokenizer = load_tokenizer(config.model, notices.texts)
        table = encode(notices.texts, tokenizer, config.max_length)
        unknown = unknown_share(table, tokenizer)
        logger.info(describe_tokens(unknown, notices.texts, tokenizer))
        check_unknown_share(unknown, config.model)
        encoder = load_encoder(config.model, tokenizer, config.seed)
        probe(encoder, tokenizer, config.max_length, config.model)
        inputs = {"encoder": sha256(encoder.named_parameters()), "tokens": table.sha256()}
        model = engines.classifier(config, notices, encoder)
        if config.compile:
            require_compiler(device)
        metadata = _metadata(config, notices, model, inputs, device)
    world.require_same(
        lambda: [config.fingerprint(), notices.fingerprint, inputs],
        "Los procesos no tienen los mismos ajustes, avisos o codificador. Use los mismos archivos y el mismo comando "
        "en todas las máquinas.",
    )
    with interrupt_as_error(), acquire_shared_run(world, config, metadata, notices.classes, root) as run:
        if run.is_finished():  # interrupted between its last file and the removal of its checkpoints
            run.tidy()
            return Run.load(run.path) if world.is_first else run
        if world.is_first and (
            given := notices.report.corrections
        ):  # a copy, because the run depends on them and the file may get lost
            write_corrections(given.table, config.heads, run.path / CORRECTIONS)
        precision = run.metadata["precision"]
        allow_tf32(precision)
        if note := replacement_note(config.precision, precision, device):
            logger.warning(note)
        logger.info(describe_parameters(model))
        logger.info(memory_note(config, model, table.lengths, precision, device))
        fitted_from = time.perf_counter()
        with world.agreed():
            linear = fit_linear(notices) if world.is_first else None
        linear_seconds = time.perf_counter() - fitted_from
        built_from = time.perf_counter()
        cache = array_cache.default_folder() if keep_features else None
        engine = engines.build(config, notices, table, model, precision, device, cache, world=world)
        features_seconds = time.perf_counter() - built_from
        if not world.is_first:
            seed_everything(config.seed + world.rank)  # dropout differs from that of the first process
        timings, metrics, logits = _train(run, config, notices, engine)
        if linear:
            save_model(run, model, tokenizer)
            blends, quality = measure_quality(notices, linear, logits)
            save_linear(run, linear)
            write_blends(run, blends)
            timings["seconds"] |= {
                "linear": linear_seconds,
                "features": features_seconds,
                "total": time.perf_counter() - started + timings["seconds"]["earlier"],
            }
            run.finish(timings | {"features": _features(engine.table)}, metrics | quality)
        world.wait()
    return run


def _train(
    run: Run, config: TrainConfig, notices: Notices, engine: Engine
) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Repeat the step from the last checkpoint, if any, and restore the weights of the best epoch.

    Returns the timings and counters for config.json, the epochs for metrics.json, and the logits of the best epoch per
    side (`val`, `test`) and head.
    """
    model, world = engine.model, engine.world
    loader, sampler = step_loader(engine.table, notices, config, engine.device, world)
    total_steps = config.epochs * len(sampler)
    schedule = LinearSchedule(engine.optimizer, config.warmup_ratio, total_steps)
    stopping = EarlyStopping(config)
    watch = NonFiniteGuard(list(config.heads), scaled=engine.scaler.is_enabled())

    def score_split(side: str) -> dict[str, np.ndarray]:
        rows = notices.split[side]
        return predictor.shared_logits(world, model, engine.table, rows, engine.precision, config.padding)

    val_labels = {head: y[notices.split["val"]] for head, y in notices.labels.items()}
    expected = estimate.estimate_time(engine, loader.dataset, sampler, notices.split, config)
    at = TrainerState()
    with (
        defer_signals(insist=world.size == 1) as asked,
        TrainingLogger(run, sampler, watch, total_steps, engine.device) as journal,
        CheckpointManager(
            run.path / LAST,
            config.checkpoint_minutes,
            {"engine": engine, "schedule": schedule, "stopping": stopping, "journal": journal, "at": at},
            world,
        ) as checkpoints,
    ):
        if checkpoints.restore():
            logger.info(f"Continúa «{run.path}» desde la época {at.epoch}, paso {at.step} de {len(sampler)}.")
        else:
            run.cut_history(0)  # lines of a session that died before its first checkpoint
        logger.info(checkpoints.describe(sum(weight.nbytes for weight in trained_weights(model).values())))
        logger.info(expected.after(at.epoch - 1 + at.step / len(sampler)))
        earlier = at.seconds
        checkpoints.save()
        while not at.over:
            model.train()
            sampler.epoch, sampler.done = at.epoch, at.step
            for micro_batches in loader:
                lr = engine.optimizer.param_groups[0]["lr"]
                losses, norm = engine.step(micro_batches)
                at.step += 1
                rows = len(sampler.rows_of(at.epoch, at.step))
                skipped = journal.step(at.epoch, at.step, losses, norm, lr, rows)
                schedule.move(1 - skipped)
                if journal.caught_up:
                    watch.check()
                    asked.check(run.path, world)
                    checkpoints.save_if_due()
            schedule.move(-journal.read())
            watch.check()
            predicted = predictor.predictions(score_split("val"))
            scores = flat_metrics(val_labels, predicted)
            watched = config.monitored_head
            confusion = confusion_counts(val_labels[watched], predicted[watched])
            line = {
                "epoch": at.epoch,
                "loss": journal.mean_loss,
                "seconds": at.tick(),
                **scores,
                "confusion": confusion,
            }
            journal.epoch(line, config.monitor)
            at.next_epoch(over=stopping.update(at.epoch, scores, model) or at.epoch == config.epochs)
            checkpoints.save()
            asked.check(run.path, world)

    stopping.restore(model)
    logits = {side: score_split(side) for side in SIDES}
    at.tick()
    seconds = {
        "expected": expected.training,
        "expected_epoch": expected.epoch,
        "training": at.seconds,
        "earlier": earlier,  # of which, in sessions before this one
    }
    timings = {"seconds": seconds, "skipped_steps": watch.skipped, "checkpoint_bytes": checkpoints.bytes}
    return timings, {"best_epoch": stopping.best_epoch, "epochs": at.epoch - 1}, logits


def _features(table: Any) -> dict[str, Any] | None:
    """Return the size of the cached features for config.json and whether an earlier run computed them, if any."""
    if not isinstance(table, FeatureTable):
        return None
    return {"key": table.key, "bytes": table.hidden.nbytes, "reused": table.reused}


def _metadata(
    config: TrainConfig, notices: Notices, model: nn.Module, inputs: dict[str, str], device: torch.device
) -> dict[str, Any]:
    """Return the metadata of a run for config.json: data, inputs, hardware, versions."""
    trainable, total = count_parameters(model)
    return {
        "data": {
            "path": str(Path(config.data or SAMPLE_DATA).resolve()),
            "fingerprint": notices.fingerprint,
            "columns": notices.report.columns,
            "merged": notices.report.merged(),
            "class_rows": {head: rows.tolist() for head, rows in class_rows(notices).items()},
        },
        "inputs": inputs,
        "device": device.type,
        "precision": resolve_precision(config.precision, device),
        "parameters": {"trainable": trainable, "total": total},
        "versions": machine.versions(),
        "hardware": machine.hardware().to_dict(),
    }
