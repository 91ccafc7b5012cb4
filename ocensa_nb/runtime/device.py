"""Move values to a device, synchronize with it, and report its memory."""

from typing import Any

import psutil
import torch


def to_device(value: Any, device: torch.device) -> Any:
    """Move a tensor, or the tensors of a nested list or dict, to a device without waiting for the copy.

    Parameters
    ----------
    value
        A tensor, or lists and dicts of tensors, nested to any depth.
    device
        The target device.

    Returns
    -------
    Any
        The same structure with its tensors on `device`.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return [to_device(item, device) for item in value]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work; a CPU has no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_taken(device: torch.device) -> int:
    """Return the bytes that torch has reserved on a GPU or, for a CPU, the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return psutil.Process().memory_info().rss


def memory_for(device: torch.device) -> int:
    """Return the bytes available to a training: the total memory of a GPU, or the free memory of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().available
