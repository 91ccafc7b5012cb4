"""The JSON files of an encoder folder: rejected if they make transformers run code or read files outside the folder.

`trust_remote_code=False` is not enough: a kernel named in `attn_implementation` is downloaded from the hub and imported
without it. The rejected settings were found in the sources of transformers 4.53.3 and 5.23.0.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocensa_nb.errors import UserError
from ocensa_nb.files.verify import LARGEST_JSON, read_regular

CONFIG, TOKENIZER, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
# For every `from_pretrained`. Without the first, transformers asks on the terminal whether to execute a model's code.
ONLY_HERE = {"trust_remote_code": False, "local_files_only": True}

IMPLEMENTATION = re.compile(r"\w+_implementation(_internal)?")  # of attention, experts, …, at any depth
BUILT_IN = ("eager", "sdpa")
REJECTED = {
    "auto_map": "son clases de Python que vienen con el modelo",
    "quantization_config": "sus pesos están cuantizados, y leerlos usa otros paquetes y código del hub",
    "configuration_files": "sustituye config.json por otro archivo",
    "transformers_weights": "sustituye los pesos por otro archivo",
}
COMPILES = ("mra", "yoso")  # families that compile or download a CUDA kernel when they are built
# transformers takes any of its names as the class of a tokenizer, those of models included.
TOKENIZER_CLASS = re.compile(r"(?!Auto)\w*(Tokenizer|TokenizerFast|Backend)")
ADVICE = "Corrija ese archivo o use otro codificador; no se ha ejecutado nada"


def check_settings(folder: Path) -> None:
    """Raise `UserError`, naming the file and the key, if loading a folder would run code or read other files.

    A family without masked-language models is rejected too: some of them read the hub, and in a decoder the first
    position, which the heads read, sees no other token.
    """
    if (folder / ADAPTER).exists():
        raise UserError(
            f"La carpeta «{folder}» tiene un adaptador ({ADAPTER}), que se carga con otro paquete y puede traer pesos "
            "de otro lugar. Fusiónelo con su modelo (merge_and_unload) y guárdelo otra vez."
        )
    _check(folder / CONFIG)
    if (folder / TOKENIZER).exists():
        _check(folder / TOKENIZER)


def _check(path: Path) -> None:
    content = json.loads(read_regular(path, LARGEST_JSON))
    for key, value in _items(content):
        if not value:
            continue
        if key in REJECTED:
            raise UserError(f"«{path}»: {key} no se admite: {REJECTED[key]}. {ADVICE}.")
        if IMPLEMENTATION.fullmatch(key) and not set(_leaves(value)) <= {*BUILT_IN, None}:
            raise UserError(
                f"«{path}»: {key} = {value!r} haría que se descargue y se ejecute código. Solo se admite "
                f"{' o '.join(BUILT_IN)}. {ADVICE}."
            )
        if key == "model_type" and path.name == CONFIG and value not in _families():
            raise UserError(
                f"«{path}»: {key} = {value!r} no es un codificador de la familia de BERT (los que se preentrenan con "
                f"palabras ocultas), o al crearlo se compila código. {ADVICE}."
            )
        if key == "tokenizer_class" and not (isinstance(value, str) and TOKENIZER_CLASS.fullmatch(value)):
            raise UserError(f"«{path}»: {key} = {value!r} no es la clase de un tokenizador. {ADVICE}.")


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of the objects in a JSON value, at any depth."""
    if isinstance(content, dict):
        yield from content.items()
    for one in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from _items(one)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the scalars in a JSON value, as text if they are not None."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value if value is None else str(value)


def _families() -> set[str]:
    """Return the model types that have a masked-language model and compile no kernel."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - set(COMPILES)
