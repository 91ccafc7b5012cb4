"""`torch.compile` for batches of any sequence length, and a check that this machine supports it."""

from collections.abc import Callable

import torch
from torch import nn

from ocensa_nb.errors import UserError


def require_compiler(device: torch.device) -> None:
    """Check that `torch.compile` works on a device by compiling a small function.

    Parameters
    ----------
    device
        The device that the model will run on.

    Raises
    ------
    UserError
        If compilation fails: no C++ compiler, no Triton, or a Python version that torch does not support.
    """
    try:
        torch.compile(lambda x: x * 2.0, dynamic=True)(torch.ones(4, device=device))
    except Exception as error:  # each missing tool raises a different exception
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"compile = True no es posible en esta máquina: {reason[:200]} En CPU hace falta un compilador de "
            "C++ (g++ o MSVC), y en GPU, Triton. Use compile = False."
        ) from error


def compiled(model: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the model compiled once for all sequence lengths (dynamic shapes); see `require_compiler`."""
    return torch.compile(model, dynamic=True)
