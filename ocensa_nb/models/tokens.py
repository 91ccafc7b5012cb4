"""Tokenize texts once, without padding; length statistics; batches of similar length."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ocensa_nb.errors import UserError, clipped
from ocensa_nb.runtime.logs import progress

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerBase

CHUNK = 10_000  # texts tokenised at a time: bounds the memory of the Python lists in between
# Tokens of a batch, padding included, of a forward pass without gradients. On a CPU 512 to 2,048 are the quickest
# (tests/benchmarks/README.md); a GPU needs as many as keep it busy between two launches.
SCORING_TOKENS = {"cpu": 1024, "cuda": 16_384}
POOL_BATCHES = 32  # batches shuffled together before they are sorted by length
T = TypeVar("T", int, np.ndarray)


@dataclass(frozen=True)
class TokenTable:
    """Token ids of every text, stored without padding."""

    ids: np.ndarray  # int32 (tokens,): the rows, concatenated
    offsets: np.ndarray  # int64 (rows + 1,): the first token of each row
    pad_id: int
    max_length: int  # the most tokens per row, and the width of a batch with `max_length` padding

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def batch(
        self, rows: np.ndarray, padding: str = "dynamic", multiple: int = 1
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return input ids and attention mask, int64 (rows, width), padded to the longest row or to `max_length`.

        The width of the longest row is rounded up to a `multiple`, up to `max_length`.
        """
        import torch

        width = self.max_length if padding == "max_length" else 0
        index, mask = (part[:, : self.max_length] for part in padded_index(self.offsets, rows, width, multiple))
        ids = np.where(mask, self.ids[index], self.pad_id).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    def widths(self, padding: str) -> np.ndarray:
        """Return the tokens that each row takes in a batch of rows of its length."""
        return np.full(len(self), self.max_length) if padding == "max_length" else self.lengths

    def sample(self) -> list["torch.Tensor"]:
        """Return ids and mask of a few rows, some of them padded, to compare two computations."""
        shortest, longest = int(self.lengths.argmin()), int(self.lengths.argmax())
        return list(self.batch(np.unique([0, shortest, longest, len(self) - 1])))

    def sha256(self) -> str:
        digest = hashlib.sha256(repr(self.pad_id).encode())
        digest.update(self.ids)
        digest.update(self.offsets)
        return digest.hexdigest()

    def take(self, rows: np.ndarray) -> "TokenTable":
        return self._of([self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows])

    def unique(self) -> tuple["TokenTable", np.ndarray]:
        """Return a table of the distinct texts, and the entry of each row, int64 (rows,)."""
        seen: dict[bytes, int] = {}
        spans = zip(self.offsets[:-1], self.offsets[1:], strict=True)
        entry = np.array([seen.setdefault(self.ids[a:b].tobytes(), len(seen)) for a, b in spans], np.int64)
        return self._of([np.frombuffer(ids, np.int32) for ids in seen]), entry

    def _of(self, texts: list[np.ndarray]) -> "TokenTable":
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return replace(self, ids=np.concatenate([self.ids[:0], *texts]), offsets=offsets)


def padded_index(
    offsets: np.ndarray, rows: np.ndarray, width: int = 0, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a padded batch in the flat array, int64 (rows, width), and their mask, bool.

    Padding repeats the last position of a row; width 0 is that of the longest row, rounded up to a `multiple` unless
    there is one position per row.
    """
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    longest = int(lengths.max())
    column = np.arange(width or (rounded_up(longest, multiple) if longest > 1 else 1))
    index = starts[:, None] + np.minimum(column, lengths[:, None] - 1)
    return index, column < lengths[:, None]


def rounded_up(number: T, multiple: int) -> T:
    return -(-number // multiple) * multiple


def encode(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TokenTable:
    """Tokenize every text once, truncated at `max_length` tokens, special tokens included.

    Raises `UserError` if a text has no tokens: the heads read the first position.
    """
    ids, lengths = [], []
    starts = range(0, len(texts), CHUNK)
    for start in progress(starts, "Avisos a tokens", "chunk"):
        chunk = list(texts[start : start + CHUNK])
        rows = tokenizer(chunk, truncation=True, max_length=max_length, padding=False, return_attention_mask=False)
        lengths += [len(row) for row in rows["input_ids"]]
        if 0 in lengths[start:]:
            text = clipped(texts[lengths.index(0, start)])
            raise UserError(f"El tokenizador no da ningún token para «{text}»: está dañado o no es el del codificador.")
        ids.append(np.fromiter((i for row in rows["input_ids"] for i in row), dtype=np.int32))
    flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return TokenTable(flat, np.cumsum([0, *lengths], dtype=np.int64), pad_id, max_length)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of each *effective* batch of one epoch, rows of similar length together.

    Rows are shuffled, sorted by length inside pools of `POOL_BATCHES` batches, split into batches, and the batches are
    shuffled; all random choices depend on (seed, epoch) only. The last batch may be smaller.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def scoring_batches(widths: np.ndarray, device: "torch.device") -> Iterator[np.ndarray]:
    """Yield batches of row numbers from shortest to longest, each with `SCORING_TOKENS` tokens at most, or one row.

    `widths` is the number of tokens of each row in a batch, with fixed padding.
    """
    most = SCORING_TOKENS[device.type]
    order = np.argsort(widths, kind="stable")
    while len(order):
        ahead = widths[order[: most // widths[order[0]]]]
        size = max(1, int((np.arange(1, len(ahead) + 1) * ahead <= most).sum()))
        yield order[:size]
        order = order[size:]


def recommend_max_length(lengths: np.ndarray) -> int:
    """Return the smallest multiple of 16 that truncates at most 1% of the texts; 512 at most."""
    return int(min(512, 16 * np.ceil(np.percentile(lengths, 99) / 16)))


def truncation_table(lengths: np.ndarray, cuts: Sequence[int] = (64, 128, 256)) -> "pd.DataFrame":
    """Return, for each `max_length`, the percentage of truncated texts and the tokens per text with either padding."""
    import pandas as pd

    table = pd.DataFrame({"max_length": list(cuts)})
    table["textos cortados (%)"] = [100 * float((lengths > cut).mean()) for cut in cuts]
    table["tokens por texto, relleno fijo"] = table["max_length"]
    table["tokens por texto, sin relleno"] = [float(np.minimum(lengths, cut).mean()) for cut in cuts]
    table["tokens de más (veces)"] = table["max_length"] / table["tokens por texto, sin relleno"]
    return table.set_index("max_length")


def truncation_by_class(
    lengths: np.ndarray, labels: Sequence[str], cuts: Sequence[int] = (64, 128, 256)
) -> "pd.DataFrame":
    """Return, for each class, its rows, p95 length and the percentage of its texts cut at each `max_length`."""
    import pandas as pd

    groups = pd.Series(lengths).groupby(pd.Series(list(labels)))
    table = pd.DataFrame({"filas": groups.size(), "p95 (tokens)": groups.quantile(0.95)})
    for cut in cuts:
        table[f"cortados a {cut} (%)"] = groups.apply(lambda g, cut=cut: 100 * (g > cut).mean())
    return table.sort_values("p95 (tokens)", ascending=False)
