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


def total_memory(device: torch.device) -> tuple[int, str]:
    """Return the bytes of memory of a GPU, or of the machine for a CPU, and in Spanish whose they are."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory, "de la GPU"
    return psutil.virtual_memory().total, "del equipo"
