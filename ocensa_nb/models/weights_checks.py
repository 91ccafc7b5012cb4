"""Check the folder of a pretrained encoder: that it is complete, and that its weights match its config.

transformers accepts both faults silently. Without a vocabulary file, version 5 builds a tokenizer of five special
tokens; a parameter that the weights file does not have is drawn at random, with a warning only.
"""

import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ocensa_nb.errors import UserError
from ocensa_nb.files.verify import first_special
from ocensa_nb.models.checks import ONLY_HERE
from ocensa_nb.models.layers import layer_stack

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that a repository has is used
SHARDED = tuple(f"{name}.index.json" for name in WEIGHTS)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
BPE = ("vocab.json", "merges.txt")  # one tokenizer in two files
NOT_READ = "pooler."  # parameters of the encoder that no head reads
MOST_LAYERS = 1_000
LARGEST_RATIO = 16  # fp32 in memory to the fewest bits per weight that a file may have
HARMLESS_BYTES = 2**26  # a model that takes less than this may be built and compared
NAMED = 5  # tensors that an error message names


def missing_file(folder: Path) -> str:
    """Return, in Spanish, what is wrong with the files of an encoder folder; "" if nothing is.

    It is a file that is missing, or one that transformers cannot read completely.
    """

    def has_any(names: Iterable[str]) -> bool:
        return any((folder / name).is_file() for name in names)

    if special := first_special(folder):
        return f"{special.relative_to(folder)} no es un archivo normal, sino un dispositivo o una tubería"
    if not has_any(["config.json"]):
        return "falta config.json"
    if not has_any((*WEIGHTS, *SHARDED)):
        return f"faltan los pesos ({' o '.join(WEIGHTS)})"
    if not has_any(TOKENIZERS):
        if not has_any(BPE):
            return "falta el tokenizador (tokenizer.json o vocab.txt, según el modelo)"
        lacking = [name for name in BPE if not has_any([name])]
        if lacking:
            return f"falta {lacking[0]}, la otra mitad del tokenizador"
    return ""


def load_weights(folder: Path, **options: Any) -> "PreTrainedModel":
    """Return the encoder of a complete folder with every parameter read from its weights file.

    Names with a common prefix, as in the `state_dict` of a model that contains the encoder, are matched without it.
    `options` go to `AutoModel.from_pretrained`.
    """
    from transformers import AutoModel

    _require_size(folder)

    def load(**more: Any) -> "tuple[PreTrainedModel, set[str], set[str]]":
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **options, **more)
        return model, set(info["missing_keys"]), set(info["unexpected_keys"])

    model, missing, unused = load()
    if _needed(missing) and (prefix := _common_prefix(unused, missing)):
        logger.info(f"Los pesos de «{folder}» tienen nombres con el prefijo «{prefix}»: se leen sin él.")
        renamed, missing, unused = load(key_mapping={f"^{re.escape(prefix)}": ""})
        model.load_state_dict(renamed.state_dict())  # `renamed` itself would be saved with the prefix again
    if names := _needed(missing):
        raise UserError(
            f"Los pesos de «{folder}» no son los de su config.json: faltan {len(names)} tensores ({some(names)}). "
            "Entrenar así partiría de valores al azar. Copie otra vez la carpeta completa del codificador."
        )
    if names := _of_layers(unused, model):
        raise UserError(
            f"Los pesos de «{folder}» tienen más capas que su config.json: sobran {len(names)} tensores "
            f"({some(names)}). Corrija num_hidden_layers en config.json, o copie la carpeta completa otra vez."
        )
    _require_finite(model, folder)
    return model


def _require_size(folder: Path) -> None:
    """Raise `UserError` if the model of `config.json` is far larger than its weights file."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folder, **ONLY_HERE)
    needed = sys.maxsize
    if getattr(config, "num_hidden_layers", 0) <= MOST_LAYERS:
        with torch.device("meta"):  # takes no memory
            shape = AutoModel.from_config(config)
        needed = sum(parameter.nbytes for parameter in shape.parameters())
    stored = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))
    if needed > max(LARGEST_RATIO * stored, HARMLESS_BYTES):
        raise UserError(
            f"config.json de «{folder}» describe un modelo mucho mayor que sus pesos: está dañado o no es el suyo. "
            "Copie otra vez la carpeta completa del codificador."
        )


def _needed(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(NOT_READ))


def _of_layers(names: Iterable[str], model: nn.Module) -> list[str]:
    """Return the tensor names that belong to the layer stack of an encoder, if it has one."""
    try:
        stack, _ = layer_stack(model)
    except UserError:
        return []
    return sorted(name for name in names if f".{stack}." in f".{name}")


def some(names: list[str]) -> str:
    """Return the first few tensor names, for an error message."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _common_prefix(unused: Iterable[str], missing: Iterable[str]) -> str:
    """Return the prefix under which most of the missing names are among the unused ones, or ""."""
    counts: dict[str, int] = {}
    suffixes = {f".{name}" for name in missing}
    for name in unused:
        for cut, character in enumerate(name):
            if character == "." and name[cut:] in suffixes:
                prefix = name[: cut + 1]
                counts[prefix] = counts.get(prefix, 0) + 1
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")


def _require_finite(model: nn.Module, folder: Path) -> None:
    wrong = [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if wrong:
        raise UserError(
            f"Los pesos de «{folder}» tienen valores que no son números en {len(wrong)} tensores ({some(wrong)}): el "
            "archivo está dañado. Copie la carpeta otra vez."
        )
