"""Reasons to stop before the last epoch: no better one for a while, or steps without finite numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.errors import DivergedError
from ocensa_nb.models.classifier import trained_weights

LIMIT = 3  # skipped steps in a row: without a scaler, the weights do not change and the next step fails too
LIMIT_SCALED = 25  # the scaler halves its scale at each: from 65,536 to far below 1


class EarlyStopping:
    """Store the trainable weights of the best epoch and decide when to stop."""

    def __init__(self, config: TrainConfig) -> None:
        self.monitor, self.patience, self.min_delta = config.monitor, config.patience, config.min_delta
        self.best_epoch = 0
        self.best = self.to_beat = -1.0  # metrics go from 0 to 1
        self.waited = 0
        self.weights: dict[str, torch.Tensor] = {}

    def update(self, epoch: int, scores: dict[str, float], model: nn.Module) -> bool:
        """Record the scores of an epoch; return whether `patience` epochs passed without a gain of `min_delta`."""
        score = scores[self.monitor]
        if score > self.best:
            self.best, self.best_epoch = score, epoch
            # On the CPU: a GPU may have no room for a second copy.
            self.weights = {name: weight.to("cpu", copy=True) for name, weight in trained_weights(model).items()}
        if score > self.to_beat + self.min_delta:
            self.to_beat, self.waited = score, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, model: nn.Module) -> None:
        model.load_state_dict(self.weights, strict=False)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


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
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counters; a training that this guard stopped may skip `limit` steps again."""
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
