"""Which arithmetic a run uses: what the device computes fastest, and the autocast context of it."""

import contextlib
import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from ocensa_nb.errors import UserError

if TYPE_CHECKING:
    import torch


@cache
def fastest_on_cpu() -> str:
    """Return `bf16` where a matrix product of a layer's size runs faster in it than in fp32, else `fp32`.

    Takes a fraction of a second, once a process. The median of interleaved repeats is compared, and bf16, which
    rounds, must win by a tenth to be worth it.
    """
    import torch

    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    products = {dtype: (torch.randn(512, 768, dtype=dtype), torch.randn(768, 768, dtype=dtype)) for dtype in seconds}
    for repeat in range(12):
        for dtype, (a, b) in products.items():
            start = time.perf_counter()
            for _ in range(4):
                a @ b
            if repeat > 1:  # the first two warm the caches and the kernels up
                seconds[dtype].append(time.perf_counter() - start)
    fp32, bf16 = (sorted(s)[len(s) // 2] for s in seconds.values())
    return "bf16" if bf16 < 0.9 * fp32 else "fp32"


def resolve_precision(precision: str, device: "torch.device") -> str:
    """Turn `auto` into the precision this device computes fastest, and refuse what it cannot do.

    On CUDA: bf16 from compute capability 8.0, else fp16. On CPU: measured. Raises `UserError` for tf32 without a
    GPU of capability 8.0 or more.
    """
    import torch

    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if ampere else "fp16"
        return fastest_on_cpu()
    if precision == "tf32" and not ampere:
        raise UserError("precision = 'tf32' necesita una GPU NVIDIA Ampere o más nueva; use 'auto' o 'fp32'.")
    return precision


def unavailable(device: "torch.device") -> dict[str, str]:
    """Return the precisions that a device has not, or has only more slowly than fp32, each with why, in Spanish."""
    import torch

    if device.type == "cpu":
        gpu = "hace falta una GPU"
        return {"fp16": f"fp16: en CPU es más lento que fp32; {gpu}", "tf32": f"tf32: {gpu} NVIDIA Ampere o más nueva"}
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return {}
    return {name: f"{name}: hace falta una GPU NVIDIA Ampere o más nueva; use fp16" for name in ("tf32", "bf16")}


def scoring_precision(trained: str, device: "torch.device") -> str:
    """Return the precision to score in: the one trained in where this device has it, else this device's own.

    trained: a resolved precision. A run of a GPU may be opened on a CPU, where fp16 is slow and tf32 does not exist.
    """
    if device.type == "cpu" and trained in ("fp16", "tf32"):
        return resolve_precision("auto", device)
    return trained if trained != "tf32" else "fp32"


def autocast(precision: str, device: "torch.device") -> contextlib.AbstractContextManager:
    """Return the autocast context of a resolved precision; fp32 and tf32 need none."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Compute fp32 products in full inside the block, so that two ways of computing the same can be compared."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def allow_tf32(precision: str) -> None:
    """Let fp32 matrix products on the GPU use TF32 cores, or not; a process-wide switch of torch."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
