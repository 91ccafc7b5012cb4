"""One optimizer step, and the model, optimizer and data that it needs."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ocensa_nb.config import TrainConfig
from ocensa_nb.data.notices import Notices
from ocensa_nb.encoders.token_table import TokenTable
from ocensa_nb.engine import frozen_features
from ocensa_nb.engine.batching import MicroBatch
from ocensa_nb.engine.fast_dropout import BlockAttention, use_block_dropout
from ocensa_nb.engine.frozen_features import FeatureTable
from ocensa_nb.engine.loss import Objective
from ocensa_nb.engine.oom_retry import MicroBatches, explained
from ocensa_nb.engine.optimizer import build_optimizer, optimizer_state, restore_optimizer, step_if_finite
from ocensa_nb.models import used_vocabulary
from ocensa_nb.models.classifier import MultiHeadClassifier, freeze, trained_weights
from ocensa_nb.runtime.compilation import compiled
from ocensa_nb.runtime.device import to_device
from ocensa_nb.runtime.precision import autocast

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Engine:
    """A model, the table it reads, and what moves its weights; `build` puts one together.

    precision is a resolved one; forward is the model, or its compiled form; attention is the context it runs in.
    """

    model: MultiHeadClassifier
    table: TokenTable | FeatureTable
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: str
    max_grad_norm: float
    device: torch.device
    forward: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]
    attention: AbstractContextManager = field(default_factory=nullcontext)
    micro_batches: MicroBatches = field(default_factory=MicroBatches)

    def step(self, micro_batches: list[MicroBatch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one optimiser step over a whole effective batch; return its losses (heads,) and gradient norm, a scalar.

        Nothing here waits for the device, unless the encoder takes no mask that is ready for attention (transformers 4,
        and the families for which `slices.takes_ready_mask` is False). A norm that is not finite means that the step
        was skipped: weights and moments are as they were.
        """
        micro_batches = to_device(micro_batches, self.device)
        losses = self.micro_batches.run(self.accumulate, micro_batches, self.model)
        self.scaler.unscale_(self.optimizer)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        with explained("los dos momentos de AdamW, que se reservan en el primer paso"):
            if self.scaler.is_enabled():
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                step_if_finite(self.optimizer, norm)
        self.optimizer.zero_grad(set_to_none=True)
        return losses, norm

    def accumulate(self, micro_batches: list[MicroBatch]) -> torch.Tensor:
        """Add the gradients of one whole effective batch, micro-batch by micro-batch; return its losses, (heads,).

        The gradients are those of the batch in one piece, for any cut into micro-batches.
        """
        normalisers = self.objective.normalisers(micro["labels"] for micro in micro_batches)
        total = torch.zeros(len(self.objective.head_weights), device=self.device)
        for micro in micro_batches:
            with autocast(self.precision, self.device), self.attention:
                logits = self.forward(micro["inputs"], micro["attention_mask"])
            losses = self.objective(logits, micro["labels"], normalisers)
            self.scaler.scale(losses.sum()).backward()
            total += losses.detach()
        return total

    def state_dict(self) -> dict[str, Any]:
        """Return what steps change: trained weights, moments, loss scale, and the size of the micro-batches."""
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
    """Return the encoder with one head per label, frozen as the config says; raises `UserError` if it cannot be."""
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
    cache: Path | None = None,
    plain: bool = False,
) -> Engine:
    """Put together what the config asks for; `cache` is where the trunk is kept between runs, None for nowhere.

    The model is changed: its vocabulary may be narrowed (`used_vocabulary.widen` undoes it). `plain` leaves torch's
    own AdamW loop and dropout in place: what a training without this package has, to be measured against. Raises
    `UserError` for what cannot be.
    """
    with explained("los pesos del codificador"):
        model.to(device)
    if not plain:
        use_block_dropout(model)
    if config.used_vocabulary and not config.freeze_layers:
        table = used_vocabulary.narrow(model.encoder, table)
    if config.cls_only and not model.shorten(*to_device(table.sample(), device)):
        logger.warning("Este codificador no deja calcular la última capa solo para [CLS]: se calcula entera.")
    if config.cache_trunk and config.freeze_layers:
        table = frozen_features.build(model, table, config.freeze_layers, precision, cache)
    class_weights = {
        head: torch.tensor(weights, dtype=torch.float32, device=device)
        for head, weights in notices.class_weights.items()
    }
    return Engine(
        model=model,
        table=table,
        objective=Objective(config.heads, class_weights, config.label_smoothing),
        optimizer=build_optimizer(model, config, fused=not plain),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        precision=precision,
        max_grad_norm=config.max_grad_norm,
        device=device,
        forward=compiled(model) if config.compile else model,
        attention=BlockAttention() if device.type == "cpu" and not (plain or config.compile) else nullcontext(),
    )
