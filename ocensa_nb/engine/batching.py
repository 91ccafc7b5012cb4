"""Dataset and sampler: one item of the loader is the list of micro-batches of one optimizer step."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.models.tokens import TokenTable, epoch_batches
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.machine import width_multiple
from ocensa_nb.runtime.process import SIGNALS

# inputs: ids, int64 (rows, length), or hidden states (rows, length, width); attention_mask: int64 (rows, length);
# labels: {head: int64 (rows,)}
MicroBatch = dict[str, Any]


@dataclass(frozen=True)
class StepDataset(Dataset):
    """Map the rows of an optimizer step to the micro-batches of this process; there may be none."""

    table: TokenTable | FrozenFeatures
    labels: dict[str, np.ndarray]
    batch_size: int
    padding: str
    world: World = ALONE
    multiple: int = 1  # of the width of a batch

    def __getitem__(self, rows: np.ndarray) -> list[MicroBatch]:
        rows = self.world.share(rows)
        return [self._micro_batch(rows[i : i + self.batch_size]) for i in range(0, len(rows), self.batch_size)]

    def _micro_batch(self, rows: np.ndarray) -> MicroBatch:
        inputs, mask = self.table.batch(rows, self.padding, self.multiple)
        labels = {head: torch.from_numpy(y[rows]) for head, y in self.labels.items()}
        return {"inputs": inputs, "attention_mask": mask, "labels": labels}


class EpochSampler(Sampler):
    """Yield the training rows of each optimizer step of `epoch`, without the first `done`; set both before a pass."""

    def __init__(self, rows: np.ndarray, lengths: np.ndarray, effective_batch_size: int, seed: int) -> None:
        self.rows, self.lengths = rows, lengths[rows]
        self.effective_batch_size, self.seed = effective_batch_size, seed
        self.epoch, self.done = 1, 0

        self._batches: tuple[int, list[np.ndarray]] = (0, [])  # of the epoch used last

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self._batches_of(self.epoch)[self.done :]:
            yield self.rows[batch]

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of a step of an epoch; both are counted from 1."""
        return self.rows[self._batches_of(epoch)[step - 1]]

    def _batches_of(self, epoch: int) -> list[np.ndarray]:
        if self._batches[0] != epoch:
            batches = epoch_batches(self.lengths, self.effective_batch_size, self.seed, epoch)
            self._batches = (epoch, list(batches))
        return self._batches[1]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.effective_batch_size)


def step_loader(
    table: TokenTable | FrozenFeatures,
    notices: Notices,
    config: TrainConfig,
    device: torch.device,
    world: World = ALONE,
) -> tuple[DataLoader, EpochSampler]:
    """Return a loader with this process's share of each step, and the sampler, which is equal in all processes."""
    sampler = EpochSampler(notices.split["train"], table.lengths, config.effective_batch_size, config.seed)
    on_gpu = isinstance(table, FrozenFeatures) and table.hidden.is_cuda
    workers = 0 if on_gpu else config.num_workers  # a worker process cannot read the GPU's memory
    loader = DataLoader(
        StepDataset(table, notices.labels, config.batch_size, config.padding, world, width_multiple(device)),
        sampler=sampler,
        batch_size=None,  # an item is a batch already
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_stopping_to_the_main_process,
        pin_memory=device.type == "cuda" and not on_gpu,
        # The loader draws a seed for its workers; from its own source, so that their number changes no dropout mask.
        generator=torch.Generator().manual_seed(config.seed),
    )
    return loader, sampler


def _leave_stopping_to_the_main_process(_: int) -> None:
    """Ignore the signals that reach all processes of a group: the batch of a worker is still needed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
