"""What frozen layers compute for a row never changes: computed once, kept ragged in memory, read every epoch.

Exact given the freezing: frozen layers run without dropout, so every epoch would compute the same again.
"""

import copy
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import nn
from tqdm.auto import tqdm

from ocensa_nb.model import MultiHeadClassifier, layers
from ocensa_nb.precision import autocast
from ocensa_nb.tokens import TokenTable, sorted_batches

BUILD_BATCH = 64
MEMORY_SHARE = 0.5  # of the memory that is free
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class HiddenTable:
    """Hidden states of every token after the frozen layers, ragged as the ids they come from.

    hidden: (tokens, width) in the run's precision, in the order of `tokens.ids`.
    """

    hidden: torch.Tensor
    tokens: TokenTable

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,)."""
        return self.tokens.lengths

    def batch(self, rows: np.ndarray, padding: str = "dynamic") -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states (rows, length, width) and attention mask, int64 (rows, length)."""
        mask = self.tokens.mask(rows, padding)
        offsets = self.tokens.offsets
        padded = self.hidden.new_zeros(*mask.shape, self.hidden.shape[1])
        padded[torch.from_numpy(mask)] = torch.cat([self.hidden[offsets[r] : offsets[r + 1]] for r in rows])
        return padded, torch.from_numpy(mask.astype(np.int64))


def build(
    model: MultiHeadClassifier, tokens: TokenTable, k: int, precision: str
) -> tuple[HiddenTable | TokenTable, str]:
    """Compute the first k layers of every row and let the model start after them.

    Returns the table to train on and, where the cache cannot be had, the ids as they came and why, in Spanish: the
    training goes on without it.
    """
    device = next(model.parameters()).device
    dtype = DTYPES.get(precision, torch.float32)
    width = model.encoder.config.hidden_size
    needed = len(tokens.ids) * width * dtype.itemsize
    if needed > MEMORY_SHARE * psutil.virtual_memory().available:
        return tokens, f"Las capas congeladas ocuparían {needed / 2**30:.1f} GiB y no caben en memoria: no se guardan."
    training = model.training
    model.eval()
    try:
        bottom, top = split_encoder(model.encoder, k)
        if not _agrees(model, bottom, top, tokens):
            return tokens, "Este codificador no deja separar sus capas congeladas: se calculan en cada paso."
        hidden = torch.empty(len(tokens.ids), width, dtype=dtype)
        batches = list(sorted_batches(tokens.lengths, BUILD_BATCH))
        with torch.inference_mode(), autocast(precision, device):
            for rows in tqdm(batches, desc="Capas congeladas, una sola vez", unit="batch", leave=False):
                ids, mask = (tensor.to(device) for tensor in tokens.batch(rows))
                states = bottom(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].to("cpu", dtype)
                starts, lengths = tokens.offsets[rows], tokens.lengths[rows]
                for row, part in zip(starts, states.split(lengths.tolist()), strict=True):
                    hidden[row : row + len(part)] = part
    finally:
        model.train(training)
    model.start_at(top)
    return HiddenTable(hidden, tokens), ""


def split_encoder(encoder: nn.Module, k: int) -> tuple[nn.Module, nn.Module]:
    """Return the encoder's first k layers and the rest, as two encoders over the very same weights.

    The second takes the hidden states of the first as `inputs_embeds`.
    """
    stack = list(layers(encoder))
    bottom, top = _with_layers(encoder, stack[:k]), _with_layers(encoder, stack[k:])
    for name in ("embeddings", "embeddings_project"):  # ELECTRA projects its embeddings
        if name in top._modules:
            top._modules[name] = _PassThrough()
    return bottom, top


class _PassThrough(nn.Module):
    """Stands where the embeddings stood, and gives back the hidden states it is given."""

    def forward(self, *inputs: object, **named: object) -> torch.Tensor:
        candidates = (*inputs, *named.values())
        return next(x for x in candidates if isinstance(x, torch.Tensor) and x.is_floating_point())


def _with_layers(encoder: nn.Module, kept: list[nn.Module]) -> nn.Module:
    """Return a view of the encoder with other layers; only the modules on the way to them are new."""
    stack = layers(encoder)
    path = next(name for name, module in encoder.named_modules() if module is stack).split(".")
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


def _agrees(model: MultiHeadClassifier, bottom: nn.Module, top: nn.Module, tokens: TokenTable) -> bool:
    """Tell whether bottom and top together are the whole encoder, on a few rows; an unknown family may differ."""
    device = next(model.parameters()).device
    ids, mask = (tensor.to(device) for tensor in tokens.batch(np.arange(min(4, len(tokens)))))
    with torch.inference_mode():
        whole = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        try:
            hidden = bottom(input_ids=ids, attention_mask=mask).last_hidden_state
            parts = top(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        except (TypeError, ValueError, RuntimeError, StopIteration, AttributeError):
            return False
    return torch.allclose(whole, parts, atol=1e-4)
