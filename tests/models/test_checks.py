"""Encoder folders whose JSON files would make transformers run code or read other places are rejected.

Every function that runs code is patched to raise `Reached`, which nothing in the package catches.
"""

import contextlib
import json
import shutil
import socket
from importlib import import_module
from pathlib import Path

import pytest
import torch
from transformers import DebertaV2ForMaskedLM, ModernBertForMaskedLM

from ocensa_nb.errors import UserError
from ocensa_nb.models import catalogue, save
from ocensa_nb.runs import manifest
from ocensa_nb.runs.manifest import ENCODER
from ocensa_nb.runs.run import Run

KERNEL = "someone/kernel"
BETO = {  # keys of dccuchile/bert-base-spanish-wwm-cased
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "output_past": True,
    "position_embedding_type": "absolute",
    "transformers_version": "4.9.0.dev0",
    "_name_or_path": "dccuchile/bert-base-spanish-wwm-cased",
}
TRAPS = {  # functions that run code, by the modules that call them (transformers 4.53 and 5)
    "transformers.dynamic_module_utils": ["get_class_from_dynamic_module", "get_class_in_module"],
    "transformers.models.auto.auto_factory": ["get_class_from_dynamic_module"],
    "transformers.models.auto.configuration_auto": ["get_class_from_dynamic_module"],
    "transformers.models.auto.tokenization_auto": ["get_class_from_dynamic_module"],
    "transformers.integrations.hub_kernels": ["get_kernel", "load_and_register_attn_kernel", "lazy_load_kernel"],
    "transformers.modeling_flash_attention_utils": ["lazy_import_flash_attention"],
    "transformers.modeling_utils": ["get_kernel", "get_hf_quantizer", "lazy_import_flash_attention"],
    "builtins": ["input"],
}


class Reached(BaseException):
    """Code of the folder would have been executed."""


def trap(name):
    def reached(*args, **kwargs):
        if name == "get_hf_quantizer" and getattr(args[0], "quantization_config", None) is None:
            return None, args[0], args[2]
        raise Reached(name, args[:1])

    return reached


@pytest.fixture(autouse=True)
def traps(monkeypatch):
    """Patch the loaders of kernels, Python files, PEFT and quantizers, the user prompt, and the network.

    `kernels` and `peft` appear to be installed.
    """
    for module, names in TRAPS.items():
        for name in names:
            if hasattr(import_module(module), name):
                monkeypatch.setattr(import_module(module), name, trap(name))
    for module in ("modeling_utils", "integrations.hub_kernels", "integrations.peft", "models.auto.auto_factory"):
        for name in ("is_kernels_available", "is_peft_available"):
            if hasattr(import_module(f"transformers.{module}"), name):
                monkeypatch.setattr(f"transformers.{module}.{name}", lambda *_, **__: True)
    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.load_adapter", trap("load_adapter"))
    # transformers 4 imports it into this module only where peft is installed
    find = import_module("transformers.utils").find_adapter_config_file
    monkeypatch.setattr("transformers.modeling_utils.find_adapter_config_file", find, raising=False)
    monkeypatch.setattr("transformers.models.yoso.modeling_yoso.load_cuda_kernels", trap("load_cuda_kernels"))
    monkeypatch.setattr("transformers.models.yoso.modeling_yoso.is_torch_cuda_available", lambda: True)
    monkeypatch.setattr("transformers.models.yoso.modeling_yoso.is_ninja_available", lambda: True)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, trap(name))
    monkeypatch.setattr(socket, "getaddrinfo", trap("getaddrinfo"))


@pytest.fixture
def folder(run, tmp_path):
    return Path(shutil.copytree(run.path / ENCODER, tmp_path / "encoder"))


def change(path: Path, changes: dict) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def load(folder):
    return catalogue.load_encoder(str(folder), catalogue.load_tokenizer(str(folder)))


