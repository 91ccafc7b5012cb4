"""Read and write safetensors files: atomic writes, and reads that run no code from the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ocensa_nb.errors import UserError
from ocensa_nb.files.atomic import atomic_write
from ocensa_nb.files.verify import require_regular

STATE = "state"


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
