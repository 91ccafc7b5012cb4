"""Logits of rows, the same computation for validation, evaluation and prediction."""

import numpy as np
import torch

from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.out_of_memory import run_in_pieces
from ocensa_nb.models.classifier import MultiHeadClassifier
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.models.tokens import TokenTable, scoring_batches
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.machine import to_device, width_multiple
from ocensa_nb.runtime.precision import without_gradients


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
    widths = table.widths(padding)[rows]
    mine = world.share(np.argsort(widths, kind="stable"))
    batches = [mine[batch] for batch in scoring_batches(widths[mine], device)]
    scores = {
        head: torch.zeros(len(rows), layers[-1].out_features, device=device) for head, layers in model.heads.items()
    }

    def score(batch: np.ndarray) -> None:
        padded = table.batch(rows[batch], padding, width_multiple(device))
        inputs, mask, positions = to_device([*padded, torch.from_numpy(batch)], device)
        for head, values in model(inputs, mask).items():
            scores[head].index_copy_(0, positions, values)

    with in_eval_mode(model), without_gradients(model, precision, device):
        run_in_pieces(score, batches if title is None else progress(batches, title, "batch"))
    on_cpu = {head: values.cpu() for head, values in scores.items()}  # one wait for the device, at the end
    world.sum(list(on_cpu.values()))  # the other processes have zeros in the rows of this one
    return {head: values.numpy() for head, values in on_cpu.items()}
