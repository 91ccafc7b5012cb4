"""The optimiser, its schedule, and when to stop."""

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ocensa_nb.config import TrainConfig
from ocensa_nb.model import MultiHeadClassifier


def build_optimizer(model: MultiHeadClassifier, config: TrainConfig) -> torch.optim.AdamW:
    """Return fused AdamW over what is trained: one rate for encoder, one for heads; no decay on biases and norms."""
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
    return torch.optim.AdamW([g for g in groups if g["params"]], fused=True)


def linear_schedule(optimizer: torch.optim.Optimizer, warmup_ratio: float, total_steps: int) -> LambdaLR:
    """Return a linear warm-up to each group's rate and a linear decay to zero."""
    warmup = int(warmup_ratio * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup))

    return LambdaLR(optimizer, factor)


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
