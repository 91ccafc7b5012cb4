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
    """Return the state of torch's generators: the CPU's first, then one per GPU."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def own_random_state() -> list[torch.Tensor]:
    """Return the state of the CPU's generator and of the current GPU's: those of one of several processes."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def restore_own_random_state(state: list[torch.Tensor]) -> None:
    """Restore the state from `own_random_state`, on the current GPU."""
    torch.set_rng_state(state[0])
    if len(state) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[1])


def restore_random_state(state: list[torch.Tensor]) -> None:
    """Restore the state from `random_state`; states of GPUs that do not exist are ignored."""
    torch.set_rng_state(state[0])
    for number, one in enumerate(state[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, number)
