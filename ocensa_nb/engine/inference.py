"""Logits of rows, the same computation for validation, evaluation and prediction."""

import numpy as np
import torch

from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.out_of_memory import run_in_pieces
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.machine import to_device
from ocensa_nb.runtime.precision import autocast

SCORING_BATCH = 64


def logits(
    model: MultiHeadClassifier,
    table: TokenTable | FrozenFeatures,
    rows: np.ndarray,
    precision: str,
    padding: str = "dynamic",
    title: str | None = None,
    world: World = ALONE,
) -> dict[str, np.ndarray]:
    """Return the fp32 logits (rows, classes) of each head, in the order of `rows`, int64 (rows,).

    `precision` is resolved, not `auto`. Each process of `world` computes a share; all get the logits of all rows.
    Raises `UserError` if the memory is insufficient even for one row at a time.
    """
    device = next(model.parameters()).device
    by_length = world.share(np.argsort(table.lengths[rows], kind="stable"))
    batches = [by_length[start : start + SCORING_BATCH] for start in range(0, len(by_length), SCORING_BATCH)]
    scores = {
        head: torch.zeros(len(rows), layers[-1].out_features, device=device) for head, layers in model.heads.items()
    }

    def score(batch: np.ndarray) -> None:
        inputs, mask, positions = to_device([*table.batch(rows[batch], padding), torch.from_numpy(batch)], device)
        for head, values in model(inputs, mask).items():
            scores[head].index_copy_(0, positions, values)

    with in_eval_mode(model), torch.inference_mode(), autocast(precision, device):
        run_in_pieces(score, batches if title is None else progress(batches, title, "batch"))
    on_cpu = {head: values.cpu() for head, values in scores.items()}  # one wait for the device, at the end
    world.sum(list(on_cpu.values()))  # the other processes have zeros in the rows of this one
    return {head: values.numpy() for head, values in on_cpu.items()}
