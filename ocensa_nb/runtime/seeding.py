"""The random state a training draws from: set, kept, put back."""

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed every source of chance a training touches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> list[torch.Tensor]:
    """Return the state of torch's generators, the CPU's first and then every GPU's."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def restore_random_state(state: list[torch.Tensor]) -> None:
    """Put back what `random_state` returned, as far as there are GPUs."""
    torch.set_rng_state(state[0])
    for number, one in enumerate(state[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, number)
