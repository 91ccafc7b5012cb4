"""Parts of an encoder that run on their own: its stack of layers, and slices of it over the very same weights."""

import copy

import torch
import transformers
from torch import nn

from ocensa_nb.errors import UserError

# From a mask (rows, tokens) transformers asks the device whether it masks anything, and waits for the answer. Since
# version 5 it takes one ready for attention, (rows, 1, 1, tokens), as it is.
TAKES_READY_MASKS = int(transformers.__version__.split(".")[0]) >= 5


def layer_stack(encoder: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the stack of transformer layers and its name: the longest list of modules of one type with weights.

    BERT, RoBERTa and ELECTRA keep it in `encoder.layer`, DistilBERT in `transformer.layer`. Raises `UserError` if
    there is none.
    """
    stacks = [
        (name, module)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(m) for m in module}) == 1 and _has_weights(module)
    ]
    if not stacks:
        raise UserError(
            f"No se reconocen las capas de este codificador ({type(encoder).__name__}); use freeze_layers = 0."
        )
    return max(stacks, key=lambda found: len(found[1]))


def layers(encoder: nn.Module) -> nn.ModuleList:
    """Return the stack of transformer layers; see `layer_stack`."""
    return layer_stack(encoder)[1]


class Slice:
    """Layers `start` to `stop` of an encoder, over its own weights; from 0, its embeddings come first.

    Without bounds it is the encoder itself, whatever its family.
    """

    def __init__(self, encoder: nn.Module, start: int = 0, stop: int | None = None) -> None:
        self.nothing = start == stop and start > 0
        self.cut = stop is not None
        self.view = encoder
        if self.cut:
            self.view = _with_layers(encoder, list(layers(encoder))[start:stop])
        if start:
            for name in ("embeddings", "embeddings_project"):  # ELECTRA projects its embeddings
                if name in self.view._modules:
                    self.view._modules[name] = _PassThrough()

    def __call__(self, inputs: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Take ids, int64 (rows, tokens), or from a later layer on hidden states (rows, tokens, width), and a mask.

        Returns hidden states (rows, tokens, width).
        """
        if self.nothing:
            return inputs
        kind = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
        if TAKES_READY_MASKS and self.cut:
            attention_mask = attention_mask[:, None, None, :].bool()
        return self.view(**{kind: inputs}, attention_mask=attention_mask).last_hidden_state


class _PassThrough(nn.Module):
    """Stands where the embeddings stood, and gives back the hidden states it is given."""

    def forward(self, *inputs: object, **named: object) -> torch.Tensor:
        candidates = (*inputs, *named.values())
        return next(x for x in candidates if isinstance(x, torch.Tensor) and x.is_floating_point())


def _with_layers(encoder: nn.Module, kept: list[nn.Module]) -> nn.Module:
    """Return a view of the encoder with other layers; only the modules on the way to them are new."""
    path = layer_stack(encoder)[0].split(".")
    view = node = _shallow(encoder)
    for name in path[:-1]:
        node._modules[name] = _shallow(node._modules[name])
        node = node._modules[name]
    node._modules[path[-1]] = nn.ModuleList(kept)
    return view


def _shallow(module: nn.Module) -> nn.Module:
    view = copy.copy(module)
    view._modules = dict(module._modules)
    return view


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
