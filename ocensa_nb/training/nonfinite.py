"""Skip non-finite steps, name their head and rows, and raise after N in a row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocensa_nb.errors import DivergedError

LIMIT = 3  # skipped steps in a row: without a scaler, the weights do not change and the next step fails too
LIMIT_SCALED = 25  # the scaler halves its scale at each: from 65,536 to far below 1
ROWS_NAMED = 8


@dataclass
class NonFiniteGuard:
    """Count the steps skipped because of a loss or a gradient that is not finite."""

    heads: Sequence[str]
    scaled: bool
    skipped: int = 0
    in_a_row: int = 0
    last: str = ""
    too_many: bool = False

    @property
    def limit(self) -> int:
        """The number of skipped steps in a row that ends the training."""
        return LIMIT_SCALED if self.scaled else LIMIT

    def see(self, losses: Sequence[float], norm: float) -> str:
        """Record the losses, one per head, and the gradient norm of a step; return in Spanish what is wrong, or ""."""
        each = zip(self.heads, losses, strict=True)
        bad = [f"la pérdida de «{head}» es {loss}" for head, loss in each if not math.isfinite(loss)]
        if not bad and math.isfinite(norm):
            self.in_a_row = 0
            return ""
        self.skipped += 1
        self.in_a_row += 1
        self.last = " y ".join(bad) or f"la norma del gradiente es {norm}"
        self.too_many |= self.in_a_row >= self.limit  # set here: of the steps read together, later ones may be finite
        return self.last

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counters; a training that was stopped by this guard may skip `limit` steps again."""
        self.skipped, self.last = state["skipped"], state["last"]
        self.in_a_row = state["in_a_row"] % self.limit

    def check(self) -> None:
        """Raise `DivergedError` if too many steps in a row were skipped."""
        if not self.too_many:
            return
        more = " o precision = 'fp32'" if self.scaled else ""
        raise DivergedError(
            f"El entrenamiento se detuvo: {self.limit} pasos seguidos sin números finitos ({self.last}). Ninguno se "
            "aplicó: los últimos pesos buenos quedan guardados. Pruebe en otra carpeta (out) con learning_rate y "
            f"head_learning_rate menores, max_grad_norm menor{more}, y revise los avisos de esos pasos."
        )


def describe(what: str, step: int, lr: float, rows: np.ndarray) -> str:
    """Return the Spanish message for one skipped step; rows: int64 (rows,), numbers of the useful rows from 0."""
    named = ", ".join(str(row + 1) for row in sorted(rows)[:ROWS_NAMED])
    more = f" y {len(rows) - ROWS_NAMED} más" if len(rows) > ROWS_NAMED else ""
    return f"Paso {step:,}: {what} (tasa {lr:.2g}; filas útiles {named}{more}). El paso no se aplica."
