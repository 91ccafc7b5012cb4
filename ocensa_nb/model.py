"""The classifier: an encoder, one shared layer, a small head for each label; and freezing its lower part."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ocensa_nb.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MultiHeadClassifier(nn.Module):
    """Encoder → hidden state of `[CLS]` → shared layer → one two-layer head a label.

    classes: number of classes of each head. `forward` takes int64 (rows, tokens) ids and mask and returns, a head,
    fp32 logits (rows, classes), whatever the precision of the rest; see `start_at` for the other input it takes.
    """

    def __init__(self, encoder: "PreTrainedModel", classes: Mapping[str, int], dropout: float) -> None:
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder = encoder
        self.shared = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout))
        self.heads = nn.ModuleDict({name: _head(hidden, count, dropout) for name, count in classes.items()})

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every head, from ids or from the hidden states after the frozen layers."""
        if inputs.is_floating_point():
            hidden = self._top[0](inputs_embeds=inputs, attention_mask=attention_mask).last_hidden_state
        else:
            hidden = self.encoder(input_ids=inputs, attention_mask=attention_mask).last_hidden_state
        shared = self.shared(hidden[:, 0])
        return {name: head(shared).float() for name, head in self.heads.items()}

    def start_at(self, top: nn.Module) -> None:
        """Take, from now on, hidden states as input too; `top` is the rest of the encoder, over its own weights."""
        self._top = (top,)  # in a tuple, so that its weights are not counted twice

    def train(self, mode: bool = True) -> "MultiHeadClassifier":
        """Set training mode, but leave frozen modules in eval: what is frozen must not drop anything out."""
        super().train(mode)
        if mode:
            _freeze_mode(self.encoder)
        return self


def layers(encoder: nn.Module) -> nn.ModuleList:
    """Return the stack of transformer layers, found by structure: the longest list of like modules with weights.

    BERT, RoBERTa and ELECTRA keep it in `encoder.layer`, DistilBERT in `transformer.layer`.
    """
    stacks = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.ModuleList) and len({type(m) for m in module}) == 1 and _has_weights(module)
    ]
    if not stacks:
        raise UserError(
            f"No se reconocen las capas de este codificador ({type(encoder).__name__}); use freeze_layers = 0."
        )
    return max(stacks, key=len)


def freeze(model: MultiHeadClassifier, k: int) -> None:
    """Freeze the embeddings and the first k layers; with k = 0 everything is trained.

    What is registered before layer k in the encoder feeds it, and is frozen; what comes after is trained.
    Raises `UserError` for more layers than there are.
    """
    model.requires_grad_(True)
    if k:
        stack = layers(model.encoder)
        if not 0 <= k <= len(stack):
            raise UserError(f"freeze_layers = {k}: este codificador tiene {len(stack)} capas; use de 0 a {len(stack)}.")
        kept = {id(p) for layer in list(stack)[k:] for p in layer.parameters()}
        last_frozen = {id(p) for p in stack[k - 1].parameters()}
        parameters = list(model.encoder.parameters())
        depth = max(i for i, p in enumerate(parameters) if id(p) in last_frozen)
        for parameter in parameters[: depth + 1]:
            parameter.requires_grad_(id(parameter) in kept)
    model.train(model.training)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) parameters."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trainable in counts if trainable), sum(n for n, _ in counts)


def describe_parameters(model: nn.Module) -> str:
    """Return the parameter count as the guide prints it, in Spanish."""
    trainable, total = count_parameters(model)
    return f"Parámetros: {trainable:,} entrenables de {total:,} totales ({100 * trainable / total:.1f}%)"


def _head(hidden: int, classes: int, dropout: float) -> nn.Sequential:
    half = max(hidden // 2, 16)
    return nn.Sequential(nn.Linear(hidden, half), nn.GELU(), nn.Dropout(dropout), nn.Linear(half, classes))


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _freeze_mode(module: nn.Module) -> None:
    """Put every module whose weights are all frozen in eval mode, from the top down."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        module.eval()
    else:
        for child in module.children():
            _freeze_mode(child)
