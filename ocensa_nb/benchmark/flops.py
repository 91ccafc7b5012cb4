"""Count the FLOPs of a pass through a model without weights, for any number of rows and tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

WIDTHS = (8, 16, 24)  # tokens; three determine the quadratic polynomial exactly


@dataclass(frozen=True)
class PassFlops:
    """Work of one pass over a batch."""

    operators: int
    per_row: np.ndarray

    def work(self, shapes: np.ndarray) -> np.ndarray:
        """Return (operators, FLOPs with weights, FLOPs between activations), float64 (passes, 3)."""
        rows, width = shapes.astype(np.float64).T
        flops = rows[:, None] * (width[:, None] ** np.arange(3) @ self.per_row.T)
        return np.column_stack([np.full(len(shapes), float(self.operators)), flops])


def count(
    model: nn.Module, features: int = 0, backward: bool = True, forward: Callable[..., Any] | None = None
) -> PassFlops:
    """Count the work of one pass through a model on the device `meta`.

    Source: `torch.utils.flop_counter`, which counts matrix products and convolutions. Attention must be computed by
    separate products ("eager"): the fused kernel of a CPU is not in its registry.

    Parameters
    ----------
    model
        Takes inputs and a mask, (rows, tokens), and returns logits per head; on the device `meta`.
    features
        Size of the hidden states if the inputs are cached features, 0 if they are token ids.
    backward
        Whether to count the backward pass too.
    forward
        A part of the model to count instead, with the same inputs; without a backward pass.

    Returns
    -------
    PassFlops
        Per pass.
    """
    found = np.array([_count_once(model, forward or model, width, features, backward) for width in WIDTHS])
    powers = np.array(WIDTHS, np.float64)[:, None] ** np.arange(3)
    return PassFlops(int(found[0, 0]), np.linalg.solve(powers, found[:, 1:]).T)


class _OperatorCounter(TorchDispatchMode):
    """Count the operators that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators += 1
        return func(*args, **(kwargs or {}))


def _count_once(
    model: nn.Module, forward: Callable[..., Any], width: int, features: int, backward: bool
) -> tuple[float, float, float]:
    inputs = torch.empty((1, width, features) if features else (1, width), device="meta")
    inputs = inputs if features else inputs.long()
    mask = torch.ones((1, width), dtype=torch.int64, device="meta")
    with torch.set_grad_enabled(backward), FlopCounterMode(display=False) as flops, _OperatorCounter() as counter:
        outputs = forward(inputs, mask)
        if backward:
            sum(logits.sum() for logits in outputs.values()).backward()
    model.zero_grad(set_to_none=True)
    counts = {str(operator): total for operator, total in flops.get_flop_counts()["Global"].items()}
    between = sum(total for operator, total in counts.items() if "bmm" in operator)
    return counter.operators, sum(counts.values()) - between, between
