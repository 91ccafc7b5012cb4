"""The optimiser, its schedule, and when to stop."""

import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.model import MultiHeadClassifier


def build_optimizer(model: MultiHeadClassifier, config: TrainConfig, fused: bool = True) -> torch.optim.AdamW:
    """Return AdamW over what is trained: one rate for encoder, one for heads; no decay on biases and norms."""
    groups = []
    for own, rate in ((True, config.learning_rate), (False, config.head_learning_rate)):
        for decays in (True, False):
            parameters = [
                p
                for name, p in model.named_parameters()
                if p.requires_grad and name.startswith("encoder.") == own and (p.ndim > 1) == decays
            ]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW([g for g in groups if g["params"]], fused=fused or None)


class LinearSchedule:
    """A linear warm-up to each group's own rate and a linear decay to zero over `total_steps`.

    `position` counts the steps the optimiser has made; it is plain host state, so a step costs no wait for the device.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_ratio: float, total_steps: int) -> None:
        self.optimizer, self.total_steps = optimizer, total_steps
        self.warmup = int(warmup_ratio * total_steps)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.position = 0
        self.move(0)

    def move(self, steps: int) -> None:
        """Go on by some steps, or back by those that turned out to be skipped, and set the rates of the next one."""
        self.position += steps
        if self.position < self.warmup:
            factor = (self.position + 1) / (self.warmup + 1)
        else:
            factor = max(0.0, (self.total_steps - self.position) / max(1, self.total_steps - self.warmup))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


class EarlyStopping:
    """Keeps the trainable weights of the best epoch and tells when to stop waiting for a better one."""

    def __init__(self, config: TrainConfig) -> None:
        self.monitor, self.patience, self.min_delta = config.monitor, config.patience, config.min_delta
        self.best_epoch = 0
        self._best = self._to_beat = -float("inf")
        self._waited = 0
        self._weights: dict[str, torch.Tensor] = {}

    def update(self, epoch: int, scores: dict[str, float], model: nn.Module) -> bool:
        """Take in an epoch's scores; return whether `patience` epochs have passed without a gain of `min_delta`."""
        score = scores[self.monitor]
        if score > self._best:
            self._best, self.best_epoch = score, epoch
            self._weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        if score > self._to_beat + self.min_delta:
            self._to_beat, self._waited = score, 0
        else:
            self._waited += 1
        return self._waited >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Put the best epoch's weights back."""
        model.load_state_dict(self._weights, strict=False)
