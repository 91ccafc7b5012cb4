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
    draw = torch.Generator().manual_seed(0)  # not the training's: whether it was measured before must change nothing
    shapes = ((512, 768), (768, 768))
    products = {dtype: [torch.randn(shape, dtype=dtype, generator=draw) for shape in shapes] for dtype in seconds}
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
    """Return the precision that a device computes in for a requested one.

    On CUDA, `auto` is bf16 from compute capability 8.0, else fp16; on a CPU it is measured. Before 8.0 a GPU emulates
    bf16 at fp32's speed or worse, so bf16 becomes fp16 there. Raises `UserError` for tf32 without a GPU of capability
    8.0 or more.
    """
    if precision == "auto" and device.type != "cuda":
        return fastest_on_cpu()
    if precision in ("auto", "bf16") and device.type == "cuda":
        return "bf16" if _is_ampere(device) else "fp16"
    if precision == "tf32" and not _is_ampere(device):
        raise UserError("precision = 'tf32' necesita una GPU NVIDIA Ampere o más nueva; use 'auto' o 'fp32'.")
    return precision


def _is_ampere(device: "torch.device") -> bool:
    """Return whether a device is a GPU with bf16 and TF32 units: compute capability 8.0 or more."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def replacement_note(requested: str, used: str, device: "torch.device") -> str:
    """Say in Spanish that a run computes in another precision than requested, or slowly in it; "" otherwise."""
    if requested == "bf16" and used == "bf16" and device.type == "cpu" and fastest_on_cpu() == "fp32":
        return "⚠️ Esta CPU no calcula más rápido en bf16 que en fp32: bf16 solo pierde exactitud aquí."
    if requested in ("auto", used) or (requested == "tf32" and _is_ampere(device)):
        return ""
    where = "Esta GPU" if device.type == "cuda" else "Esta CPU"
    return f"⚠️ {where} no tiene {requested} propio, y emularlo es lento: se calcula en {used}."


def unavailable(device: "torch.device") -> dict[str, str]:
    """Return the precisions that a device has not, or has only more slowly than fp32, each with why, in Spanish."""
    if device.type == "cpu":
        gpu = "hace falta una GPU"
        return {"fp16": f"fp16: en CPU es más lento que fp32; {gpu}", "tf32": f"tf32: {gpu} NVIDIA Ampere o más nueva"}
    if _is_ampere(device):
        return {}
    return {name: f"{name}: hace falta una GPU NVIDIA Ampere o más nueva; use fp16" for name in ("tf32", "bf16")}


def scoring_precision(trained: str, device: "torch.device") -> str:
    """Return the precision to score in: the one trained in if this device has it, else this device's own.

    A run of a GPU may be opened on a CPU, where fp16 is slow, tf32 does not exist, and bf16 may be emulated. What was
    trained in bf16 is scored in fp32 on a GPU without bf16, because its values may be beyond the range of fp16.
    `trained` is resolved.
    """
    if device.type == "cpu" and trained != "fp32":
        return fastest_on_cpu()
    if device.type == "cuda" and trained == "bf16" and not _is_ampere(device):
        return "fp32"
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
