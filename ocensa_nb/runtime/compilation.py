"""`torch.compile` for texts of any length, or the reason why this machine has none."""

from collections.abc import Callable

import torch
from torch import nn

from ocensa_nb.errors import UserError


def require_compiler(device: torch.device) -> None:
    """Raise `UserError` where nothing can be compiled: no C++ compiler, no Triton, or a Python torch is too old for."""
    try:
        torch.compile(lambda x: x * 2.0, dynamic=True)(torch.ones(4, device=device))
    except Exception as error:  # each missing tool has an exception of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"compile = True no es posible en esta máquina: {reason[:200]} En CPU hace falta un compilador de "
            "C++ (g++ o MSVC), y en GPU, Triton. Use compile = False."
        ) from error


def compiled(model: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the model's forward, compiled once for every length; see `require_compiler`."""
    return torch.compile(model, dynamic=True)
