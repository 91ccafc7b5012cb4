"""Estimate the memory of a training before anything is allocated."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.errors import num
from ocensa_nb.models.catalogue import architecture, untrained
from ocensa_nb.models.classifier import MultiHeadClassifier, freeze
from ocensa_nb.models.last_layer import ClsLayer
from ocensa_nb.models.layers import if_supported, layers
from ocensa_nb.runtime.machine import memory_for

FP32 = 4  # bytes
MEMORY_SHARE = 0.5  # of the memory that is free, on the GPU or beside it, for frozen features
USABLE = 0.9  # of a GPU's memory: the rest is for the CUDA context and what the allocator cannot use
CLASSES = 32  # per label, if there are no notices to count them in: their share of the memory is small
GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step takes on its device, besides the program, the notices and CUDA."""

    weights: int  # parameters, and their copies in half precision
    optimizer: int  # gradients and the two moments of AdamW
    activations: int  # what the largest micro-batch keeps, and the largest layer's intermediate results
    features: int = 0  # frozen features

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.activations + self.features

    def fits(self, memory: float) -> bool:
        return self.total <= USABLE * memory

    def parts(self) -> dict[str, float]:
        """Return the GiB of each part, by its Spanish name."""
        sizes = {"pesos": self.weights, "gradientes y momentos": self.optimizer, "activaciones": self.activations}
        if self.features:
            sizes["capas congeladas"] = self.features
        return {name: size / GIB for name, size in sizes.items()}

    def __str__(self) -> str:
        named = ", ".join(f"{name} {num(size, 2)}" for name, size in self.parts().items())
        return f"{num(self.total / GIB, 2)} GiB ({named})"


def estimate_memory(
    config: TrainConfig,
    model: MultiHeadClassifier,
    lengths: np.ndarray,
    precision: str,
    on_cpu: bool,
    texts: int | None = None,
) -> MemoryEstimate:
    """Return the most memory that one optimizer step takes; `lengths` may be a sample of `texts` texts."""
    half = precision in ("bf16", "fp16")
    width = config.max_length if config.padding == "max_length" else int(lengths.max())
    tokens = config.batch_size * width
    features = 0
    if config.cache_features and model.frozen:
        whole = model.frozen == len(layers(model.encoder))  # then only [CLS] is kept
        rows = len(lengths) if texts is None else texts
        kept_tokens = rows if whole else lengths.mean() * rows
        features = int(kept_tokens * model.encoder.config.hidden_size * (2 if half else FP32))
    return MemoryEstimate(
        weights=FP32 * _count(model) + half * 2 * _trained_matrices(model),
        optimizer=3 * FP32 * _count(model, trained=True),
        activations=int(tokens * _bytes_per_token(config, model, half, width, on_cpu)),
        features=features,
    )


def memory_note(
    config: TrainConfig,
    model: MultiHeadClassifier,
    lengths: np.ndarray,
    precision: str,
    device: torch.device,
    texts: int | None = None,
) -> str:
    """Return, in Spanish, the memory that a training takes on a device and, if it does not fit, what to change."""
    on_cpu, memory = device.type == "cpu", memory_for(device)
    needed = if_supported(lambda: estimate_memory(config, model, lengths, precision, on_cpu, texts))
    if needed is None:
        return "Memoria: no se puede calcular para este codificador."
    if needed.features > MEMORY_SHARE * memory:  # they stay in a file then
        needed = dataclasses.replace(needed, features=0)
    return describe(needed, config, memory, on_cpu)


def describe(needed: MemoryEstimate, config: TrainConfig, memory: int, on_cpu: bool) -> str:
    whole = f"de los {num(memory / GIB, 1)} GiB {'libres en esta máquina' if on_cpu else 'de la GPU'}"
    takes = f"Memoria del entrenamiento: hasta {needed}, {whole}."
    if needed.fits(memory):
        return takes
    per_row = needed.activations / config.batch_size
    fixed = needed.total - needed.activations
    size = config.batch_size // 2
    while size and fixed + size * per_row > USABLE * memory:
        size //= 2
    if not size:
        return f"⚠️ {takes} No cabe ni con un aviso a la vez: congele capas (freeze_layers) o use un codificador menor."
    steps = -(-config.effective_batch_size // size)
    smaller = f"batch_size = {size} y gradient_accumulation_steps = {steps}"
    return f"⚠️ {takes} No cabe: use {smaller}, con el mismo batch efectivo."


def memory_by_recipe(models: Sequence[str], recipes: Sequence[str], memory: float) -> pd.DataFrame:
    """Return what each recipe takes on a GPU for each encoder, with texts as long as the recipe cuts.

    Nothing is downloaded. A row per pair; columns in Spanish: GiB in all and of each part, and whether it fits in
    `memory` bytes.
    """
    rows = {}
    for model, recipe in itertools.product(models, recipes):
        config = from_recipe(recipe, {"model": model})
        encoder = untrained(architecture(model), "meta")
        classifier = MultiHeadClassifier(encoder, dict.fromkeys(config.heads, CLASSES), config.dropout)
        freeze(classifier, config.freeze_layers)
        precision = "fp16" if config.precision == "auto" else config.precision
        needed = estimate_memory(config, classifier, np.array([config.max_length]), precision, on_cpu=False)
        rows[model, recipe] = {
            "GiB": needed.total / GIB,
            **needed.parts(),
            f"cabe en {memory / GIB:.0f} GiB": "sí" if needed.fits(memory) else "no",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["codificador", "receta"])


def _bytes_per_token(
    config: TrainConfig, model: MultiHeadClassifier, half: bool, texts_width: int, on_cpu: bool
) -> float:
    """Return the bytes that a step keeps per token, and those of the layer that is being computed."""
    encoder = model.encoder
    hidden, stack = encoder.config.hidden_size, layers(encoder)
    trained = len(stack) - model.frozen
    size = 2 if half else FP32
    ratio = max(module.out_features for module in stack[0].modules() if isinstance(module, nn.Linear)) / hidden
    mask = size if on_cpu else 1
    # In vectors of width H: the layer's input, query, key, value and their mixture, the inputs of both layer norms and
    # of the feed-forward part, and both sides of its GELU, each `ratio` times as wide. Under autocast query, key and
    # value keep a cast of the input each, and the inputs of the layer norms stay in fp32. Dropout adds two masks.
    layer = (8 + 2 * ratio) * size + half * 2 * FP32 + 2 * mask
    if on_cpu:  # attention is in fp32: query, key, value; the softmax, its dropout mask, and what is left of it
        layer += 3 * (FP32 - size) + 3 * FP32 * encoder.config.num_attention_heads * texts_width / hidden
    kept = 0.0  # vectors of width H, in bytes
    if trained and config.cls_only and if_supported(lambda: ClsLayer(stack[-1])):
        trained -= 1
        kept += 2 * size if half else size  # its input, cast for the scores and for the mixture
    kept += trained * layer
    if not model.frozen:  # the embeddings' layer norm and dropout mask
        kept += FP32 + (FP32 if on_cpu else 1)
    working = (2 * ratio + 2) * size + FP32
    return hidden * (kept + working)


def _count(model: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def _trained_matrices(model: nn.Module) -> int:
    linear = (module for module in model.modules() if isinstance(module, nn.Linear))
    return sum(module.weight.numel() for module in linear if module.weight.requires_grad)
