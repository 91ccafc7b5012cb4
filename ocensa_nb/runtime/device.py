"""Move values to a device, synchronize with it, and report its memory."""

from typing import Any

import psutil
import torch

# What torch's messages contain: of a GPU's driver ("CUDA error: out of memory") and of torch's own allocator, of the
# system's on Linux and macOS, and on Windows, and of cuBLAS and cuDNN.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
# Of the driver, cuBLAS and cuDNN.
DEVICE_ERRORS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "HIP error")


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


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch ran out of memory; on a CPU and in a GPU driver only the message of the error tells."""
    return isinstance(error, torch.OutOfMemoryError) or _says(error, OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """Return whether torch raised an error because of the device, and not of what was computed."""
    return out_of_memory(error) or _says(error, DEVICE_ERRORS)


def _says(error: BaseException, messages: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)


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
