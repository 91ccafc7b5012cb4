"""The last layer of an encoder, computed at the first position only: the one that the heads read."""

import torch
from torch import nn
from torch.nn import functional

from ocensa_nb.models.layers import Slice, layers


def last_layer(encoder: nn.Module, ready_mask: bool) -> "ClsLayer | Slice":
    """Return a function from the last layer's input and a mask to the encoder's output (rows, 1, width)."""
    stack = layers(encoder)
    if hasattr(stack[-1], "attention"):
        return ClsLayer(stack[-1])
    return Slice(encoder, ready_mask, len(stack) - 1, len(stack), nn.ModuleList([RotaryClsLayer(stack[-1])]))


class ClsLayer:
    """The output of a BERT or DistilBERT layer at the first position, without keys and values of the tokens.

    With one query q, the score of token j is q·(K x_j) = (Kᵀq)·x_j, and the context Σ p_j (V x_j) = V (Σ p_j x_j).
    The key's bias adds the same to every score, so the softmax cancels it. The value's bias is multiplied by Σ p_j,
    which is not 1 after dropout. Raises `AttributeError` for a layer of another family.
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
        """Take the layer's input (rows, tokens, width) and mask (rows, tokens); return its output (rows, 1, width)."""
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
        return self.rest(self.layer, context.reshape(rows, width), first)[:, None]


def _bert_rest(layer: nn.Module, context: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    attended = layer.attention.output(context, first)
    return layer.output(layer.intermediate(attended), attended)


def _distilbert_rest(layer: nn.Module, context: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    attended = layer.sa_layer_norm(layer.attention.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


class RotaryClsLayer(nn.Module):
    """A ModernBERT or EuroBERT layer at the first position: one query, and keys and values of all tokens.

    It stands in the stack, where the encoder gives it the mask of its window and its rotary positions. Raises
    `AttributeError` for a layer of another family.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.mlp = layer.mlp
        if hasattr(layer, "attn"):  # ModernBERT
            self.attention_type = layer.attention_type
            self.attention, self.attention_norm, self.mlp_norm = layer.attn, layer.attn_norm, layer.mlp_norm
            self.output = nn.Sequential(layer.attn.Wo, layer.attn.out_drop)
        else:
            self.attention, self.attention_norm = layer.self_attn, layer.input_layernorm
            self.mlp_norm, self.output = layer.post_attention_layernorm, layer.self_attn.o_proj

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: object,
    ) -> torch.Tensor:
        """Take what the encoder gives its layers; return (rows, 1, width)."""
        attention, normed = self.attention, self.attention_norm(hidden)
        inputs = (normed[:, :1], normed, normed)
        projected = [functional.linear(x, *matrix) for x, matrix in zip(inputs, _matrices(attention), strict=True)]
        query, key, value = (x.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for x in projected)
        cos, sin = (part[:, None] for part in position_embeddings)
        context = functional.scaled_dot_product_attention(
            _rotated(query, cos[:, :, :1], sin[:, :, :1]),
            _rotated(key, cos, sin),
            value,
            attn_mask=None if attention_mask is None else attention_mask[:, :, :1],
            dropout_p=attention.attention_dropout if attention.training else 0.0,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        first = hidden[:, :1] + self.output(context.transpose(1, 2).flatten(2))
        return first + self.mlp(self.mlp_norm(first))


def _matrices(attention: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Return weight and bias of query, key and value."""
    if hasattr(attention, "Wqkv"):  # ModernBERT: one matrix for the three
        fused = attention.Wqkv
        return list(zip(fused.weight.chunk(3), (None,) * 3 if fused.bias is None else fused.bias.chunk(3), strict=True))
    return [(linear.weight, linear.bias) for linear in (attention.q_proj, attention.k_proj, attention.v_proj)]


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = states.chunk(2, -1)
    return (states * cos + torch.cat([-right, left], -1) * sin).to(states.dtype)
