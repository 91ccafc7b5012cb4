"""The machine: its platform and hardware, the recipe for them, and the memory and errors of its device."""

import importlib.metadata
import os
import platform as _platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.config import TrainConfig, from_recipe
from ocensa_nb.errors import num
from ocensa_nb.runtime import precision

if TYPE_CHECKING:
    import torch

# What torch's messages contain: of a GPU's driver ("CUDA error: out of memory") and of torch's own allocator, of the
# system's on Linux and macOS, and on Windows, and of cuBLAS and cuDNN.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
# Of the driver, cuBLAS and cuDNN.
DEVICE_ERRORS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "HIP error")
VERSIONED = ("torch", "transformers", "tokenizers", "scikit-learn", "pandas", "numpy")


@dataclass(frozen=True)
class Hardware:
    """The hardware of this machine. Memory and disk are in GiB."""

    platform: str
    system: str
    python: str
    cores: int
    ram_gib: float
    disk_free_gib: float
    gpu: str = ""
    gpu_gib: float = 0.0
    capability: str = ""
    gpu_usable: bool = False
    fp16: bool = False
    bf16: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def platform() -> str:
    """Return `colab`, `kaggle` or `local`."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # first: Kaggle's image is made from Colab's, and inherits its variable
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules else "local"


def cores() -> int:
    """Return the number of cores available to this process: its CPU affinity, limited by the quota of its cgroup."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(Path("/sys/fs/cgroup/cpu.max"))))


def _quota(limit: Path) -> int:
    """Return the CPU limit of a cgroup in cores, rounded down; `sys.maxsize` if there is no limit."""
    try:
        # Linux kernel documentation, "Control Group v2", cpu.max: `$MAX $PERIOD` in microseconds, or `max`
        quota, period = limit.read_text(encoding="ascii").split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return sys.maxsize


def physical_cores() -> int:
    import psutil

    return min(cores(), psutil.cpu_count(logical=False) or sys.maxsize)


def threads() -> int:
    """Return the number of threads for torch: one per available physical core, at most `torch.get_num_threads()`."""
    import torch

    return min(physical_cores(), torch.get_num_threads())


