"""Frozen features, the output of the frozen layers: computed once per text, stored without padding, read every epoch.

Frozen layers run without dropout, so every epoch would compute the same values. In bf16 and fp16 they are stored in
that precision, which rounds the residual stream into the first trained layer.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch

from ocensa_nb.engine.memory import MEMORY_SHARE
from ocensa_nb.engine.out_of_memory import explained, run_in_pieces
from ocensa_nb.errors import num
from ocensa_nb.models.classifier import MultiHeadClassifier, sha256
from ocensa_nb.models.layers import if_supported, in_eval_mode, layers
from ocensa_nb.models.tokens import TokenTable, padded_index, scoring_batches
from ocensa_nb.runs import array_cache
from ocensa_nb.runtime.distributed import ALONE, World
from ocensa_nb.runtime.logs import progress
from ocensa_nb.runtime.machine import out_of_memory, to_device, width_multiple
from ocensa_nb.runtime.precision import full_fp32, without_gradients

logger = logging.getLogger(__name__)

LAYOUT = 3  # version of the stored format; files of another version are not read
GIB = 2**30
SAMPLE = "calcular unos pocos avisos con el codificador"
# numpy has no bfloat16, so the file holds its bits.
DTYPES = {"bf16": (torch.bfloat16, np.int16), "fp16": (torch.float16, np.float16)}
FP32 = (torch.float32, np.float32)


@dataclass(frozen=True)
class FrozenFeatures:
    """Hidden states after the frozen layers, without padding; rows with the same text share an entry."""

    hidden: torch.Tensor  # (tokens, width), in the precision of the run; in memory, in a mapped file, or on the GPU
    offsets: np.ndarray  # int64 (entries + 1,): the first token of each entry
    entry: np.ndarray  # int64 (rows,): the entry of each row
    lengths: np.ndarray  # int64 (rows,): the tokens of each row's text
    key: str = ""  # runs with the same key share them; empty if they are in memory only
    reused: bool = False  # an earlier run computed them

    def __len__(self) -> int:
        return len(self.entry)

    def widths(self, padding: str) -> np.ndarray:
        return self.lengths

    def batch(self, rows: np.ndarray, padding: str = "dynamic", multiple: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden states (rows, length, width) and attention mask, int64 (rows, length).

        Padding repeats the last token of a row, which the mask hides; it is always dynamic, to a `multiple`.
        """
        index, mask = padded_index(self.offsets, self.entry[rows], 0, multiple)
        index = to_device(torch.from_numpy(index), self.hidden.device)
        states = self.hidden.index_select(0, index.flatten()).view(*index.shape, -1)
        return states, torch.from_numpy(mask.astype(np.int64))


def build(
    model: MultiHeadClassifier,
    tokens: TokenTable,
    k: int,
    precision: str,
    folder: Path | None = None,
    world: World = ALONE,
) -> FrozenFeatures | TokenTable:
    """Compute the first k layers of every distinct text, and let the model start after them.

    Returns `tokens`, with the reason logged, if the encoder cannot be split or there is no room for the features.
    `folder` keeps them for other runs; without one they are in memory only. Values beyond fp16 make them fp32.
    """
    try:
        return _build(model, tokens, k, precision, folder, world)
    except OverflowError:
        logger.warning(
            "Capas congeladas: dan valores mayores que el máximo de fp16 (65 504), que se perderían. Se calculan otra "
            "vez, en fp32, y ocupan el doble."
        )
        return _build(model, tokens, k, "fp32", folder, world)


def _build(
    model: MultiHeadClassifier, tokens: TokenTable, k: int, precision: str, folder: Path | None, world: World
) -> FrozenFeatures | TokenTable:
    device = next(model.parameters()).device
    texts, entry = tokens.unique()
    whole = k == len(layers(model.encoder))  # nothing but [CLS] is read after the last layer
    offsets = np.arange(len(texts) + 1) if whole else texts.offsets
    dtype, stored = DTYPES.get(precision, FP32)
    shape = (int(offsets[-1]), model.encoder.config.hidden_size)
    size = shape[0] * shape[1] * dtype.itemsize
    if not world.all(_try_features_from(model, tokens, k)):
        logger.warning("Este codificador no permite separar sus capas congeladas: se calculan en cada paso.")
        return tokens

    def fill(array: np.ndarray) -> None:
        if not world.all(compute(model, texts, offsets, k, precision, torch.from_numpy(array).view(dtype), world)):
            raise OverflowError

    key = _key(model, texts, k, precision, device) if folder else ""
    array = array_cache.read(folder, key, shape, stored) if folder else None
    reused = world.all(array is not None)
    if reused:
        logger.info(f"Capas congeladas: {num(size / GIB, 2)} GiB, ya calculadas en {folder}.")
    else:
        array = _store(folder, key, shape, stored, fill) if folder and world.size == 1 else None
    if array is None:
        if not world.all(_fits_in_memory(size, world)):
            logger.warning(
                f"Las capas congeladas ocuparían {num(size / GIB, 2)} GiB y no caben en memoria"
                f"{' ni en disco' if folder and world.size == 1 else ''}: se calculan en cada paso."
            )
            return tokens
        why = ": no hay espacio en disco para guardarlas" if folder else ""
        how = f"las calculan {world.size} procesos" if world.size > 1 else f"solo en memoria{why}"
        logger.info(f"Capas congeladas: {num(size / GIB, 2)} GiB, {how}.")
        array = np.zeros(shape, stored)
        fill(array)
        kept = False
        if world.size > 1:
            world.sum([torch.from_numpy(array.view(np.int32))])  # the bits of each text come from one process only
            copy = partial(np.copyto, src=array)
            kept = bool(folder) and world.on_first(lambda: _store(folder, key, shape, stored, copy) is not None)
        key = key if kept else ""
    hidden = _place(torch.from_numpy(array).view(dtype), device, world)
    return FrozenFeatures(hidden, offsets, entry, tokens.lengths, key, reused)


