"""When numbers stop being numbers: which step, which head, which rows; skipped, counted, and stopped in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ocensa_nb.errors import DivergedError

LIMIT = 3  # skipped steps in a row after which there is nothing to wait for
LIMIT_SCALED = 25  # the scaler halves its scale at each: from 65,536 to far below 1
ROWS_NAMED = 8


@dataclass
class Watch:
    """Counts the steps that were skipped for a loss or a gradient that is not finite.

    heads: names of the losses; scaled: whether a loss scaler is at work, which overflows now and then by design.
    """

    heads: Sequence[str]
    scaled: bool
    skipped: int = 0
    in_a_row: int = 0
    last: str = ""

    def see(self, losses: Sequence[float], norm: float) -> str:
        """Take in the losses, one a head, and the gradient norm of a step; say in Spanish what is wrong, or nothing."""
        each = zip(self.heads, losses, strict=True)
        bad = [f"la pérdida de «{head}» es {loss}" for head, loss in each if not math.isfinite(loss)]
        if not bad and math.isfinite(norm):
            self.in_a_row = 0
            return ""
        self.skipped += 1
        self.in_a_row += 1
        self.last = " y ".join(bad) or f"la norma del gradiente es {norm}"
        return self.last

    def check(self) -> None:
        """Raise `DivergedError` where too many steps in a row were skipped."""
        if self.in_a_row < (LIMIT_SCALED if self.scaled else LIMIT):
            return
        more = " o precision = 'fp32'" if self.scaled else ""
        raise DivergedError(
            f"El entrenamiento se detuvo: {self.in_a_row} pasos seguidos sin números finitos ({self.last}). Ninguno se "
            "aplicó: los últimos pesos buenos quedan guardados. Pruebe en otra carpeta (out) con learning_rate y "
            f"head_learning_rate menores, max_grad_norm menor{more}, y revise los avisos de esos pasos."
        )


def describe(what: str, step: int, rate: float, rows: np.ndarray) -> str:
    """Return the Spanish sentence for one skipped step; rows: int64 (rows,), numbers of the useful rows from 0."""
    named = ", ".join(f"{row + 1:,}" for row in sorted(rows)[:ROWS_NAMED])
    more = f" y {len(rows) - ROWS_NAMED} más" if len(rows) > ROWS_NAMED else ""
    return f"Paso {step:,}: {what} (tasa {rate:.2g}; filas útiles {named}{more}). El paso no se aplica."
