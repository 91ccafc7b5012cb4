"""AdamW, a step that skips non-finite gradients, and the learning rate schedule."""

from typing import Any

import torch

from ocensa_nb.config import TrainConfig
from ocensa_nb.models.classifier import MultiHeadClassifier


def build_optimizer(model: MultiHeadClassifier, config: TrainConfig, fused: bool = True) -> torch.optim.AdamW:
    """Return AdamW for trainable weights: one rate for the encoder, one for the heads; no decay on biases, norms."""
    groups = []
    for of_encoder, rate in ((True, config.learning_rate), (False, config.head_learning_rate)):
        for decays in (True, False):
            parameters = [
                p
                for name, p in model.named_parameters()
                if p.requires_grad and name.startswith("encoder.") == of_encoder and (p.ndim > 1) == decays
            ]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW([g for g in groups if g["params"]], fused=fused or None)


def step_if_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """Make a step unless the gradient norm is not finite; decided on the device, without waiting for it."""
    if not optimizer.defaults.get("fused"):
        optimizer.step()
        return
    # A fused optimizer makes no step if `found_inf` is 1: this is how `torch.amp.GradScaler` skips an overflow.
    optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore the moments; raises `ValueError` if they belong to other parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {int(number): values for number, values in state.items()}
    for number, values in moments.items():
        if any(t.ndim and t.shape != parameters[number].shape for t in values.values()):
            raise ValueError("these moments are of other parameters")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


class LinearSchedule:
    """A linear warm-up to each group's rate and a linear decay to zero; `position` counts the optimizer steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_ratio: float, total_steps: int) -> None:
        self.optimizer, self.total_steps = optimizer, total_steps
        self.warmup = int(warmup_ratio * total_steps)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        # a number of the host, so a step does not wait for the device
        self.position = 0
        self.move(0)

    def move(self, steps: int) -> None:
        """Advance by some steps, negative for skipped ones, and set the rates of the next step."""
        self.position += steps
        if self.position < self.warmup:
            factor = (self.position + 1) / (self.warmup + 1)
        else:
            factor = max(0.0, (self.total_steps - self.position) / max(1, self.total_steps - self.warmup))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.move(state["position"] - self.position)
