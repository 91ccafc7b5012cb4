"""Out of memory: retry the same work in smaller pieces, or raise an error that says which settings to change."""

import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
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
        """Return `accumulate(micro_batches)`; a retry starts without gradients and from the same random state."""
        while True:
            before = random_state()
            pieces = self._cut(micro_batches)
            try:
                return accumulate(pieces)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            largest = max(len(piece["inputs"]) for piece in pieces)
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
        cut = []
        for micro in micro_batches:
            rows = len(micro["inputs"])
            size = -(-rows // self.pieces)
            for part in (slice(start, start + size) for start in range(0, rows, size)):
                labels = {head: y[part] for head, y in micro["labels"].items()}
                cut.append({key: micro[key][part] for key in ("inputs", "attention_mask")} | {"labels": labels})
        return cut


def run_in_pieces(work: Callable[[np.ndarray], None], batches: Iterable[np.ndarray]) -> None:
    """Call a function on each batch of row numbers, and on smaller pieces once a batch does not fit in memory."""
    most = sys.maxsize  # rows that may fit
    for rows in batches:
        done = 0
        while done < len(rows):
            piece = rows[done : done + most]
            if _fits(work, piece):
                done += len(piece)
            elif len(piece) == 1:
                raise UserError(f"No hay memoria ni siquiera para un aviso a la vez. {CLOSE}")
            else:
                most = len(piece) // 2
                release()


def _fits(work: Callable[[np.ndarray], None], rows: np.ndarray) -> bool:
    try:
        work(rows)
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
    gc.collect()
    torch.cuda.empty_cache()
