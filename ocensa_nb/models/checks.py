"""Check the folder of a pretrained encoder: complete, with the weights of its config, and no settings that run code."""

import contextlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ocensa_nb.errors import UserError, clipped, listed
from ocensa_nb.files.verify import LARGEST_JSON, first_special, read_regular
from ocensa_nb.models.layers import if_supported, layer_stack

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, TOKENIZER, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
# For every `from_pretrained`. Without the first, transformers asks on the terminal whether to execute a model's code.
ONLY_HERE = {"trust_remote_code": False, "local_files_only": True}

# The rejected settings were found in the sources of transformers 4.53.3 and 5.23.0. `trust_remote_code=False` is not
# enough: a kernel named in `attn_implementation` is downloaded from the hub and imported without it. It is enough for
# the Python classes of `auto_map`, which many models keep from before their family was part of transformers.
IMPLEMENTATION = re.compile(r"\w+_implementation(_internal)?")  # of attention, experts, …, at any depth
BUILT_IN = ("eager", "sdpa")
REJECTED = {
    "quantization_config": "sus pesos están cuantizados, y leerlos usa otros paquetes y código del hub",
    "configuration_files": "sustituye config.json por otro archivo",
    "transformers_weights": "sustituye los pesos por otro archivo",
}
COMPILES = ("mra", "yoso")  # families that compile or download a CUDA kernel when they are built
# transformers takes any of its names as the class of a tokenizer, those of models included.
TOKENIZER_CLASS = re.compile(r"(?!Auto)\w*(Tokenizer|TokenizerFast|Backend)")
ADVICE = "Corrija ese archivo o use otro codificador; no se ha ejecutado nada"

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that a repository has is used
SHARDED = tuple(f"{name}.index.json" for name in WEIGHTS)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
BPE = ("vocab.json", "merges.txt")  # one tokenizer in two files
NOT_FINITE = "tienen valores que no son números"  # a fault of tensors
NOT_READ = "pooler."  # parameters of the encoder that no head reads
MOST_LAYERS = 1_000
LARGEST_RATIO = 16  # fp32 in memory to the fewest bits per weight that a file may have
HARMLESS_BYTES = 2**26  # a model that takes less than this may be built and compared


@contextlib.contextmanager
def as_user_error(fault: str, advice: str) -> Iterator[None]:
    """Raise any exception of the block as a `UserError`: damaged files raise exceptions of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{fault}: {reason}. {advice}") from error


def check_settings(folder: Path) -> None:
    """Raise `UserError`, naming the file and the key, if loading a folder would run code or read other files."""
    if (folder / ADAPTER).exists():
        raise UserError(
            f"La carpeta «{folder}» tiene un adaptador ({ADAPTER}), que se carga con otro paquete y puede traer pesos "
            "de otro lugar. Fusiónelo con su modelo (merge_and_unload) y guárdelo otra vez."
        )
    _check(folder / CONFIG)
    if (folder / TOKENIZER).exists():
        _check(folder / TOKENIZER)


def _check(path: Path) -> None:
    settings: list[tuple[str, Any]] = []  # of the objects at any depth

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        settings.extend((key, value) for key, value in pairs if value)
        return dict(pairs)

    json.loads(read_regular(path, LARGEST_JSON), object_pairs_hook=collect)
    for key, value in settings:
        fault = REJECTED.get(key)
        if IMPLEMENTATION.fullmatch(key) and value not in BUILT_IN:
            fault = f"haría que se descargue y se ejecute código. Solo se admite {' o '.join(BUILT_IN)}"
        # Some other families read the hub. In a decoder the first position, which the heads read, sees no other token.
        elif key == "model_type" and path.name == CONFIG and value not in _families():
            fault = (
                "no es un codificador de la familia de BERT (los que se preentrenan con palabras ocultas), esta "
                "versión de transformers no lo conoce, o al crearlo se compila código"
            )
        elif key == "tokenizer_class" and not (isinstance(value, str) and TOKENIZER_CLASS.fullmatch(value)):
            fault = "no es la clase de un tokenizador"
        if fault:
            raise UserError(f"«{path}»: {key} = {clipped(value)} no se admite: {fault}. {ADVICE}.")


def _families() -> set[str]:
    """Return the model types that have a masked-language model and compile no kernel."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - set(COMPILES)


def missing_file(folder: Path) -> str:
    """Return, in Spanish, which file of an encoder folder is missing or not a regular file; "" if none is."""

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
        if lacking := [name for name in BPE if not has_any([name])]:
            return f"falta {lacking[0]}, la otra mitad del tokenizador"
    return ""


def load_weights(folder: Path, **options: Any) -> "PreTrainedModel":
    """Return the encoder of a complete folder; names with a common prefix in the weights file match without it."""
    from transformers import AutoModel

    _require_size(folder)

    def load(**more: Any) -> "tuple[PreTrainedModel, list[str], set[str]]":
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True, **options, **more)
        missing = [name for name in info["missing_keys"] if not name.startswith(NOT_READ)]
        return model, missing, set(info["unexpected_keys"])

    model, missing, unused = load()
    if missing and (prefix := _common_prefix(unused, missing)):
        logger.info(f"Los pesos de «{folder}» tienen nombres con el prefijo «{prefix}»: se leen sin él.")
        renamed, missing, unused = load(key_mapping={f"^{re.escape(prefix)}": ""})
        model.load_state_dict(renamed.state_dict())  # `renamed` itself would be saved with the prefix again
    stack = if_supported(lambda: layer_stack(model)[0])
    faults = {
        "faltan, y en su lugar habría valores al azar": missing,
        "sobran, porque num_hidden_layers dice menos capas": [n for n in unused if stack and f".{stack}." in f".{n}"],
        NOT_FINITE: [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()],
    }
    refuse_tensors(faults, f"Los pesos de «{folder}» no son los de su config.json", "Copie otra vez la carpeta")
    return model


def refuse_tensors(faults: Mapping[str, Iterable[str]], sentence: str, advice: str) -> None:
    """Raise `UserError` if any tensors have a fault, from the names of the tensors by fault, in Spanish."""
    for fault, names in faults.items():
        if names:
            raise UserError(f"{sentence}. Tensores que {fault}: {listed(sorted(names))}. {advice}.")


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


def _common_prefix(unused: Iterable[str], missing: Iterable[str]) -> str:
    suffixes = {f".{name}" for name in missing}
    dots = ((name, cut) for name in unused for cut, character in enumerate(name) if character == ".")
    counts = Counter(name[: cut + 1] for name, cut in dots if name[cut:] in suffixes)
    return max(counts, key=lambda prefix: (counts[prefix], -len(prefix)), default="")
