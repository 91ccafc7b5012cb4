"""The classifier: heads, and freezing that is found by structure and silences dropout."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from ocensa_nb.errors import UserError
from ocensa_nb.model import MultiHeadClassifier, count_parameters, describe_parameters, freeze, layers

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
FAMILIES = {
    "bert": lambda: BertModel(BertConfig(**SMALL), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL), add_pooling_layer=False),
    "electra": lambda: ElectraModel(ElectraConfig(**SMALL, embedding_size=8)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2, hidden_dim=32)
    ),
}
IDS = torch.randint(5, 50, (4, 7), generator=torch.Generator().manual_seed(0))


def classifier(family):
    torch.manual_seed(0)
    return MultiHeadClassifier(FAMILIES[family](), {"modo": 5, "causa": 7}, dropout=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_fp32_logits_of_each_head(family):
    logits = classifier(family)(IDS, torch.ones_like(IDS))
    assert {head: tuple(values.shape) for head, values in logits.items()} == {"modo": (4, 5), "causa": (4, 7)}
    assert all(values.dtype == torch.float32 for values in logits.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_freezing_stops_the_embeddings_and_the_first_k_layers_and_nothing_else(family, k):
    model = classifier(family)
    freeze(model, k)
    stack = layers(model.encoder)
    assert len(stack) == 3
    in_layers = {id(p): i for i, layer in enumerate(stack) for p in layer.parameters()}
    for name, parameter in model.named_parameters():
        depth = in_layers.get(id(parameter), -1) if name.startswith("encoder.") else 3
        assert parameter.requires_grad == (k == 0 or depth >= k), name


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_drop_nothing_out_while_trained_ones_do(family):
    model = classifier(family)
    freeze(model, 2)
    model.train()
    stack = layers(model.encoder)
    assert not any(m.training for layer in stack[:2] for m in layer.modules())
    assert all(m.training for m in stack[2].modules())
    assert not model.encoder.embeddings.training
    assert model.shared.training
    model.eval()
    assert not any(m.training for m in model.modules())


def test_freezing_less_again_trains_more_again():
    model = classifier("bert")
    freeze(model, 3)
    few, total = count_parameters(model)
    freeze(model, 0)
    assert count_parameters(model) == (total, total)
    assert few < total


def test_more_layers_than_there_are_is_a_sentence():
    with pytest.raises(UserError, match="freeze_layers = 4: este codificador tiene 3 capas"):
        freeze(classifier("bert"), 4)


def test_the_parameter_count_reads_as_the_guide_prints_it():
    model = classifier("bert")
    freeze(model, 3)
    trainable, total = count_parameters(model)
    share = 100 * trainable / total
    assert describe_parameters(model) == f"Parámetros: {trainable:,} entrenables de {total:,} totales ({share:.1f}%)"