def has_kernels(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Return whether a torch build has kernels for a GPU."""
    # `sm_75` runs on the same major version with the same or a newer minor one; `compute_75` is compiled at run time
    # for any newer GPU: CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
    for kind, digits in (m.groups() for a in architectures if (m := re.match(r"(sm|compute)_(\d+)", a))):
        built = (int(digits[:-1]), int(digits[-1]))
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def hardware() -> Hardware:
    """Return the hardware of this machine; the free disk space is that of the current folder."""
    import psutil
    import torch

    facts: dict[str, Any] = {
        "platform": platform(),
        "system": f"{_platform.system()} {_platform.machine()}",
        "python": _platform.python_version(),
        "cores": cores(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / 2**30, 1),
    }
    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        usable = has_kernels(capability, torch.cuda.get_arch_list())
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
            "capability": ".".join(map(str, capability)),
            "gpu_usable": usable,
            "fp16": usable and capability >= (7, 0),
            "bf16": usable and capability >= (8, 0),
        }
    return Hardware(**facts)


def versions() -> dict[str, str]:
    """Return the installed version of each package that affects a result."""
    return {name: importlib.metadata.version(name) for name in VERSIONED}


def device() -> "torch.device":
    """Return the GPU if this torch build has kernels for it, else the CPU."""
    import torch

    usable = torch.cuda.is_available() and has_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    return torch.device("cuda" if usable else "cpu")


def visible_gpus() -> list[str]:
    """Return the usable GPUs, each as `CUDA_VISIBLE_DEVICES` names it; none if this torch build has no kernels."""
    import torch

    count = torch.cuda.device_count() if device().type == "cuda" else 0
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name.strip() for name in names.split(",")][:count] if names else [str(i) for i in range(count)]


def recommend(machine: Hardware) -> tuple[str, str]:
    """Return the recommended recipe for a machine and the reason, in Spanish."""
    if machine.gpu and not machine.gpu_usable:
        why = f"la GPU {machine.gpu} no sirve con esta versión de PyTorch: cambie el entorno a GPU T4"
        return "cpu", f"{why}; mientras tanto se entrena en CPU."
    if machine.gpu_usable and machine.gpu_gib >= 12:
        return (
            "t4",
            f"hay una GPU {machine.gpu} con {num(machine.gpu_gib, 1)} GiB: batches de 64, sin congelar capas.",
        )
    if machine.gpu_usable:
        return "t4-small", f"la GPU {machine.gpu} tiene {num(machine.gpu_gib, 1)} GiB: micro-batches de 16, acumulados."
    return "cpu", "no hay GPU: se congelan las capas bajas y se entrena en CPU con el formato numérico más rápido."


def chosen_recipe(recipe: str) -> str:
    return recommend(hardware())[0] if recipe == "auto" else recipe


def configure(recipe: str, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the validated config of a recipe; `auto` is the recommended one for this machine.

    `overrides` replaces values by field name; None keeps the value of the recipe. Raises `UserError` for an unknown
    recipe or field, or a value that is not valid.
    """
    chosen = {name: value for name, value in (overrides or {}).items() if value is not None}
    return from_recipe(chosen_recipe(recipe), chosen)


def describe(machine: Hardware) -> dict[str, str]:
    """Return the hardware and the package versions as a table for the user, in Spanish."""
    yes = {True: "sí", False: "no"}
    gpu = {
        "GPU": machine.gpu or "ninguna",
        "Memoria de GPU": f"{num(machine.gpu_gib, 1)} GiB",
        "Capacidad de cómputo": machine.capability,
        "PyTorch está compilado para ella": yes[machine.gpu_usable],
        "fp16 / bf16 en la GPU": f"{yes[machine.fp16]} / {yes[machine.bf16]}",
    }
    names = {"colab": "Google Colab", "kaggle": "Kaggle", "local": "Jupyter local"}
    return {
        "Plataforma": names[machine.platform],
        "Sistema": machine.system,
        **(gpu if machine.gpu else {"GPU": "ninguna"}),
        "Formato numérico más rápido en CPU": precision.fastest_on_cpu(),
        "Núcleos de CPU": str(machine.cores),
        "Memoria RAM": f"{num(machine.ram_gib, 1)} GiB",
        "Disco libre": f"{num(machine.disk_free_gib, 1)} GiB",
        "Python": machine.python,
        **versions(),
    }


def gpu_advice(machine: Hardware) -> str:
    """Return advice, in Spanish, on the GPU of this platform: ready, enable it, or change it."""
    menus = {
        "colab": "Entorno de ejecución → Cambiar tipo de entorno de ejecución → GPU T4 → Guardar",
        "kaggle": "Settings → Accelerator → GPU T4 x2",
    }
    if machine.gpu_usable:
        return f"✅ La GPU {machine.gpu} está lista."
    menu = menus.get(machine.platform)
    if machine.gpu:
        change = f"Cámbiela por una T4: {menu}." if menu else "Instale una versión de PyTorch que la admita."
        return f"⚠️ La GPU {machine.gpu} (capacidad {machine.capability}) no sirve con este PyTorch. {change}"
    if menu:
        return f"⚠️ Este entorno no tiene GPU. Actívela: {menu}, y ejecute de nuevo desde el principio."
    return "ℹ️ No hay GPU: se entrena en CPU. Para ir más rápido, abra este cuaderno en Colab y elija una GPU T4."


def to_device(value: Any, device: "torch.device") -> Any:
    """Return a tensor, or nested lists and dicts of tensors, on a device, without waiting for the copy."""
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(item, device) for item in value]
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()  # from other memory the copy waits for the device
    return value.to(device, non_blocking=True)


def width_multiple(device: "torch.device") -> int:
    """Return the number that the tokens of a batch should be a multiple of: CUDA's attention pads any other mask."""
    # `pad_bias` in aten/src/ATen/native/transformers/attention.cpp pads it in every layer.
    return 8 if device.type == "cuda" else 1


def synchronize(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_taken(device: "torch.device") -> int:
    """Return the bytes that torch has reserved on a GPU or, for a CPU, the resident memory of this process."""
    import psutil
    import torch

    return torch.cuda.memory_reserved(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def memory_for(device: "torch.device") -> int:
    """Return the bytes available to a training: the total memory of a GPU, or the free memory of the machine."""
    import psutil
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().available


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch ran out of memory; on a CPU and in a GPU driver only the message of the error tells."""
    return _says(error, OUT_OF_MEMORY)


def device_failed(error: BaseException) -> bool:
    """Return whether the device caused an error of torch, and not the computation."""
    return _says(error, (*OUT_OF_MEMORY, *DEVICE_ERRORS))


def _says(error: BaseException, messages: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in messages)
