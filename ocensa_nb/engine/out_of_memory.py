"""Out of memory: repeat the same work in smaller pieces, or raise an error that says which settings to change."""

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn

from ocensa_nb.errors import UserError
from ocensa_nb.runtime.machine import out_of_memory
from ocensa_nb.runtime.process import random_state, restore_random_state
from ocensa_nb.runtime.timing import release_memory

if TYPE_CHECKING:
    from ocensa_nb.engine.batching import MicroBatch

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SMALLER = "Use un max_length menor, congele más capas (freeze_layers), elija un codificador menor o cierre programas."
CLOSE = "Cierre otros programas o cuadernos que usen memoria, o use una máquina con más memoria."


def accumulate_in_pieces(
    accumulate: Callable[["list[MicroBatch]"], torch.Tensor],
    micro_batches: "list[MicroBatch]",
    pieces: int,
    model: nn.Module,
) -> tuple[torch.Tensor, int]:
    """Call `accumulate` on micro-batches cut in `pieces`; out of memory, in twice as many, from the same random state.

    Returns its result, and the pieces that fit.
    """
    while True:
        before = random_state()
        cut = [part for micro in micro_batches for part in _cut(micro, pieces)]
        try:
            return accumulate(cut), pieces
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        largest = max(len(micro["inputs"]) for micro in cut)
        if largest == 1:
            raise UserError(f"No hay memoria ni siquiera para un aviso a la vez. {SMALLER}")
        pieces *= 2
        model.zero_grad(set_to_none=True)
        release_memory()
        restore_random_state(before)
        logger.warning(
            f"Sin memoria con micro-batches de {largest} filas: se repite el paso con {-(-largest // 2)}, y se "
            "acumula el doble. El batch efectivo es el mismo."
        )


def _cut(micro: "MicroBatch", pieces: int) -> "Iterator[MicroBatch]":
    rows = len(micro["inputs"])
    size = -(-rows // pieces)
    for part in (slice(start, start + size) for start in range(0, rows, size)):
        labels = {head: y[part] for head, y in micro["labels"].items()}
        yield {"inputs": micro["inputs"][part], "attention_mask": micro["attention_mask"][part], "labels": labels}


def run_in_pieces(work: Callable[[np.ndarray], None], batches: Iterable[np.ndarray]) -> None:
    """Call a function on each batch of row numbers, and on smaller pieces once a batch does not fit in memory."""
    most = sys.maxsize  # rows that may fit
    for rows in batches:
        while len(rows):
            piece = rows[:most]
            try:
                work(piece)
                rows = rows[len(piece) :]
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            if len(piece) == 1:
                raise UserError(f"No hay memoria ni siquiera para un aviso a la vez. {CLOSE}")
            most = len(piece) // 2
            release_memory()


@contextlib.contextmanager
def explained(what: str, advice: str = SMALLER) -> Iterator[None]:
    """Raise `UserError` if the block runs out of memory; the message says in Spanish what did not fit."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        raise UserError(f"No hay memoria para {what}. {advice}") from None


def releases_memory(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its errors for the user keep no tensors: IPython keeps the last error's frames."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> T:
        try:
            return function(*args, **named)
        except (UserError, RuntimeError) as error:
            if isinstance(error, UserError) or out_of_memory(error):
                traceback.clear_frames(error.__traceback__)
            raise

    return call
