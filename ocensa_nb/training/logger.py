"""Log a training: one history line per step and per epoch, and the progress bar."""

import contextlib
import functools
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from ocensa_nb.engine.batching import EpochSampler
from ocensa_nb.errors import UserError, listed, num
from ocensa_nb.paths import is_on_drive
from ocensa_nb.runs.run import Run
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.machine import memory_taken
from ocensa_nb.training.early_stopping import NonFiniteGuard

logger = logging.getLogger(__name__)

READ_EVERY = 10  # steps between reads of a GPU's losses: each read waits for the device; a CPU's are read at once
WRITE_SECONDS = 1.0  # between writes of the history: it may be on a network disk
DRIVE_WRITE_SECONDS = 30.0  # on Google Drive, where each write uploads the whole history


@dataclass(frozen=True)
class Step:
    """A step with its values still on the device, (heads + 1,): the loss of each head, then the gradient norm."""

    epoch: int
    number: int
    lr: float
    rows: int
    values: torch.Tensor


class TrainingLogger:
    """Collect the steps of a training, check them with a guard, write them to the history, update the bar."""

    def __init__(
        self, run: Run, sampler: EpochSampler, watch: NonFiniteGuard, total_steps: int, device: torch.device
    ) -> None:
        self.run, self.sampler, self.watch = run, sampler, watch
        self.device, self.every = device, READ_EVERY if device.type == "cuda" else 1
        self.total_steps = total_steps
        self.write_seconds = DRIVE_WRITE_SECONDS if is_on_drive(run.path) else WRITE_SECONDS
        self._step = 0
        self._losses: list[float] = []  # of this epoch
        self._pending: list[Step] = []
        self._lines: list[dict[str, Any]] = []
        self._read_at = self._written_at = time.perf_counter()

    @functools.cached_property
    def bar(self) -> tqdm:
        return progress(None, "Entrenando", "paso", total=self.total_steps, initial=self._step, delay=0, leave=True)

    @property
    def caught_up(self) -> bool:
        """Whether all steps have been read; only then is the position of the schedule known."""
        return not self._pending

    def step(self, epoch: int, number: int, losses: torch.Tensor, norm: torch.Tensor, lr: float, rows: int) -> int:
        """Record one optimizer step; return the number of steps found skipped, 0 between reads."""
        self._pending.append(Step(epoch, number, lr, rows, torch.cat([losses, norm.to(losses)[None]])))
        # Not by the clock: the schedule goes back by the skipped steps, in every run at the same step.
        return self.read() if len(self._pending) == self.every else 0

    def read(self) -> int:
        """Read the pending steps and update the bar; return how many of them were skipped."""
        if not self._pending:
            return 0
        bar = self.bar  # created before these steps are counted
        table = torch.stack([step.values for step in self._pending]).cpu().numpy()
        now = time.perf_counter()
        rows_per_second = sum(step.rows for step in self._pending) / (now - self._read_at)
        before, memory = self.watch.skipped, memory_taken(self.device)
        for step, (*losses, norm) in zip(self._pending, table.tolist(), strict=True):
            self._note(step, losses, norm, rows_per_second, memory)
        shown = f"pérdida {num(sum(losses), 3)}, {rows_per_second:.0f} filas/s"
        bar.set_postfix_str(shown, refresh=False)
        bar.update(len(self._pending))
        self._pending.clear()
        if now - self._written_at > self.write_seconds:
            self._try_to_write()
        self._read_at = time.perf_counter()
        return self.watch.skipped - before

    def write(self) -> None:
        self._written_at = time.perf_counter()
        self.run.append_history(self._lines)
        self._lines.clear()

    def epoch(self, epoch: int, seconds: float, scores: dict[str, float], confusion: list[list[int]]) -> None:
        """Write the line of a finished epoch and print its mean loss and its monitored metric."""
        loss = sum(self._losses) / max(1, len(self._losses))
        self._lines.append({"epoch": epoch, "loss": loss, "seconds": seconds, **scores, "confusion": confusion})
        self._try_to_write()
        self._losses.clear()
        monitor = self.run.config.monitor
        logger.info(
            f"Época {epoch}: pérdida {num(loss, 3)}, {monitor} de validación {num(scores[monitor], 3)}, {seconds:.0f} s"
        )
        self._read_at = time.perf_counter()  # validation is not training

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the length and SHA-256 of the history, which is written first."""
        self.write()
        length, sha256 = self.run.settle_history()
        return {
            "step": self._step,
            "losses": list(self._losses),
            "watch": self.watch.state_dict(),
            "bytes": length,
            "sha256": sha256,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position; later lines of the history are removed, because their steps are repeated."""
        self._step, self._losses = state["step"], state["losses"]
        self.watch.load_state_dict(state["watch"])
        self.run.cut_history(state["bytes"], state["sha256"])

    def _try_to_write(self) -> None:
        """Write the pending lines; if the disk refuses, retry later. A checkpoint raises instead."""
        with contextlib.suppress(UserError):
            self.write()

    def _note(self, step: Step, losses: list[float], norm: float, rows_per_second: float, memory: int) -> None:
        """Add the line of a step; a loss that is not finite is null, because JSON has no such number."""
        self._step += 1
        wrong, loss = self.watch.see(losses, norm), sum(losses)
        finite = math.isfinite(loss)
        line = {"step": self._step, "epoch": step.epoch, "loss": loss if finite else None, "lr": step.lr}
        if finite:
            self._losses.append(loss)
        if wrong:
            line["skipped"] = wrong
        if wrong and not (finite and self.watch.scaled):  # overflows of a scaler are only counted
            rows = listed(row + 1 for row in sorted(self.sampler.rows_of(step.epoch, step.number)))
            logger.warning(
                f"Paso {num(self._step)}: {wrong} (tasa {num(step.lr, 2, form='g')}; filas útiles {rows}). El paso no "
                "se aplica."
            )
        self._lines.append({**line, "rows_per_second": rows_per_second, "memory": memory})

    def __enter__(self) -> "TrainingLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.read()
        self._try_to_write()
        self.bar.close()