def _store(
    folder: Path, key: str, shape: tuple[int, int], dtype: type[np.generic], fill: Callable[[np.ndarray], None]
) -> np.ndarray | None:
    """Fill a new file of the cache and return its array; None if there is no room, or it cannot be written."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not array_cache.make_room(folder, size):
        return None
    logger.info(f"Capas congeladas: {num(size / GIB, 2)} GiB, se calculan y se guardan en {folder}.")
    with contextlib.suppress(OSError):
        with array_cache.write(folder, key, shape, dtype) as array:
            fill(array)
            del array  # Windows renames no file that is mapped
        return array_cache.read(folder, key, shape, dtype)
    return None


def compute(
    model: MultiHeadClassifier,
    texts: TokenTable,
    offsets: np.ndarray,
    k: int,
    precision: str,
    hidden: torch.Tensor,
    world: World = ALONE,
) -> bool:
    """Fill `hidden`, (tokens, width), with the output of the first k layers for this process's share of the texts.

    Returns whether fp16, if it is that, holds all the values.
    """
    device = next(model.parameters()).device
    frozen_forward = model.frozen_forward(k)
    fits = True

    def fill(rows: np.ndarray) -> None:
        nonlocal fits
        ids, mask = to_device(list(texts.batch(rows, multiple=width_multiple(device))), device)
        states = frozen_forward(ids, mask)
        states = states[mask[:, : states.shape[1]].bool()].to("cpu", hidden.dtype)
        index, inside = padded_index(offsets, rows)
        fits = fits and (hidden.dtype != torch.float16 or bool(states.isfinite().all()))
        hidden[torch.from_numpy(index[inside])] = states

    batches = list(scoring_batches(texts.lengths, device))[world.rank :: world.size]
    with in_eval_mode(model), without_gradients(model, precision, device):
        run_in_pieces(fill, progress(batches, "Capas congeladas, una sola vez", "batch"))
    return fits


def _place(hidden: torch.Tensor, device: torch.device, world: World) -> torch.Tensor:
    """Return the states in the fastest storage with room for them: GPU, memory, or the mapped file."""
    size = hidden.nbytes
    if device.type == "cuda" and size < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        try:
            return hidden.to(device)
        except RuntimeError as error:  # the free memory may be in pieces
            if not out_of_memory(error):
                raise
    return hidden.clone() if _fits_in_memory(size, world) else hidden


def _fits_in_memory(size: int, world: World) -> bool:
    return size * world.local_size < MEMORY_SHARE * psutil.virtual_memory().available


def _try_features_from(model: MultiHeadClassifier, tokens: TokenTable, k: int) -> bool:
    """Make the model accept features from layer k; return whether the function is the same (families differ)."""
    device = next(model.parameters()).device
    ids, mask = to_device(tokens.sample(), device)

    def in_parts() -> dict[str, torch.Tensor]:
        model.accept_features_from(k)
        hidden = model.frozen_forward(k)(ids, mask)
        return model(hidden, mask[:, : hidden.shape[1]])

    with in_eval_mode(model), torch.inference_mode(), full_fp32(), explained(SAMPLE):
        whole, parts = model(ids, mask), if_supported(in_parts)
        return parts is not None and all(torch.allclose(whole[head], parts[head], atol=1e-4) for head in whole)


def _key(model: MultiHeadClassifier, texts: TokenTable, k: int, precision: str, device: torch.device) -> str:
    shape = {n: v for n, v in model.encoder.config.to_dict().items() if n not in ("_name_or_path", "architectures")}
    weights = sha256((name, p) for name, p in model.encoder.named_parameters() if not p.requires_grad)
    parts = (LAYOUT, sorted(shape.items(), key=str), k, precision, device.type, weights, texts.sha256())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
