"""Moving values to a device, and waiting for it."""

from typing import Any

import torch


def to_device(value: Any, device: torch.device) -> Any:
    """Move a tensor, or those of a list or a dict, to the device without waiting for the copy."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return [to_device(item, device) for item in value]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
