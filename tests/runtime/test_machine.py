"""Detection of hardware and platform, recommended recipe and precision, missing packages; platforms are simulated."""

import errno
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from ocensa_nb.errors import UserError
from ocensa_nb.notebook import session
from ocensa_nb.runtime import machine as environment
from ocensa_nb.runtime import precision

CPU = environment.Hardware("local", "Linux x86_64", "3.11", cores=2, ram_gib=8.0, disk_free_gib=20.0)
T4 = {"gpu": "Tesla T4", "gpu_gib": 14.7, "capability": "7.5", "gpu_usable": True, "fp16": True}


def machine(**changes):
    return environment.Hardware(**{**CPU.to_dict(), **changes})


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ["sm_75", "sm_80", "sm_90"], True),
        ((8, 6), ["sm_75", "sm_80", "sm_90"], True),
        ((6, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),  # Kaggle's P100 on a new build
        ((6, 0), ["sm_50", "sm_60", "sm_70"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((8, 0), ["sm_86"], False),
        ((7, 5), [], False),
    ],
)
def test_has_kernels_for_gpu_capability_and_torch_build_is_correct(capability, architectures, runs):
    assert environment.has_kernels(capability, architectures) == runs


def test_recommend_returns_the_recipe_for_the_hardware():
    assert environment.recommend(CPU)[0] == "cpu"
    assert environment.recommend(machine(**T4))[0] == "t4"
    assert environment.recommend(machine(**{**T4, "gpu_gib": 6.0}))[0] == "t4-small"
    recipe, why = environment.recommend(machine(gpu="Tesla P100", gpu_gib=16.0, capability="6.0"))
    assert recipe == "cpu"
    assert "T4" in why


def test_gpu_advice_names_the_menu_of_the_platform():
    assert "Cambiar tipo de entorno" in environment.gpu_advice(machine(platform="colab"))
    assert "Accelerator → GPU T4" in environment.gpu_advice(
        machine(platform="kaggle", gpu="Tesla P100", capability="6.0")
    )
    assert "lista" in environment.gpu_advice(machine(**T4))
    assert "CPU" in environment.gpu_advice(CPU)


def test_platform_is_detected_by_environment_variables(monkeypatch):
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    assert environment.platform() == "local"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    assert environment.platform() == "colab"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")  # Kaggle's image sets Colab's variable too
    assert environment.platform() == "kaggle"


def test_mount_drive_outside_colab_or_without_permission_raises_user_error(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="solo se puede montar en Colab"):
        session.mount_drive()

    def refuse(path):
        raise ValueError("mount failed")

    drive = types.ModuleType("google.colab.drive")
    drive.mount = refuse
    colab = types.ModuleType("google.colab")
    colab.drive = drive
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    with pytest.raises(UserError, match="marque todos los permisos"):
        session.mount_drive()


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no queda espacio"), (errno.EROFS, "es de solo lectura")])
def test_mount_drive_that_cannot_create_the_folder_raises_user_error_with_the_reason(number, words, monkeypatch):
    def fail(*_, **__):
        raise OSError(number, "no folder")

    drive = types.ModuleType("google.colab.drive")
    drive.mount = lambda path: None
    colab = types.ModuleType("google.colab")
    colab.drive = drive
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(UserError, match=f"ocensa-runs.*{words}"):
        session.mount_drive()


def test_missing_requirements_lists_unmet_ones_but_never_torch(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("torch>=999  # never\nnumpy>=1.0\nnumpy>=999\n\nno-such-package>=1  # why\n# comment\n")
    assert session.missing_requirements(requirements) == ["numpy>=999", "no-such-package>=1"]


def test_install_missing_pins_the_installed_torch(monkeypatch, tmp_path):
    calls = []

    def fake_run(command, **_):
        calls.append((command, Path(command[command.index("-c") + 1]).read_text()))
        return types.SimpleNamespace(returncode=len(calls) - 1, stderr="sin red")

    monkeypatch.setattr(session.subprocess, "run", fake_run)
    (tmp_path / "requirements.txt").write_text("torch>=999\nno-such-package>=1\n")
    assert session.install_missing(tmp_path / "requirements.txt") == ["no-such-package>=1"]
    command, pins = calls[0]
    assert pins == f"torch=={torch.__version__}\n"
    assert not any(part.startswith("torch") for part in command)
    with pytest.raises(UserError, match="sin red"):
        session.install_missing(tmp_path / "requirements.txt")


def test_resolve_precision_auto_uses_capability_on_gpu_and_measurement_on_cpu(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert precision.resolve_precision("auto", cpu) in ("fp32", "bf16")
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None, c=capability: c)
        assert precision.resolve_precision("auto", cuda) == expected
    assert precision.resolve_precision("tf32", cuda) == "tf32"
    with pytest.raises(UserError, match="Ampere"):
        precision.resolve_precision("tf32", cpu)


def test_fastest_on_cpu_leaves_random_state_unchanged():
    state = torch.get_rng_state()
    precision.fastest_on_cpu.cache_clear()
    precision.fastest_on_cpu()
    assert torch.equal(torch.get_rng_state(), state)


def test_fastest_on_cpu_without_bf16_instructions_measures_small_products_only(monkeypatch):
    rows = []

    def product(a, b):
        if a.dtype == torch.bfloat16:
            rows.append(len(a))
            time.sleep(0.02)
        return a

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    precision.fastest_on_cpu.cache_clear()
    assert precision.fastest_on_cpu() == "fp32"
    assert max(rows) <= 16
    precision.fastest_on_cpu.cache_clear()


def test_resolve_precision_bf16_on_gpu_without_bf16_is_fp16_and_reported(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (7, 5))
    assert precision.resolve_precision("bf16", cuda) == "fp16"
    assert "no tiene bf16 propio" in precision.replacement_note("bf16", "fp16", cuda)
    assert precision.scoring_precision("bf16", cuda) == "fp32"
    assert "se calcula en fp32" in precision.replacement_note("bf16", "fp32", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (8, 0))
    assert precision.resolve_precision("bf16", cuda) == precision.scoring_precision("bf16", cuda) == "bf16"
    assert precision.replacement_note("bf16", "bf16", cuda) == ""


def test_replacement_note_of_bf16_on_cpu_without_speed_up_warns(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "fastest_on_cpu", lambda: "fp32")
    assert "no calcula más rápido en bf16" in precision.replacement_note("bf16", "bf16", cpu)
    monkeypatch.setattr(precision, "fastest_on_cpu", lambda: "bf16")
    assert precision.replacement_note("bf16", "bf16", cpu) == ""
    assert precision.replacement_note("auto", "fp32", cpu) == ""


def test_describe_hardware_has_spanish_labels():
    metadata = environment.describe(environment.hardware())
    assert {"Plataforma", "GPU", "Núcleos de CPU", "Memoria RAM", "Disco libre", "torch"} <= set(metadata)


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", sys.maxsize), ("", sys.maxsize)]
)
def test_quota_of_container_is_read_from_cpu_max(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert environment._quota(tmp_path / "cpu.max") == cores
    assert environment._quota(tmp_path / "none") == sys.maxsize


def test_threads_does_not_exceed_available_cores(monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 1)
    assert environment.threads() == 1


def test_copies_to_a_gpu_are_from_pinned_memory():
    class Tensor:
        device, pinned = torch.device("cpu"), False

        def pin_memory(self):
            self.pinned = True
            return self

        def to(self, device, non_blocking):
            return device.type, self.pinned, non_blocking

    moved = environment.to_device({"inputs": [Tensor()], "labels": {"modo": Tensor()}}, torch.device("cuda"))
    assert moved == {"inputs": [("cuda", True, True)], "labels": {"modo": ("cuda", True, True)}}
    assert environment.to_device(Tensor(), torch.device("cpu")) == ("cpu", False, True)
