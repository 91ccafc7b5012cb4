"""Small encoders of every supported family, with random weights."""

import torch
import transformers
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from ocensa_nb.models.classifier import MultiHeadClassifier

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
DEBERTA_V3 = {  # settings of microsoft/mdeberta-v3-base: every layer uses `rel_embeddings`
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
# Every second or third layer sees all tokens; the others see four to each side, of texts of up to seven.
PRE_NORM = {"initializer_range": 0.3, "pad_token_id": 0, "attention_dropout": 0.1}
MODERNBERT = {**PRE_NORM, "local_attention": 8, "mlp_dropout": 0.1}
EUROBERT = {**PRE_NORM, "num_key_value_heads": 1}
FAMILIES = {
    "bert": lambda: BertModel(BertConfig(**SMALL), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL), add_pooling_layer=False),
    "electra": lambda: ElectraModel(ElectraConfig(**SMALL, embedding_size=8)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=32)
    ),
    "deberta-v2": lambda: DebertaV2Model(DebertaV2Config(**SMALL, **DEBERTA_V3)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SMALL), add_pooling_layer=False),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SMALL, **MODERNBERT, global_attn_every_n_layers=3)),
    "modernbert, last layer global": lambda: ModernBertModel(
        ModernBertConfig(**SMALL, **MODERNBERT, global_attn_every_n_layers=2, attention_bias=True)
    ),
}
CLS_FAMILIES = ["bert", "roberta", "electra", "distilbert"]  # their last layer is computed for [CLS] only
if hasattr(transformers, "EuroBertModel"):
    FAMILIES["eurobert"] = lambda: transformers.EuroBertModel(transformers.EuroBertConfig(**SMALL, **EUROBERT))
    CLS_FAMILIES += ["modernbert", "modernbert, last layer global", "eurobert"]
IDS = torch.randint(5, 50, (4, 7), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(7) < torch.tensor([[7], [3], [5], [6]])).long()


def classifier(family):
    torch.manual_seed(0)
    return MultiHeadClassifier(FAMILIES[family](), {"modo": 5, "causa": 7}, dropout=0.1)


def train_steps(model, logits, steps=60):
    """Train with a high learning rate, so that a change of the frozen part would show."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = [nn.functional.cross_entropy(values, torch.arange(len(values))) for values in logits().values()]
        sum(losses).backward()  # one class per row, so that the loss depends on the encoder's output
        optimizer.step()
