"""Early stopping: keep the weights of the best epoch, and stop when none is better for a while."""

from typing import Any

import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.models.classifier import trained_weights


class EarlyStopping:
    """Store the trainable weights of the best epoch and decide when to stop."""

    def __init__(self, config: TrainConfig) -> None:
        self.monitor, self.patience, self.min_delta = config.monitor, config.patience, config.min_delta
        self.best_epoch = 0
        self._best = self._to_beat = -1.0  # metrics go from 0 to 1
        self._waited = 0
        self._weights: dict[str, torch.Tensor] = {}

    def update(self, epoch: int, scores: dict[str, float], model: nn.Module) -> bool:
        """Record the scores of an epoch; return whether `patience` epochs passed without a gain of `min_delta`."""
        score = scores[self.monitor]
        if score > self._best:
            self._best, self.best_epoch = score, epoch
            # On the CPU: a GPU may have no room for a second copy.
            self._weights = {name: weight.to("cpu", copy=True) for name, weight in trained_weights(model).items()}
        if score > self._to_beat + self.min_delta:
            self._to_beat, self._waited = score, 0
        else:
            self._waited += 1
        return self._waited >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Restore the weights of the best epoch."""
        model.load_state_dict(self._weights, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the best scores, the counters and the stored weights."""
        return {
            "best_epoch": self.best_epoch,
            "best": self._best,
            "to_beat": self._to_beat,
            "waited": self._waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `state_dict`."""
        self.best_epoch, self._best = state["best_epoch"], state["best"]
        self._to_beat, self._waited, self._weights = state["to_beat"], state["waited"], state["weights"]
