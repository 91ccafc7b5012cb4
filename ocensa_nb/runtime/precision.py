"""How a model is computed: the number format of a run, and `torch.compile`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from ocensa_nb.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


@cache
def fastest_on_cpu() -> str:
    """Return `bf16` if a layer's matrix products run at least 10 % faster in bf16 than in fp32, else `fp32`."""
    import torch

    draw = torch.Generator().manual_seed(0)  # not the global one: measuring must not change the training's state
    rows, weights = (torch.randn(shape, generator=draw) for shape in ((512, 768), (768, 768)))

    def seconds(count: int, repeats: int) -> tuple[list[float], list[float]]:
        times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
        products = {dtype: (rows[:count].to(dtype), weights.to(dtype)) for dtype in times}
        for _ in range(repeats):
            for dtype, (a, b) in products.items():
                start = time.perf_counter()
                a @ b
                times[dtype].append(time.perf_counter() - start)
        fp32, bf16 = map(sorted, times.values())
        return fp32, bf16

    # Without instructions for bf16, a product of the full size can take a hundred times as long: ask a small one first.
    fp32, bf16 = seconds(16, 5)
    if bf16[0] > 3 * fp32[0]:
        return "fp32"
    fp32, bf16 = seconds(512, 40)
    return "bf16" if bf16[20] < 0.9 * fp32[20] else "fp32"


def resolve_precision(precision: str, device: "torch.device") -> str:
    """Return the precision that a device uses for a requested one.

    On CUDA, `auto` is bf16 from compute capability 8.0, else fp16; on a CPU it is measured. Raises `UserError` if
    `tf32` is requested without a GPU of compute capability 8.0 or higher.
    """
    if precision == "auto" and device.type != "cuda":
        return fastest_on_cpu()
    if precision in ("auto", "bf16") and device.type == "cuda":
        # an older GPU emulates bf16 at the speed of fp32 or slower
        return "bf16" if _is_ampere(device) else "fp16"
    if precision == "tf32" and not _is_ampere(device):
        raise UserError("precision = 'tf32' necesita una GPU NVIDIA Ampere o más nueva; use 'auto' o 'fp32'.")
    return precision


def _is_ampere(device: "torch.device") -> bool:
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def replacement_note(requested: str, used: str, device: "torch.device") -> str:
    """Return a warning, in Spanish, if the requested precision was replaced or is slow here; "" otherwise."""
    if requested == "bf16" and used == "bf16" and device.type == "cpu" and fastest_on_cpu() == "fp32":
        return "⚠️ Esta CPU no calcula más rápido en bf16 que en fp32: aquí bf16 no ahorra tiempo."
    if requested in ("auto", used) or (requested == "tf32" and _is_ampere(device)):
        return ""
    where = "Esta GPU" if device.type == "cuda" else "Esta CPU"
    return f"⚠️ {where} no tiene {requested} propio, y emularlo es lento: se calcula en {used}."


def unavailable(device: "torch.device") -> dict[str, str]:
    """Return the precisions that a device lacks or runs slower than fp32, each with the reason in Spanish."""
    if device.type == "cpu":
        gpu = "hace falta una GPU"
        return {"fp16": f"fp16: en CPU es más lento que fp32; {gpu}", "tf32": f"tf32: {gpu} NVIDIA Ampere o más nueva"}
    if _is_ampere(device):
        return {}
    return {name: f"{name}: hace falta una GPU NVIDIA Ampere o más nueva; use fp16" for name in ("tf32", "bf16")}


def scoring_precision(trained: str, device: "torch.device") -> str:
    """Return the training precision if this device supports it for inference, else a replacement."""
    if device.type == "cpu" and trained != "fp32":
        return fastest_on_cpu()
    # its values may exceed the range of fp16
    if device.type == "cuda" and trained == "bf16" and not _is_ampere(device):
        return "fp32"
    return trained if trained != "tf32" else "fp32"


def autocast(precision: str, device: "torch.device") -> contextlib.AbstractContextManager:
    """Return the autocast context of a resolved precision; fp32 and tf32 need none."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


@contextlib.contextmanager
def without_gradients(model: "nn.Module", precision: str, device: "torch.device") -> Iterator[None]:
    """Compute under autocast and without gradients inside the block; each weight is cast once, not once per batch."""
    import torch

    # Autocast keeps the cast of a leaf only if it requires a gradient, and keeps none in inference mode
    # (pytorch/pytorch#165068).
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    with torch.no_grad(), autocast(precision, device):
        for parameter in frozen:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)


@contextlib.contextmanager
def full_fp32() -> Iterator[None]:
    """Disable TF32 inside the block, to compare two implementations of a computation."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def allow_tf32(precision: str) -> None:
    """Allow TF32 in fp32 matrix products if `precision` is `tf32`; this sets a process-wide option of torch."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def require_compiler(device: "torch.device") -> None:
    """Raise `UserError` if `torch.compile` does not work on a device: no C++ compiler, no Triton, or another Python."""
    import torch

    try:
        torch.compile(lambda x: x * 2.0, dynamic=True)(torch.ones(4, device=device))
    except Exception as error:  # each missing tool raises a different exception
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"compile = True no es posible en esta máquina: {reason[:200]} En CPU hace falta un compilador de "
            "C++ (g++ o MSVC), y en GPU, Triton. Use compile = False."
        ) from error


def compiled(model: "nn.Module") -> Callable[["torch.Tensor", "torch.Tensor"], dict[str, "torch.Tensor"]]:
    import torch

    return torch.compile(model, dynamic=True)
