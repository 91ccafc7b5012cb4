"""Parts of an encoder that run on their own: its stack of layers, and slices of it over the very same weights."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

from ocensa_nb.errors import UserError
from ocensa_nb.runtime.device import device_failed

# What an encoder raises when it is called in a way that its family does not support.
NOT_SUPPORTED = (UserError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError)


class NotSupportedError(Exception):
    """The family of an encoder does not support a call."""


@contextlib.contextmanager
def unsupported_as_error() -> Iterator[None]:
    """Raise `NotSupportedError` for what an encoder raises in the block if its family does not support a call.

    Insufficient memory and a failing device are no property of the family: those errors are raised as they are.
    """
    try:
        yield
    except NOT_SUPPORTED as error:
        if device_failed(error):
            raise
        raise NotSupportedError from error


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


def takes_ready_mask(encoder: nn.Module) -> bool:
    """Return whether an encoder gives the same outputs for a mask that is ready for attention, (rows, 1, 1, tokens).

    transformers turns a mask (rows, tokens) into such a one, for which it asks the device whether anything is masked
    and waits for the answer, once per forward. Since version 5 BERT-like families take a ready mask as it is; others
    reject it or read it differently, so both are compared. On the device `meta` there are no values to compare: False.
    """
    device = next(encoder.parameters()).device
    if device.type == "meta":
        return False
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]], device=device)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode(), unsupported_as_error():
            plain = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            ready = encoder(input_ids=ids, attention_mask=_ready(mask)).last_hidden_state
            return torch.allclose(plain[mask.bool()], ready[mask.bool()], atol=1e-5)
    except NotSupportedError:
        return False
    finally:
        encoder.train(training)


class Slice:
    """Layers `start` to `stop` of an encoder, over its own weights; from 0, its embeddings come first.

    Without bounds it is the encoder itself, whatever its family. ready_mask: see `takes_ready_mask`.
    """

    def __init__(self, encoder: nn.Module, ready_mask: bool, start: int = 0, stop: int | None = None) -> None:
        self.nothing = start == stop and start > 0
        self.ready_mask = ready_mask
        self.view = encoder
        if stop is not None:
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
        if inputs.is_meta:
            # No value can be read there: every version of transformers reads a mask, and version 4 ids without one.
            embedded = inputs if kind == "inputs_embeds" else self.view.get_input_embeddings()(inputs)
            with inputs.device:  # DistilBERT makes a constant tensor in version 4
                return self.view(inputs_embeds=embedded).last_hidden_state
        if self.ready_mask:
            attention_mask = _ready(attention_mask)
        return self.view(**{kind: inputs}, attention_mask=attention_mask).last_hidden_state


class _PassThrough(nn.Module):
    """Stands where the embeddings stood, and gives back the hidden states it is given."""

    def forward(self, *inputs: object, **named: object) -> torch.Tensor:
        candidates = (*inputs, *named.values())
        return next(x for x in candidates if isinstance(x, torch.Tensor) and x.is_floating_point())


def _ready(attention_mask: torch.Tensor) -> torch.Tensor:
    return attention_mask[:, None, None, :].bool()


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
