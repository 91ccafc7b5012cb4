"""Moving values to a device, waiting for it, and the memory that is taken there."""

from typing import Any

import psutil
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


def memory_taken(device: torch.device) -> int:
    """Return the bytes this process holds on a GPU, between steps too, or, where it computes on the CPU, in memory."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return psutil.Process().memory_info().rss


def memory_for(device: torch.device) -> int:
    """Return the bytes that a training may take: those of the GPU, or those that are free on the machine for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().available
