"""One optimizer step, and the model, optimizer and data that it needs."""

import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import frozen_features
from ocensa_nb.engine.batching import MicroBatch
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.loss import Objective
from ocensa_nb.engine.oom_retry import MicroBatches, explained
from ocensa_nb.engine.optimizer import build_optimizer, optimizer_state, restore_optimizer, step_if_finite
from ocensa_nb.models.classifier import MultiHeadClassifier, freeze, trained_weights
from ocensa_nb.models.layers import use_block_dropout
from ocensa_nb.models.tokens import TokenTable
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.machine import to_device
from ocensa_nb.runtime.precision import autocast, compiled

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Fast(enum.Flag):
    """The implementations that replace torch's defaults; a benchmark switches them one by one."""

    NONE = 0
    FUSED_ADAMW = enum.auto()
    BLOCK_DROPOUT = enum.auto()
    ALL = FUSED_ADAMW | BLOCK_DROPOUT


@dataclass
class Engine:
    """Everything that one optimizer step needs; `build` creates it."""

    model: MultiHeadClassifier
    table: TokenTable | FrozenFeatures
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # disabled unless the precision is fp16
    precision: str
    max_grad_norm: float
    device: torch.device
    forward: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]
    micro_batches: MicroBatches = field(default_factory=MicroBatches)
    world: World = ALONE  # the processes that share each effective batch

    def step(self, micro_batches: list[MicroBatch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one optimizer step over the micro-batches of an effective batch.

        Several processes make it together, each with its micro-batches, possibly none. It does not wait for the device,
        unless the encoder accepts no prepared attention mask (see `layers.takes_ready_mask`).

        Returns
        -------
        losses : Tensor of shape (heads,), float32
            The weighted loss of each head, over the whole effective batch.
        norm : Tensor, scalar
            The gradient norm before clipping. If it is not finite, weights and moments are unchanged.
        """
        micro_batches = to_device(micro_batches, self.device)
        normalisers = self.world.total(self.objective.normalisers(micro["labels"] for micro in micro_batches))
        accumulate = partial(self.accumulate, normalisers=normalisers)
        losses = self.micro_batches.run(accumulate, micro_batches, self.model)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._sum_gradients(trained, losses)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        with explained("los dos momentos de AdamW, que se reservan en el primer paso"):
            if self.scaler.is_enabled():
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                step_if_finite(self.optimizer, norm)
        self.optimizer.zero_grad(set_to_none=True)
        return losses, norm

    def accumulate(
        self, micro_batches: list[MicroBatch], normalisers: dict[str, torch.Tensor | float] | None = None
    ) -> torch.Tensor:
        """Accumulate the gradients of an effective batch, however it is split, and return its losses, (heads,)."""
        normalisers = normalisers or self.objective.normalisers(micro["labels"] for micro in micro_batches)
        total = torch.zeros(len(self.objective.head_weights), device=self.device)
        for micro in micro_batches:
            with autocast(self.precision, self.device):
                logits = self.forward(micro["inputs"], micro["attention_mask"])
            losses = self.objective(logits, micro["labels"], normalisers)
            self.scaler.scale(losses.sum()).backward()
            total += losses.detach()
        return total

    def _sum_gradients(self, trained: list[nn.Parameter], losses: torch.Tensor) -> None:
        if self.world.size > 1:
            self.scaler.scale(losses)  # its scale is created on first use, and there may have been no micro-batch
            for parameter in trained:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self.world.sum([losses, *(parameter.grad for parameter in trained)])

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": trained_weights(self.model),
            "optimizer": optimizer_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "pieces": self.micro_batches.pieces,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; raises `ValueError` or `RuntimeError` if it belongs to another model."""
        if set(state["weights"]) != set(trained_weights(self.model)):
            raise ValueError("other weights are trained here")
        self.model.load_state_dict(state["weights"], strict=False)
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.micro_batches.pieces = state["pieces"]


def classifier(config: TrainConfig, notices: Notices, encoder: "PreTrainedModel") -> MultiHeadClassifier:
    """Return the classifier of a config, with its lower layers frozen; raises `UserError` if that is impossible."""
    sizes = {head: len(names) for head, names in notices.classes.items()}
    model = MultiHeadClassifier(encoder, sizes, config.dropout)
    freeze(model, config.freeze_layers)
    return model


def build(
    config: TrainConfig,
    notices: Notices,
    table: TokenTable,
    model: MultiHeadClassifier,
    precision: str,
    device: torch.device,
    folder: Path | None = None,
    fast: Fast = Fast.ALL,
    world: World = ALONE,
) -> Engine:
    """Create the engine of a config, ready for its first step.

    The model is moved to the device, and its dropout may be replaced. `precision` is resolved, not `auto`. `folder`
    keeps frozen features for later runs. Raises `UserError` if the weights do not fit in memory.
    """
    with explained("los pesos del codificador"):
        model.to(device)
    if Fast.BLOCK_DROPOUT in fast:
        use_block_dropout(model)
    with explained(frozen_features.SAMPLE):
        shortened = config.cls_only and model.shorten(*to_device(table.sample(), device))
    if config.cls_only and not shortened:
        logger.warning("Este codificador no permite calcular la última capa solo para [CLS]: se calcula entera.")
    if config.cache_features and config.freeze_layers:
        table = frozen_features.build(model, table, config.freeze_layers, precision, folder, world)
    class_weights = {
        head: torch.tensor(weights, dtype=torch.float32, device=device)
        for head, weights in notices.class_weights.items()
    }
    return Engine(
        model=model,
        table=table,
        objective=Objective(config.heads, class_weights, config.label_smoothing),
        optimizer=build_optimizer(model, config, fused=Fast.FUSED_ADAMW in fast),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        precision=precision,
        max_grad_norm=config.max_grad_norm,
        device=device,
        forward=compiled(model) if config.compile else model,
        world=world,
    )