HOSTILE = {
    "attention": {"attn_implementation": KERNEL},
    "attention with a version and a name": {"attn_implementation": f"{KERNEL}@main:forward"},
    "paged attention": {"attn_implementation": f"paged|{KERNEL}"},
    "attention, private key": {"_attn_implementation": KERNEL},
    "attention, internal key": {"_attn_implementation_internal": f"{KERNEL}:forward"},
    "attention per sub-config": {"attn_implementation": {"": KERNEL}},
    "attention in a sub-config": {"text_config": {"attn_implementation": KERNEL}},
    "flash attention": {"attn_implementation": "flash_attention_2"},
    "experts": {"experts_implementation": "sonicmoe"},
    "experts, private key": {"_experts_implementation": KERNEL},
    "auto_map of a config": {"auto_map": {"AutoConfig": "evil.C"}, "model_type": "evil"},
    "auto_map of a repository": {"auto_map": {"AutoConfig": f"{KERNEL}--evil.C"}, "model_type": "evil"},
    "quantization": {"quantization_config": {"quant_method": "fp8"}},
    "configuration_files": {"configuration_files": ["config.4.0.0.json"]},
    "transformers_weights": {"transformers_weights": "other.safetensors"},
    "family that compiles a kernel": {"model_type": "yoso"},
    "family that reads the hub": {
        **{"model_type": "detr", "backbone": KERNEL, "use_timm_backbone": False},
        **{"use_pretrained_backbone": True, "backbone_config": None},
    },
    "sub-config that reads the hub": {"model_type": "perceiver", "vision_config": {"model_type": "timm_wrapper"}},
    "decoder": {"model_type": "gpt2"},
}
FILES = {"config.4.0.0.json": {"attn_implementation": KERNEL, "model_type": "bert"}}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_load_config_that_runs_code_raises_user_error_naming_file_and_key(folder, changes):
    change(folder / "config.json", changes)
    (folder / "evil.py").write_text("raise SystemExit")
    for name, content in FILES.items():
        change(folder / name, content)
    with pytest.raises(UserError) as refused:
        load(folder)
    assert str(folder / "config.json") in str(refused.value)
    named = set(changes) | {key for value in changes.values() if isinstance(value, dict) for key in value}
    assert any(key in str(refused.value) for key in named)
    with pytest.raises(UserError):
        catalogue.untrained(catalogue.architecture(str(folder)))


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "AutoModel"},
        {"tokenizer_class": "pipeline"},
    ],
)
def test_load_tokenizer_config_that_runs_code_raises_user_error_naming_file_and_key(folder, changes):
    change(folder / "tokenizer_config.json", changes)
    (folder / "evil.py").write_text("raise SystemExit")
    with pytest.raises(UserError) as refused:
        load(folder)
    assert str(folder / "tokenizer_config.json") in str(refused.value)
    assert any(key in str(refused.value) for key in changes)


@pytest.mark.parametrize("source", ["evil", f"{KERNEL}--evil"])
@pytest.mark.parametrize(
    "tokenizer",
    [
        {"auto_map": {"AutoTokenizer": ["evil.T", None]}},
        {"auto_map": {"AutoTokenizer": [None, "evil.T"]}},
        {"auto_map": ["evil.T", None]},
    ],
)
def test_load_known_family_that_brings_python_files_runs_none_of_them(folder, source, tokenizer):
    """As of many models whose family became part of transformers later; the traps are where they would be imported."""
    expected = catalogue.load_tokenizer(str(folder))("la bomba no arranca")["input_ids"]
    change(folder / "config.json", {"auto_map": {"AutoConfig": f"{source}.C", "AutoModel": f"{source}.M"}})
    change(folder / "tokenizer_config.json", json.loads(json.dumps(tokenizer).replace("evil.", f"{source}.")))
    (folder / "evil.py").write_text("raise SystemExit")
    assert load(folder).config.model_type == "bert"
    assert catalogue.load_tokenizer(str(folder))("la bomba no arranca")["input_ids"] == expected
    assert catalogue.architecture(str(folder)).model_type == "bert"


def test_load_tokenizer_of_an_unknown_class_runs_no_python_file(folder):
    change(folder / "tokenizer_config.json", {"auto_map": ["evil.T", None], "tokenizer_class": "EvilTokenizer"})
    (folder / "evil.py").write_text("raise SystemExit")
    with contextlib.suppress(UserError):  # transformers 4 refuses it, 5 reads tokenizer.json
        load(folder)


def test_load_folder_with_python_files_and_no_family_raises_user_error(folder):
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del settings["model_type"]
    settings["auto_map"] = {"AutoConfig": "evil.C", "AutoModel": "evil.M"}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "evil.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match="No se pudo cargar el codificador"):
        load(folder)


def test_load_folder_with_peft_adapter_raises_user_error_naming_the_file(folder):
    change(folder / "adapter_config.json", {"base_model_name_or_path": KERNEL, "peft_type": "LORA"})
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        load(folder)


def test_load_model_of_run_whose_encoder_names_a_kernel_raises_user_error(run, tmp_path):
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    change(copy / ENCODER / "config.json", {"attn_implementation": KERNEL})
    manifest.write(copy)
    with pytest.raises(UserError, match=r"encoder/config\.json.*attn_implementation"):
        save.load_model(Run.load(copy))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BETO,
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa"},
        {"_attn_implementation_autoset": True, "attn_implementation": None, "auto_map": {}},
        {"torch_dtype": "float32", "_commit_hash": "0" * 40, "id2label": {"0": "auto_map"}},
    ],
)
def test_load_ordinary_config_is_accepted(folder, changes):
    change(folder / "config.json", changes)
    assert load(folder).config.num_hidden_layers == 4
    assert catalogue.architecture(str(folder)).num_hidden_layers == 4


def test_load_embedded_encoder_is_accepted():
    assert load("minilm").config.hidden_size == 384


@pytest.mark.parametrize("family", [DebertaV2ForMaskedLM, ModernBertForMaskedLM])
def test_load_other_family_is_accepted(folder, family):
    """From the file of its masked-language model, as the hub has them."""
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    saved = family(family.config_class(vocab_size=size, pad_token_id=0, **shape))
    saved.save_pretrained(folder)
    loaded = load(folder)
    assert loaded.config.model_type == family.config_class.model_type
    weights = getattr(saved, saved.base_model_prefix).state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())


def test_load_model_of_run_is_accepted(run):
    assert save.load_model(Run.load(run.path))
