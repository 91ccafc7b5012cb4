"""How much memory a training takes, computed from the shapes of the model and the batches before anything is allocated.

Per token and trained layer of width H, with a feed-forward part r times as wide, backpropagation keeps 8 + 2r vectors
of width H. In fp32 they are the layer's input, query, key, value and their mixture, the inputs of both layer norms and
of the feed-forward part, and both sides of its GELU. Under autocast query, key and value keep a cast of the input each,
and the inputs of the layer norms, which stay in fp32, come on top; so does a half-precision copy of each trained
matrix. Dropout adds two masks. `tests/test_memory_estimate.py` compares this with the tensors that autograd saves, and
with the peak of a whole step.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from ocensa_nb.cls_layer import ClsLayer
from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.encoders import architecture, untrained
from ocensa_nb.model import MultiHeadClassifier, freeze
from ocensa_nb.slices import layers

FP32 = 4  # bytes
USABLE = 0.9  # of a GPU's memory: the rest is for the CUDA context and what the allocator cannot use
CLASSES = 32  # per label, if there are no notices to count them in: their share of the memory is small
GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step takes on the device where it computes, besides the program, the notices and CUDA.

    weights: parameters, and their copies in half precision; optimizer: gradients and the two moments of AdamW;
    activations: what the largest micro-batch keeps for backpropagation, and the largest layer's intermediate results.
    """

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.optimizer + self.activations

    def fits(self, memory: float) -> bool:
        """Return whether it fits in a GPU with so many bytes."""
        return self.total <= USABLE * memory

    def __str__(self) -> str:
        parts = {"pesos": self.weights, "gradientes y momentos": self.optimizer, "activaciones": self.activations}
        named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
        return f"{self.total / GIB:.2f} GiB ({named})"


def estimate_memory(
    config: TrainConfig, model: MultiHeadClassifier, lengths: np.ndarray, precision: str, on_cpu: bool
) -> MemoryEstimate:
    """Return the memory that one optimiser step takes at most.

    Parameters
    ----------
    config
        Its `batch_size` is the micro-batch that is in memory at once.
    model
        The classifier, frozen as the config asks; it may be on the device `meta`.
    lengths
        Tokens of each text, int64 (rows,), cut at `max_length`.
    precision
        A resolved one; see `precision.resolve_precision`.
    on_cpu
        Whether it computes on a CPU, where attention with dropout keeps its scores and dropout masks are not bytes.

    Returns
    -------
    MemoryEstimate
        For BERT-like encoders; other families may differ.
    """
    half = precision in ("bf16", "fp16")
    width = config.max_length if config.padding == "max_length" else int(lengths.max())
    tokens = config.batch_size * width
    return MemoryEstimate(
        weights=FP32 * _count(model) + half * 2 * _trained_matrices(model),
        optimizer=3 * FP32 * _count(model, trained=True),
        activations=int(tokens * _bytes_per_token(config, model, half, width, on_cpu)),
    )


def describe(estimate: MemoryEstimate, config: TrainConfig, memory: float, place: str) -> str:
    """Return, in Spanish, what a training takes of a memory in bytes and, if it does not fit, what to change.

    `place` names whose memory it is, in Spanish: «de la GPU».
    """
    whole = f"de los {memory / GIB:.1f} GiB {place}, además de lo que ocupa el programa"
    found = f"Memoria de un paso: hasta {estimate}, {whole}."
    if estimate.fits(memory):
        return found
    fixed = estimate.weights + estimate.optimizer
    size = config.batch_size
    while size > 1 and fixed + estimate.activations * size / config.batch_size > USABLE * memory:
        size //= 2
    if fixed + estimate.activations * size / config.batch_size > USABLE * memory:
        return (
            f"⚠️ {found} No cabe ni aviso por aviso: congele capas (freeze_layers) o elija un codificador más pequeño."
        )
    steps = -(-config.effective_batch_size // size)
    return (
        f"⚠️ {found} No cabe: use batch_size = {size} y gradient_accumulation_steps = {steps}, con el mismo batch "
        "efectivo. Si no, se hará al quedarse sin memoria."
    )


def memory_by_recipe(models: Sequence[str], recipes: Sequence[str], memory: float) -> pd.DataFrame:
    """Return what each recipe takes on a GPU for each encoder of the catalogue, with texts as long as the recipe cuts.

    Parameters
    ----------
    models, recipes
        Names of the catalogue and of `RECIPES`. Nothing is downloaded.
    memory
        Bytes of the GPU that the last column compares with.

    Returns
    -------
    DataFrame
        A row per pair; columns in Spanish: GiB in all and of each part, and whether it fits.
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
            "pesos": needed.weights / GIB,
            "gradientes y momentos": needed.optimizer / GIB,
            "activaciones": needed.activations / GIB,
            f"cabe en {memory / GIB:.0f} GiB": "sí" if needed.fits(memory) else "no",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["codificador", "receta"])


def _bytes_per_token(
    config: TrainConfig, model: MultiHeadClassifier, half: bool, texts_width: int, on_cpu: bool
) -> float:
    """Return the bytes that a step keeps per token, and those of the layer that is being computed."""
    encoder = model.encoder
    hidden, stack = encoder.config.hidden_size, layers(encoder)
    trained = len(stack) - config.freeze_layers
    size = 2 if half else FP32
    ratio = max(module.out_features for module in stack[0].modules() if isinstance(module, nn.Linear)) / hidden
    mask = size if on_cpu else 1
    layer = (8 + 2 * ratio) * size + half * 2 * FP32 + 2 * mask
    if on_cpu:  # softmax in fp32, its dropout mask, and what is left of it
        layer += (FP32 + 2 * size) * encoder.config.num_attention_heads * texts_width / hidden
    kept = 0.0  # vectors of width H, in bytes
    if trained and config.cls_only and _can_be_short(stack[-1]):
        trained -= 1
        kept += 2 * size if half else size  # its input, cast for the scores and for the mixture
    kept += trained * layer
    if not config.freeze_layers:  # the embeddings' layer norm and dropout mask
        kept += FP32 + (FP32 if on_cpu else 1)
    working = (2 * ratio + 2) * size + FP32
    return hidden * (kept + working)


def _can_be_short(layer: nn.Module) -> bool:
    try:
        ClsLayer(layer)
    except AttributeError:
        return False
    return True


def _count(model: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def _trained_matrices(model: nn.Module) -> int:
    linear = (module for module in model.modules() if isinstance(module, nn.Linear))
    return sum(module.weight.numel() for module in linear if module.weight.requires_grad)
