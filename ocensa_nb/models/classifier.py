"""The classifier: an encoder, one shared layer and one small head per label; freezing of the lower layers."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ocensa_nb.errors import UserError, num
from ocensa_nb.models.last_layer import ClsLayer, last_layer
from ocensa_nb.models.layers import Slice, if_supported, in_eval_mode, layers, takes_ready_mask
from ocensa_nb.runtime.precision import full_fp32

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ForwardPath:
    """Compute the encoder's output at the first position, the only one the heads read."""

    body: Slice
    last: ClsLayer | Slice | None = None

    def __call__(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.body(inputs, attention_mask)
        return (self.last(hidden, attention_mask) if self.last else hidden)[:, 0]


class MultiHeadClassifier(nn.Module):
    """Encoder → hidden state of `[CLS]` → shared layer → one two-layer head per label.

    `classes` is the number of classes per head. `dropout` applies in the shared layer and the heads. `frozen` is the
    number of lower layers that are not trained.
    """

    frozen = 0

    def __init__(self, encoder: "PreTrainedModel", classes: Mapping[str, int], dropout: float) -> None:
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder = encoder
        self.shared = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout))
        self.heads = nn.ModuleDict({name: _head(hidden, count, dropout) for name, count in classes.items()})
        self._ready_mask = takes_ready_mask(encoder)
        self._from_ids = self._from_hidden = ForwardPath(self._slice())

    def forward(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the fp32 logits (rows, classes) per head, from token ids, int64 (rows, tokens), or hidden states."""
        path = self._from_hidden if inputs.is_floating_point() else self._from_ids
        shared = self.shared(path(inputs, attention_mask))
        return {name: head(shared).float() for name, head in self.heads.items()}

    def shorten(self, ids: torch.Tensor, attention_mask: torch.Tensor) -> bool:
        """Compute the last layer for `[CLS]` only from now on; return whether the encoder supports it."""

        def shortened() -> ForwardPath | None:
            stack = layers(self.encoder)
            path = ForwardPath(self._slice(0, len(stack) - 1), last_layer(self.encoder, self._ready_mask))
            first = path(ids, attention_mask)
            # Another family may use the same names for another computation. On `meta` there are no values to compare.
            same = whole.shape == first.shape and (ids.is_meta or torch.allclose(whole, first, atol=1e-4))
            return path if same else None

        with in_eval_mode(self), torch.inference_mode(), full_fp32():
            whole = self._from_ids(ids, attention_mask)
            path = if_supported(shortened)
        self._from_ids = path or self._from_ids
        return path is not None

    def accept_features_from(self, k: int) -> None:
        """Accept the hidden states after layer k as input too; of `[CLS]` only after the last layer."""
        depth = len(layers(self.encoder))
        last = self._from_ids.last if k < depth else None
        self._from_hidden = ForwardPath(self._slice(k, depth - 1 if last else depth), last)

    def frozen_forward(self, k: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return a function from ids and mask to hidden states after layer k; of `[CLS]` only after the last layer."""
        if k == len(layers(self.encoder)):
            return lambda ids, attention_mask: self._from_ids(ids, attention_mask)[:, None]
        return self._slice(0, k)

    def _slice(self, start: int = 0, stop: int | None = None) -> Slice:
        return Slice(self.encoder, self._ready_mask, start, stop)

    def train(self, mode: bool = True) -> "MultiHeadClassifier":
        """Set training mode, but keep frozen modules in eval mode, so that they apply no dropout."""
        super().train(mode)
        for module in self.encoder.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self


def freeze(model: MultiHeadClassifier, freeze_layers: int) -> None:
    """Freeze the lower layers and all that their output depends on; `UserError` if that is impossible.

    A negative number freezes all layers but as many.
    """
    model.requires_grad_(True)
    model.frozen = 0
    if freeze_layers:
        stack = layers(model.encoder)
        model.frozen = k = freeze_layers + len(stack) * (freeze_layers < 0)
        if not 0 < k <= len(stack):
            depth = len(stack)
            raise UserError(
                f"freeze_layers = {freeze_layers}: este codificador tiene {depth} capas; use de {1 - depth} a {depth}."
            )
        # Besides the embeddings there may be a table of relative positions for all layers (DeBERTa, MPNet).
        for parameter in [*_feeding(model.encoder, k), *stack[:k].parameters()]:
            parameter.requires_grad_(False)
    model.train(model.training)


def _feeding(encoder: nn.Module, k: int) -> list[torch.Tensor]:
    """Return the parameters that the hidden states after layer k depend on; after the last, the encoder's output."""
    stack = layers(encoder)
    ids = torch.arange(8, device=next(encoder.parameters()).device)[None] % encoder.config.vocab_size
    outputs: list[torch.Tensor | tuple[torch.Tensor, ...]] = []
    hook = stack[k - 1].register_forward_hook(lambda layer, inputs, output: outputs.append(output))

    def states() -> torch.Tensor:
        # Embeddings without a mask: no version of transformers reads their values, so it works on `meta` too.
        whole = encoder(inputs_embeds=encoder.get_input_embeddings()(ids)).last_hidden_state
        after_k = outputs[0] if torch.is_tensor(outputs[0]) else outputs[0][0]
        return whole if k == len(stack) else after_k

    try:
        with in_eval_mode(encoder), torch.enable_grad():
            computed = if_supported(states)
    finally:
        hook.remove()
    if computed is None:
        raise UserError(
            f"No se pueden congelar las capas de este codificador ({type(encoder).__name__}); use freeze_layers = 0."
        )
    return _leaves(computed)


def _leaves(output: torch.Tensor) -> list[torch.Tensor]:
    leaves, seen, pending = [], set(), [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # the node that accumulates the gradient of a leaf
            leaves.append(node.variable)
        pending += [previous for previous, _ in node.next_functions]
    return leaves


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the trainable parameters by name; they share memory with the model."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def sha256(parameters: Iterable[tuple[str, nn.Parameter]]) -> str:
    digest = hashlib.sha256()
    for name, parameter in parameters:
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) parameters."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trainable in counts if trainable), sum(n for n, _ in counts)


def describe_parameters(model: nn.Module) -> str:
    trainable, total = count_parameters(model)
    return f"Parámetros: {num(trainable)} entrenables de {num(total)} totales ({num(100 * trainable / total, 1)}%)"


def _head(hidden: int, classes: int, dropout: float) -> nn.Sequential:
    half = max(hidden // 2, 16)
    return nn.Sequential(nn.Linear(hidden, half), nn.GELU(), nn.Dropout(dropout), nn.Linear(half, classes))
