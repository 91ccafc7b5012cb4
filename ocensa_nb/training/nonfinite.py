"""When numbers stop being numbers: which step, which head, which rows; skipped, counted, and stopped in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocensa_nb.errors import DivergedError

LIMIT = 3  # skipped steps in a row after which there is nothing to wait for
LIMIT_SCALED = 25  # the scaler halves its scale at each: from 65,536 to far below 1
ROWS_NAMED = 8


@dataclass
class NonFiniteGuard:
    """Counts the steps that were skipped for a loss or a gradient that is not finite.

    heads: names of the losses; scaled: whether a loss scaler is at work, which overflows now and then by design.
    """

    heads: Sequence[str]
    scaled: bool
    skipped: int = 0
    in_a_row: int = 0
    last: str = ""
    too_many: bool = False

    @property
    def limit(self) -> int:
        """Skipped steps in a row that end the training."""
        return LIMIT_SCALED if self.scaled else LIMIT

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
        self.too_many |= self.in_a_row >= self.limit  # noted here: steps read together may have sound ones after
        return self.last

    def state_dict(self) -> dict[str, Any]:
        """Return what it has counted."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; a training that this stopped has its whole patience again."""
        self.skipped, self.last = state["skipped"], state["last"]
        self.in_a_row = state["in_a_row"] % self.limit

    def check(self) -> None:
        """Raise `DivergedError` where too many steps in a row were skipped."""
        if not self.too_many:
            return
        more = " o precision = 'fp32'" if self.scaled else ""
        raise DivergedError(
            f"El entrenamiento se detuvo: {self.limit} pasos seguidos sin números finitos ({self.last}). Ninguno se "
            "aplicó: los últimos pesos buenos quedan guardados. Pruebe en otra carpeta (out) con learning_rate y "
            f"head_learning_rate menores, max_grad_norm menor{more}, y revise los avisos de esos pasos."
        )


def describe(what: str, step: int, lr: float, rows: np.ndarray) -> str:
    """Return the Spanish sentence for one skipped step; rows: int64 (rows,), numbers of the useful rows from 0."""
    named = ", ".join(str(row + 1) for row in sorted(rows)[:ROWS_NAMED])
    more = f" y {len(rows) - ROWS_NAMED} más" if len(rows) > ROWS_NAMED else ""
    return f"Paso {step:,}: {what} (tasa {lr:.2g}; filas útiles {named}{more}). El paso no se aplica."
