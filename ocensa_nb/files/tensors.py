"""Read and write safetensors files: atomic writes, and reads that run no code from the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.verify import require_regular

STATE = "state"
LARGEST = 1e9  # no number of a run comes near; what is computed from smaller ones is finite
OTHER_RUN = "El archivo «{path}» no es de esta corrida, o está dañado. Recupere una copia o vuelva a entrenar."


def write(path: Path, tensors: Mapping[str, torch.Tensor], state: Any = None) -> None:
    with atomic_write(path) as temporary:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, temporary, {STATE: json.dumps(state)})


def read(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the tensors, on the CPU, and the JSON value of a file, or None; `UserError` if it is damaged."""
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            # Copied: a memory-mapped tensor would keep the file open and change with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, json.loads((file.metadata() or {}).get(STATE, "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"El archivo «{path}» falta o está dañado: {error}.") from error


def read_arrays(path: Path, kinds: Mapping[str, tuple[Any, ...]]) -> tuple[dict[str, np.ndarray], Any]:
    """Return tensors of a file as arrays, and its JSON value; raises `UserError` if they are not of the stated kinds.

    A kind is a type and the dimensions; those that have a name are equal wherever it is used. The numbers
    are below `LARGEST`.
    """
    stored, state = read(path)
    sizes: dict[str, int] = {}
    for name, (dtype, *dimensions) in kinds.items():
        tensor = stored.get(name, torch.zeros(()))
        named = zip(dimensions, tensor.shape, strict=False)
        sizes = {dimension: size for dimension, size in named if isinstance(dimension, str)} | sizes
        kind = dtype, [sizes.get(dimension, dimension) for dimension in dimensions]
        if (tensor.dtype, [*tensor.shape]) != kind or not (tensor.abs() < LARGEST).all():
            raise UserError(OTHER_RUN.format(path=path))
    return {name: stored[name].numpy() for name in kinds}, state
