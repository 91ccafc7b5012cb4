"""Run an encoder once on the extreme ids of its tokenizer, before it is used on many texts."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ocensa_nb.errors import UserError
from ocensa_nb.models.catalogue import check_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_PROBE = 512  # tokens; only encoders without a table of positions take more


def probe(encoder: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_length: int, source: str) -> None:
    """Raise `UserError` if an encoder cannot compute a text of `max_length` tokens with the ids of its tokenizer.

    `tokenizer.json` may contain any id; one beyond the embeddings would raise `IndexError` during the training.

    Parameters
    ----------
    encoder, tokenizer
        The pair to check.
    max_length
        Maximum number of tokens per text.
    source
        Name of the encoder, for the message.
    """
    check_length(encoder, max_length)
    with as_user_error(source):
        vocabulary = tokenizer.get_vocab().values()
        ids = [*tokenizer("")["input_ids"], min(vocabulary), max(vocabulary), tokenizer.pad_token_id or 0]
        length = min(max_length, LONGEST_PROBE)
        text = torch.tensor([(ids + [ids[0]] * length)[:length]])
        training = encoder.training
        encoder.eval()  # draws no random number
        try:
            with torch.inference_mode():
                encoder(input_ids=text, attention_mask=torch.ones_like(text))
        finally:
            encoder.train(training)


@contextlib.contextmanager
def as_user_error(source: str) -> Iterator[None]:
    """Raise any exception of the block as a `UserError` that names the encoder; damaged files raise many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        detail = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"El codificador de «{source}» no funciona con su config.json y su tokenizador: {detail}. Copie otra vez "
            "la carpeta completa."
        ) from error
