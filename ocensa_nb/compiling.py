"""`torch.compile` for texts of any length, or the reason why this machine has none."""

from collections.abc import Callable

import torch

from ocensa_nb.errors import UserError
from ocensa_nb.model import MultiHeadClassifier


def compiled(model: MultiHeadClassifier) -> Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the model's forward, compiled once for every length.

    Raises `UserError` where a product of two numbers cannot be compiled: no C++ compiler, no Triton, or a version of
    Python that torch does not compile yet.
    """
    device = next(model.parameters()).device
    try:
        probe = torch.compile(lambda x: x * 2.0, dynamic=True)
        probe(torch.ones(4, device=device))
    except Exception as error:  # each missing tool has an exception of its own
        raise UserError(
            f"compile = True no puede ser en esta máquina: {str(error).strip().splitlines()[0][:200]} En CPU hace "
            "falta un compilador de C++ (g++ o MSVC), y en GPU, Triton. Use compile = False."
        ) from error
    return torch.compile(model, dynamic=True)
