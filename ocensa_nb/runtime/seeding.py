"""Seed the random generators of a training; save and restore their state."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the random generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> list[torch.Tensor]:
    """Return the state of torch's generators: the CPU's, and that of the GPU that this process uses, if any."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def restore_random_state(state: list[torch.Tensor]) -> None:
    """Restore the state from `random_state`; that of a GPU is ignored if there is none."""
    torch.set_rng_state(state[0])
    if len(state) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[1])
