"""Out of memory: retry the same work in smaller pieces, or raise an error that says which settings to change."""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ocensa_nb.errors import UserError
from ocensa_nb.runtime.machine import out_of_memory
from ocensa_nb.runtime.process import random_state, restore_random_state

logger = logging.getLogger(__name__)

SMALLER = (
    "Use un max_length menor, congele más capas (freeze_layers), elija un codificador más pequeño, o cierre otros "
    "programas."
)
CLOSE = "Cierre otros programas o cuadernos que usen memoria, o use una máquina con más memoria."


@dataclass
class MicroBatches:
    """Run a step over its micro-batches; if one does not fit in memory, halve their size from then on."""

    pieces: int = 1

    def run(
        self,
        accumulate: Callable[[list[dict[str, Any]]], torch.Tensor],
        micro_batches: list[dict[str, Any]],
        model: nn.Module,
    ) -> torch.Tensor:
        """Return `accumulate(micro_batches)`, with smaller micro-batches if they do not fit in memory.

        A retry starts without gradients and from the same random state; a warning is logged.
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
                raise UserError(f"No hay memoria ni siquiera para un aviso a la vez. {SMALLER}")
            self.pieces *= 2
            model.zero_grad(set_to_none=True)
            release()
            restore_random_state(before)
            logger.warning(
                f"Sin memoria con micro-batches de {largest} filas: se repite el paso con {-(-largest // 2)}, y se "
                "acumula el doble. El batch efectivo es el mismo."
            )

    def _cut(self, micro_batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [piece for micro in micro_batches for piece in _pieces(micro, self.pieces)]


class Pieces:
    """Call a function on row numbers, int64 (rows,), in smaller pieces if they do not fit in memory."""

    def __init__(self, work: Callable[[np.ndarray], None]) -> None:
        self._work = work
        self._most: int | None = None  # rows that fit, once some did not

    def __call__(self, rows: np.ndarray) -> None:
        """Process all the rows; raises `UserError` if a single one does not fit."""
        done = 0
        while done < len(rows):
            part = rows[done : done + (self._most or len(rows))]
            if self._fits(part):
                done += len(part)
            elif len(part) == 1:
                raise UserError(f"No hay memoria ni siquiera para un aviso a la vez. {CLOSE}")
            else:
                self._most = len(part) // 2
                release()

    def _fits(self, rows: np.ndarray) -> bool:
        try:
            self._work(rows)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return False
        return True


@contextlib.contextmanager
def explained(what: str, advice: str = SMALLER) -> Iterator[None]:
    """Raise `UserError` if the block runs out of memory; the message says in Spanish what did not fit."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"No hay memoria para {what}. {advice}") from error


def release() -> None:
    """Release the memory that torch has cached."""
    gc.collect()
    torch.cuda.empty_cache()


def _pieces(micro: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split a micro-batch into `count` parts of about the same size, or into single rows."""
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
