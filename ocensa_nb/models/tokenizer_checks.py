"""Check that a tokenizer suits its encoder and the texts: case, accents, vocabulary, unknown tokens, ids."""

import contextlib
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ocensa_nb.errors import UserError, num
from ocensa_nb.models.checks import as_user_error
from ocensa_nb.models.layers import in_eval_mode
from ocensa_nb.models.tokens import TokenTable

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

COMMON = 0.005  # share of a vocabulary; bert-base-uncased has 2 of 29,523 pieces with a capital letter and no accent
SMALLEST = 0.9  # of the config's vocabulary size: some models round it up, to a multiple of 64 or 128
UNKNOWN = 0.05  # share of unknown tokens above which a text says too little
SHOWN_WORDS = 10
SAMPLED_TEXTS = 10_000  # enough to find the commonest words
SHOWN_LETTERS = 5  # shorter words are rarely split
LONGEST_PROBE = 512  # tokens; only encoders without a table of positions take more
LONGEST_SHOWN = 50  # letters; longer is no word, and BPE takes quadratic time for it


def lossless_options(tokenizer: "PreTrainedTokenizerBase") -> dict[str, bool]:
    """Return the loading options that keep the case and the accents of the vocabulary (dccuchile/beto#7)."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is None:
        return {}
    pieces = [piece for piece in tokenizer.get_vocab() if not piece.startswith("[")]
    enough = COMMON * max(1, len(pieces))
    # Without `do_lower_case` in tokenizer_config.json, transformers lowercases BERT's texts and strips their accents.
    options = {}
    if normalizer.normalize_str("A") == "a" and sum(piece != piece.lower() for piece in pieces) >= enough:
        options["do_lower_case"] = False
    if normalizer.normalize_str("á") == "a" and sum(map(_has_accent, pieces)) >= enough:
        options["strip_accents"] = False
    return options


def check_vocabulary_size(tokenizer: "PreTrainedTokenizerBase", vocab_size: int, source: str) -> None:
    with as_user_error(
        f"El tokenizador de «{source}» no funciona con su tokenizer_config.json", "Copie los dos otra vez."
    ):
        largest = max([*tokenizer.get_vocab().values(), *tokenizer("")["input_ids"]])
    if largest >= vocab_size or not SMALLEST * vocab_size <= len(tokenizer) <= vocab_size:
        raise UserError(
            f"El tokenizador de «{source}» tiene {num(len(tokenizer))} tokens y da el id {num(largest)}, y el "
            f"codificador espera {num(vocab_size)} tokens: no es el suyo, o está incompleto o dañado. Copie otra vez "
            "tokenizer.json o vocab.txt de donde vino el modelo."
        )


def positions(shape: "PretrainedConfig") -> int:
    """Return the most tokens an encoder takes."""
    # The positions of RoBERTa begin after its padding id.
    most = getattr(shape, "max_position_embeddings", sys.maxsize)
    return most - shape.pad_token_id - 1 if shape.model_type in ("roberta", "xlm-roberta", "camembert") else most


def check_length(encoder: "PreTrainedModel", max_length: int) -> None:
    if max_length > (most := positions(encoder.config)):
        raise UserError(f"max_length = {max_length}: este codificador admite {most} tokens como máximo.")


def probe(encoder: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_length: int, source: str) -> None:
    """Run an encoder once on the extreme ids of its tokenizer; raise `UserError`, naming `source`, if it cannot."""
    check_length(encoder, max_length)
    with encoder_errors(source):
        # `tokenizer.json` may contain any id; one beyond the embeddings would raise `IndexError` in the training.
        vocabulary = tokenizer.get_vocab().values()
        ids = [*tokenizer("")["input_ids"], min(vocabulary), max(vocabulary), tokenizer.pad_token_id or 0]
        length = min(max_length, LONGEST_PROBE)
        text = torch.tensor([(ids + [ids[0]] * length)[:length]])
        with in_eval_mode(encoder), torch.inference_mode():
            encoder(input_ids=text, attention_mask=torch.ones_like(text))


def encoder_errors(source: str) -> contextlib.AbstractContextManager[None]:
    return as_user_error(
        f"El codificador de «{source}» no funciona con su config.json y su tokenizador",
        "Copie otra vez la carpeta completa.",
    )


def unknown_share(table: TokenTable, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Return the share of unknown tokens among the tokens that are not special, from 0 to 1."""
    if tokenizer.unk_token_id is None:
        return 0.0
    special = np.isin(table.ids, [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id])
    return float((table.ids == tokenizer.unk_token_id).sum() / max(1, (~special).sum()))


def check_unknown_share(share: float, source: str) -> None:
    if share > UNKNOWN:
        raise UserError(
            f"El {100 * share:.0f} % de los tokens de sus avisos son desconocidos ([UNK]) para el tokenizador de "
            f"«{source}»: no es el del codificador, o el vocabulario no es para estos textos. Copie otra vez su "
            "tokenizer.json o vocab.txt, o elija otro codificador."
        )


def describe(share: float, texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return, in Spanish, the share of unknown tokens and how the tokenizer splits the commonest words."""
    sample = texts[:: 1 + len(texts) // SAMPLED_TEXTS]
    shown = range(SHOWN_LETTERS, LONGEST_SHOWN + 1)
    counts = Counter(word for text in sample for word in text.split() if len(word) in shown and word.isalpha())
    words = [f"{word} → {_pieces(word, tokenizer)}" for word, _ in counts.most_common(SHOWN_WORDS)]
    return f"Tokens desconocidos: {num(100 * share, 1)} %. Así se dividen las palabras frecuentes: {'; '.join(words)}."


def _pieces(word: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    shown = (tokenizer.decode([i]).removeprefix("##").strip() for i in ids)
    return "·".join(piece for piece in shown if piece)


def _has_accent(piece: str) -> bool:
    decomposed = unicodedata.normalize("NFD", piece)
    return any(map(unicodedata.combining, decomposed)) and not any(map(unicodedata.combining, piece))
