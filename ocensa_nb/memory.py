"""When a step runs out of memory: smaller micro-batches, the same effective batch, tried again."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ocensa_nb.chance import random_state, restore_random_state
from ocensa_nb.errors import UserError

# What torch says where it has no exception of its own: on Linux and macOS, on Windows, and from a GPU's libraries.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


class MicroBatches:
    """Runs a step over its micro-batches, and cuts them in two for good when one does not fit in memory."""

    def __init__(self) -> None:
        self.pieces = 1

    def run(
        self,
        accumulate: Callable[[list[dict[str, Any]]], torch.Tensor],
        micro_batches: list[dict[str, Any]],
        model: nn.Module,
    ) -> torch.Tensor:
        """Return `accumulate(micro_batches)`, over smaller ones where need be; the user is told when they shrink.

        A second try begins with no gradient and with the random state of the first. Raises `UserError` where a
        single row does not fit.
        """
        while True:
            before = random_state()
            try:
                return accumulate(self._cut(micro_batches))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            largest = max(len(piece["inputs"]) for piece in self._cut(micro_batches))
            if largest == 1:
                raise UserError(
                    "No hay memoria ni para un aviso a la vez. Use un max_length menor, congele más capas "
                    "(freeze_layers), elija un codificador más pequeño, o cierre otros programas."
                )
            self.pieces *= 2
            model.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            restore_random_state(before)
            print(
                f"Sin memoria con micro-batches de {largest} filas: se repite el paso con {-(-largest // 2)}, y se "
                "acumula el doble. El batch efectivo es el mismo.",
                flush=True,
            )

    def _cut(self, micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [piece for micro in micro_batches for piece in _pieces(micro, self.pieces)]


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch ran out of memory; on a CPU it says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _pieces(micro: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Cut a micro-batch into `count` of nearly the same rows, or as many as it has rows."""
    rows = len(micro["inputs"])
    size = -(-rows // count)
    return [
        {
            "inputs": micro["inputs"][start : start + size],
            "attention_mask": micro["attention_mask"][start : start + size],
            "labels": {head: y[start : start + size] for head, y in micro["labels"].items()},
        }
        for start in range(0, rows, size)
    ]
