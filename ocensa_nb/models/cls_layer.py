"""The last layer for `[CLS]` only: the heads read one position, so the others are not computed."""

import torch
from torch import nn


class ClsLayer:
    """The output of a BERT or DistilBERT layer at the first position, without keys and values of the tokens.

    With one query q, the score of token j is q·(K x_j) = (Kᵀq)·x_j, and the context Σ p_j (V x_j) = V (Σ p_j x_j):
    both projections move from every token to the one query. The key's bias adds the same to every score, so the
    softmax cancels it; the value's bias is multiplied by Σ p_j, which is not 1 after dropout.

    Uses the layer's own modules, so weights, dropout and training mode are the layer's. Raises `AttributeError` for
    a layer of another family.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, attention = layer, layer.attention
        if hasattr(attention, "self"):  # BERT, RoBERTa, ELECTRA
            inner = attention.self
            self.query, self.key, self.value = inner.query, inner.key, inner.value
            self.heads, self.dropout = inner.num_attention_heads, inner.dropout
            self.rest = _bert_rest
        else:
            self.query, self.key, self.value = attention.q_lin, attention.k_lin, attention.v_lin
            self.heads, self.dropout = attention.n_heads, attention.dropout
            self.rest = _distilbert_rest

    def __call__(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Take the layer's input (rows, tokens, width) and mask (rows, tokens); return its output (rows, width)."""
        first = hidden[:, 0]
        rows, width = first.shape
        size = width // self.heads
        keys = self.key.weight.view(self.heads, size, width)
        values = self.value.weight.view(self.heads, size, width)

        query = self.query(first).view(rows, self.heads, size).transpose(0, 1)
        query = torch.bmm(query, keys).transpose(0, 1)  # (rows, heads, width)
        scores = torch.bmm(query, hidden.transpose(1, 2)).float() * size**-0.5
        shares = scores.masked_fill(attention_mask[:, None] == 0, -torch.inf).softmax(-1)
        shares = self.dropout(shares)  # (rows, heads, tokens)
        mixed = torch.bmm(shares, hidden).transpose(0, 1)  # (heads, rows, width)
        context = torch.bmm(mixed, values.transpose(1, 2)).transpose(0, 1)  # (rows, heads, size)
        context = context + shares.sum(-1, keepdim=True) * self.value.bias.view(self.heads, size)
        return self.rest(self.layer, context.reshape(rows, width), first)


def _bert_rest(layer: nn.Module, context: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    attended = layer.attention.output(context, first)
    return layer.output(layer.intermediate(attended), attended)


def _distilbert_rest(layer: nn.Module, context: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    attended = layer.sa_layer_norm(layer.attention.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)
