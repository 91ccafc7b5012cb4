"""The training loop, top to bottom.

    from ocensa_nb import config, fit
    run = fit(config.from_recipe("cpu", {"data": "avisos.csv"}))

`engine/step.py` makes one step; this module repeats it, evaluates each epoch, saves checkpoints and stops early.
"""

import logging
import time
from pathlib import Path

import numpy as np

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices, load_notices
from ocensa_nb.engine import inference
from ocensa_nb.engine.batching import step_loader
from ocensa_nb.engine.optimizer import LinearSchedule
from ocensa_nb.engine.out_of_memory import releases_memory
from ocensa_nb.engine.step import Engine
from ocensa_nb.paths import RUNS
from ocensa_nb.runs.checkpoint import CheckpointManager, TrainerState
from ocensa_nb.runs.manifest import LAST
from ocensa_nb.runs.resume import acquire_run
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime import distributed, process
from ocensa_nb.runtime.timing import timed
from ocensa_nb.training import card, expected_time, inputs, quality
from ocensa_nb.training.early_stopping import EarlyStopping, NonFiniteGuard
from ocensa_nb.training.logger import TrainingLogger

logger = logging.getLogger(__name__)

Logits = dict[str, np.ndarray]  # float32 (rows, classes), per head


@releases_memory
def fit(config: TrainConfig, notices: Notices | None = None, root: Path = RUNS) -> Run:
    """Train a classifier and return its finished run, with the weights of the best epoch.

    An interrupted run with the same fingerprint is resumed, unless `config.resume` is "never".

    Parameters
    ----------
    notices
        The labelled notices; if None, they are read from `config.data`.
    root
        The folder of the numbered runs, used if `config.out` is empty.

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
    world = distributed.world()
    loaded = inputs.load_inputs(config, notices, world)
    metadata = inputs.describe_inputs(config, notices, loaded)
    with process.interrupt_as_error(), acquire_run(world, config, metadata, notices.classes, root) as run:
        if run.is_finished():  # interrupted between its last file and the removal of its checkpoints
            run.tidy()
            return Run.load(run.path) if world.is_first else run
        seconds: dict[str, float] = {}
        with timed(seconds, "linear"), world.agreed():
            linear = quality.fit_linear(config, notices) if world.is_first else None
        with timed(seconds, "features"):
            engine = inputs.build_engine(config, notices, loaded, run.metadata["precision"], world)
        counts, epochs, logits = _train(run, config, notices, engine, seconds)
        if linear:
            metrics = epochs | quality.save_models(run, notices, loaded, linear, logits)
            card.write_card(run, metrics)
            seconds["total"] = time.perf_counter() - started + seconds["earlier"]
            features = inputs.describe_features(engine)
            run.finish({"seconds": seconds, "features": features, **counts}, metrics)
        world.wait()
    return run


def _train(
    run: Run, config: TrainConfig, notices: Notices, engine: Engine, seconds: dict[str, float]
) -> tuple[dict[str, int], dict[str, int], dict[str, Logits]]:
    """Train from the last checkpoint, if any; return counts, epochs, and the best epoch's logits per side and head."""
    world, model = engine.world, engine.model
    loader, sampler = step_loader(engine.table, notices, config, engine.device, world)
    total_steps = config.epochs * len(sampler)
    schedule = LinearSchedule(engine.optimizer, config.warmup_ratio, total_steps)
    stopping = EarlyStopping(config)
    guard = NonFiniteGuard(list(config.heads), scaled=engine.scaler.is_enabled())
    state = TrainerState()

    def score(side: str) -> Logits:
        rows = notices.split[side]
        return inference.logits(model, engine.table, rows, engine.precision, config.padding, world=world)

    expected = expected_time.estimate_time(engine, loader.dataset, sampler, notices.split, config)
    with (
        process.defer_signals(insist=world.size == 1) as stop_request,
        TrainingLogger(run, sampler, guard, total_steps, engine.device) as log,
        CheckpointManager(
            run.path / LAST,
            config.checkpoint_minutes,
            {"engine": engine, "schedule": schedule, "stopping": stopping, "log": log, "state": state},
            world,
        ) as checkpoints,
    ):
        if checkpoints.restore():
            logger.info(f"Continúa «{run.path}» desde la época {state.epoch}, paso {state.step} de {len(sampler)}.")
        else:
            run.cut_history(0)  # lines of a session that died before its first checkpoint
        logger.info(checkpoints.describe(run.metadata["parameters"]["trainable"]))
        logger.info(expected.after(state.epoch - 1 + state.step / len(sampler)))
        seconds |= {"expected": expected.training, "expected_epoch": expected.epoch, "earlier": state.seconds}
        checkpoints.save()
        while not state.over:
            model.train()
            sampler.epoch, sampler.done = state.epoch, state.step
            for micro_batches in loader:
                lr = engine.optimizer.param_groups[0]["lr"]
                losses, norm = engine.step(micro_batches)
                state.step += 1
                rows = len(sampler.rows_of(state.epoch, state.step))
                skipped = log.step(state.epoch, state.step, losses, norm, lr, rows)
                schedule.move(1 - skipped)
                if log.caught_up:
                    guard.check()
                    stop_request.check(run.path, world)
                    checkpoints.save_if_due()
            schedule.move(-log.read())
            guard.check()
            scores, confusion = quality.validate(config, notices, score("val"))
            log.epoch(state.epoch, state.tick(), scores, confusion)
            state.next_epoch(over=stopping.update(state.epoch, scores, model) or state.epoch == config.epochs)
            if state.over:
                checkpoints.save()  # what follows, to the last file, is not trained again
            else:
                checkpoints.save_if_due()
            stop_request.check(run.path, world)

    stopping.restore(model)
    logits = {side: score(side) for side in ("val", "test")}
    state.tick()
    seconds["training"] = state.seconds
    counts = {"skipped_steps": guard.skipped, "checkpoint_bytes": checkpoints.bytes}
    return counts, {"best_epoch": stopping.best_epoch, "epochs": state.epoch - 1}, logits
