"""One optimizer step: its loss, independent of the split into micro-batches, and the model, optimizer and data."""

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.engine import frozen_features
from ocensa_nb.engine.batching import MicroBatch
from ocensa_nb.engine.frozen_features import FrozenFeatures
from ocensa_nb.engine.optimizer import build_optimizer, restore_optimizer, step_if_finite
from ocensa_nb.engine.out_of_memory import accumulate_in_pieces, explained
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


@dataclass(frozen=True)
class Objective:
    """Weighted sum over heads of the mean cross-entropy of an effective batch.

    For one head PyTorch's weighted mean is sum_i(w[y_i] * loss_i) / sum_i(w[y_i]). The denominator is summed over all
    micro-batches and processes first, and each micro-batch adds its numerator over it. The usual average per
    micro-batch gives a row a weight that depends on the other rows of its micro-batch.
    """

    head_weights: Mapping[str, float]
    class_weights: Mapping[str, torch.Tensor]  # (classes,) per head; 1 if its classes are not weighted
    label_smoothing: float

    def normalisers(self, micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
        """Return the sum of class weights over the labels of the micro-batches, (heads,); there may be none."""
        sums = []
        for head in self.head_weights:
            weights = self.class_weights[head]
            rows = (weights[micro["labels"][head]].sum() for micro in micro_batches)
            sums.append(sum(rows, start=weights.new_zeros(())))
        return torch.stack(sums)

    def __call__(
        self, logits: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor], normalisers: torch.Tensor
    ) -> torch.Tensor:
        """Return the contribution of a micro-batch to the loss of its step, (heads,)."""
        shares = []
        for (head, weight), normaliser in zip(self.head_weights.items(), normalisers, strict=True):
            summed = functional.cross_entropy(
                logits[head],
                labels[head],
                self.class_weights[head],
                label_smoothing=self.label_smoothing,
                reduction="sum",
            )
            shares.append(weight / normaliser * summed)
        return torch.stack(shares)


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
    world: World = ALONE  # the processes that share each effective batch
    pieces: int = 1  # each micro-batch is cut into so many, because a larger one did not fit in memory

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
        normalisers = self.objective.normalisers(micro_batches)
        self.world.sum([normalisers])
        losses, self.pieces = accumulate_in_pieces(
            lambda cut: self.accumulate(cut, normalisers), micro_batches, self.pieces, self.model
        )
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

    def accumulate(self, micro_batches: list[MicroBatch], normalisers: torch.Tensor | None = None) -> torch.Tensor:
        """Accumulate the gradients of an effective batch, however it is split, and return its losses, (heads,)."""
        if normalisers is None:
            normalisers = self.objective.normalisers(micro_batches)
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
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "pieces": self.pieces,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; raises `ValueError` or `RuntimeError` if it belongs to another model."""
        if set(state["weights"]) != set(trained_weights(self.model)):
            raise ValueError("other weights are trained here")
        self.model.load_state_dict(state["weights"], strict=False)
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.pieces = state["pieces"]


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
    if config.cache_features and model.frozen:
        table = frozen_features.build(model, table, model.frozen, precision, folder, world)
    class_weights = {
        head: torch.tensor(notices.class_weights.get(head, np.ones(len(names))), dtype=torch.float32, device=device)
        for head, names in notices.classes.items()
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
