"""Train only the embedding rows whose tokens occur: the others never see a gradient.

A vocabulary has some 31,000 tokens and a file of notices uses a few thousand. The optimiser would read and write the
moments of every row at each step, and the backward pass fill a gradient of zeros for them.
"""

import numpy as np
import torch
from torch import nn

from ocensa_nb.encoders.token_table import TokenTable


class UsedRows(nn.Embedding):
    """The rows of an embedding that occur, and one more that stands for all the rest.

    A row without a gradient only decays, and all such rows by the same factor: the one more begins at 1 and ends at
    that factor, whatever optimiser, schedule, skipped steps or restored epoch there were.
    """

    def __init__(self, full: nn.Embedding, used: np.ndarray) -> None:
        index = torch.from_numpy(used).to(full.weight.device)
        rows = torch.cat([full.weight.detach()[index], full.weight.new_ones(1, full.embedding_dim)])
        super().__init__(*rows.shape, full.padding_idx, _weight=rows)  # given, so that nothing is drawn at random
        self.full, self.used = (full,), index  # in a tuple: not a submodule

    def widened(self) -> nn.Embedding:
        """Return the whole embedding with what these rows have become."""
        (full,) = self.full
        with torch.no_grad():
            full.weight.mul_(self.weight[-1])
            full.weight[self.used] = self.weight[:-1]
        return full


def narrow(encoder: nn.Module, table: TokenTable) -> TokenTable:
    """Give the encoder an embedding of the used tokens alone, and return the table in its ids.

    The padding id stays what it is, because RoBERTa counts its positions by it. The encoder is left whole where it
    would gain nothing, and where its own padding id is another than the tokenizer's.
    """
    full = encoder.get_input_embeddings()
    others = np.setdiff1d(table.ids, [table.pad_id])
    if full.padding_idx not in (None, table.pad_id) or table.pad_id > len(others) or len(others) + 2 > len(full.weight):
        return table
    used = np.insert(others, table.pad_id, table.pad_id).astype(np.int64)
    new_ids = np.zeros(len(full.weight), np.int32)
    new_ids[used] = np.arange(len(used))
    encoder.set_input_embeddings(UsedRows(full, used))
    return TokenTable(new_ids[table.ids], table.offsets, table.pad_id, table.max_length)


def widen(encoder: nn.Module) -> None:
    """Give the encoder its whole vocabulary back; nothing is done where it was never narrowed."""
    rows = encoder.get_input_embeddings()
    if isinstance(rows, UsedRows):
        encoder.set_input_embeddings(rows.widened())
