"""Classifier: logits per head, freezing of layers, and the last layer computed for `[CLS]` only."""

import pytest
import torch
import transformers
from torch import nn

from ocensa_nb.errors import UserError, num
from ocensa_nb.models.catalogue import untrained
from ocensa_nb.models.classifier import MultiHeadClassifier, count_parameters, describe_parameters, freeze
from ocensa_nb.models.last_layer import ClsLayer
from ocensa_nb.models.layers import layers, takes_ready_mask
from tests.helpers.families import CLS_FAMILIES, FAMILIES, IDS, MASK, classifier, train_steps


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_of_every_family_returns_fp32_logits_per_head(family):
    logits = classifier(family)(IDS, torch.ones_like(IDS))
    assert {head: tuple(values.shape) for head, values in logits.items()} == {"modo": (4, 5), "causa": (4, 7)}
    assert all(values.dtype == torch.float32 for values in logits.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [0, 1, 3])
def test_freeze_k_layers_freezes_only_embeddings_and_first_k_layers(family, k):
    model = classifier(family)
    freeze(model, k)
    stack = layers(model.encoder)
    assert len(stack) == 3
    in_layers = {id(p): i for i, layer in enumerate(stack) for p in layer.parameters()}
    for name, parameter in model.named_parameters():
        depth = in_layers.get(id(parameter), -1) if name.startswith("encoder.") else 3
        if name.startswith(("encoder.final_norm.", "encoder.norm.")):
            depth = 2  # it is applied after the last layer, and frozen with it
        assert parameter.requires_grad == (k == 0 or depth >= k), name


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_stay_in_eval_mode_while_training(family):
    model = classifier(family)
    freeze(model, 2)
    model.train()
    stack = layers(model.encoder)
    assert not any(m.training for layer in stack[:2] for m in layer.modules())
    assert all(m.training for m in stack[2].modules())
    assert not model.encoder.get_input_embeddings().training
    assert model.shared.training
    model.eval()
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_frozen_forward_after_60_steps_is_bit_identical(family, k):
    model = classifier(family)
    freeze(model, k)
    frozen = model.frozen_forward(k)
    model.eval()
    with torch.no_grad():
        before = frozen(IDS, MASK)
    train_steps(model, lambda: model(IDS, MASK))
    with torch.no_grad():
        assert torch.equal(frozen(IDS, MASK), before)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.skipif(transformers.__version__ < "5", reason="transformers 4 does not accept a 4-D attention mask")
def test_takes_ready_mask_of_supported_families_is_true(family):
    assert takes_ready_mask(FAMILIES[family]())


def test_takes_ready_mask_if_rejected_or_read_differently_is_false():
    encoder = FAMILIES["bert"]()
    original = encoder.forward
    encoder.forward = lambda input_ids, attention_mask: original(
        input_ids, attention_mask=attention_mask if attention_mask.ndim == 2 else None
    )
    assert not takes_ready_mask(encoder)
    assert not takes_ready_mask(FAMILIES["mpnet"]())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_a_text_longer_than_the_window_are_those_of_the_plain_encoder(family):
    model = classifier(family).eval()
    ids = torch.randint(5, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) < torch.tensor([[12], [9]])).long()
    with torch.no_grad():
        hidden = model.shared(model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
        torch.testing.assert_close(model(ids, mask), {name: head(hidden) for name, head in model.heads.items()})


def test_freeze_zero_after_three_makes_all_parameters_trainable():
    model = classifier("bert")
    freeze(model, 3)
    few, total = count_parameters(model)
    freeze(model, 0)
    assert count_parameters(model) == (total, total)
    assert few < total


@pytest.mark.parametrize(("all_but", "k"), [(-1, 2), (-2, 1)])
def test_freeze_all_layers_but_some_trains_the_same_parameters(all_but, k):
    one, other = classifier("bert"), classifier("bert")
    freeze(one, all_but)
    freeze(other, k)
    assert one.frozen == other.frozen == k
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in other.parameters()]


@pytest.mark.parametrize("number", [4, -3])
def test_freeze_more_layers_than_the_encoder_has_raises_user_error(number):
    with pytest.raises(UserError, match=f"freeze_layers = {number}: este codificador tiene 3 capas; use de -2 a 3"):
        freeze(classifier("bert"), number)


def test_describe_parameters_uses_the_format_of_the_guide():
    model = classifier("bert")
    freeze(model, 3)
    trainable, total = count_parameters(model)
    share = num(100 * trainable / total, 1)
    assert describe_parameters(model) == f"Parámetros: {num(trainable)} entrenables de {num(total)} totales ({share}%)"


@pytest.mark.parametrize("family", CLS_FAMILIES)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_cls_only_last_layer_gives_the_outputs_and_gradients_of_the_full_layer(family, k):
    seen = []
    for short in (False, True):
        model = classifier(family)
        with torch.no_grad():  # biases start at zero, which would hide an error
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
        freeze(model, k)
        model.eval()
        assert not short or model.shorten(IDS, MASK)
        logits = model(IDS, MASK)
        sum(values.square().sum() for values in logits.values()).backward()
        seen.append((logits, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (logits, whole), (short_logits, short) = seen
    torch.testing.assert_close(short_logits, logits, atol=1e-6, rtol=1e-6)
    largest = max(gradient.abs().max() for gradient in whole.values() if gradient is not None)
    for name, gradient in whole.items():
        if gradient is None:
            assert short[name] is None
        else:
            # The key bias of the last layer does not affect the output: its gradient is zero up to rounding.
            actual = torch.zeros_like(gradient) if short[name] is None else short[name]
            torch.testing.assert_close(actual, gradient, atol=1e-5 * largest.item(), rtol=1e-5, msg=name)


@pytest.mark.parametrize("family", CLS_FAMILIES)
def test_cls_only_last_layer_has_the_dropout_distribution_of_the_full_layer(family):
    moments = []
    for short in (False, True):
        model = classifier(family)
        with torch.no_grad():
            for module in layers(model.encoder)[-1].modules():
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.fill_(0.5)
        freeze(model, 2)  # dropout in the last layer only
        model.eval()
        assert not short or model.shorten(IDS, MASK)
        layers(model.encoder)[-1].train()
        torch.manual_seed(1)
        ids, mask = IDS.repeat(300, 1), MASK.repeat(300, 1)
        with torch.no_grad():
            draws = torch.cat([model(ids, mask)["causa"].reshape(300, len(IDS), -1) for _ in range(10)])
        moments.append((draws.mean(0), draws.std(0)))
    (mean, spread), (short_mean, short_spread) = moments
    assert ((short_mean - mean).abs() < 6 * spread / 3000**0.5 + 1e-6).all()
    torch.testing.assert_close(short_spread, spread, rtol=0.12, atol=1e-4)


def test_shorten_unsupported_family_keeps_the_full_layer_and_outputs():
    from transformers import FNetConfig, FNetModel

    torch.manual_seed(0)
    encoder = FNetModel(
        FNetConfig(hidden_size=16, num_hidden_layers=2, intermediate_size=32, vocab_size=50), add_pooling_layer=False
    )
    encoder.forward = lambda input_ids=None, attention_mask=None, original=encoder.forward: original(input_ids)
    model = MultiHeadClassifier(encoder, {"causa": 7}, dropout=0.1).eval()
    before = model(IDS, MASK)["causa"]
    assert not model.shorten(IDS, MASK)
    assert torch.equal(model(IDS, MASK)["causa"], before)


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
NO_DEVICE = RuntimeError("CUDA error: an illegal memory access was encountered")


def raising(error):
    def forward(*_, **__):
        raise error

    return forward


@pytest.mark.parametrize("error", [NO_MEMORY, NO_DEVICE])
def test_failing_device_is_raised_and_not_reported_as_unsupported(error, monkeypatch):
    model = classifier("bert")
    with monkeypatch.context() as patch:
        patch.setattr(ClsLayer, "__call__", raising(error))
        with pytest.raises(type(error), match="CUDA"):
            model.shorten(IDS, MASK)
    assert model.shorten(IDS, MASK)
    monkeypatch.setattr(model.encoder, "forward", raising(error))
    for call in (lambda: takes_ready_mask(model.encoder), lambda: freeze(model, 1), lambda: model.shorten(IDS, MASK)):
        with pytest.raises(type(error), match="CUDA"):
            call()


@pytest.mark.parametrize("family", CLS_FAMILIES)
def test_shorten_on_the_device_meta_computes_the_last_layer_for_cls_only(family):
    empty = untrained(FAMILIES[family]().config, "meta")
    model = MultiHeadClassifier(empty, {"causa": 7}, dropout=0.1).to("meta")
    ids, mask = IDS.to("meta"), MASK.to("meta")
    assert model.shorten(ids, mask)
    assert model(ids, mask)["causa"].shape == (4, 7)


def test_takes_ready_mask_on_the_device_meta_calls_nothing(monkeypatch):
    with torch.device("meta"):
        model = classifier("bert")
    monkeypatch.setattr(model.encoder, "forward", lambda *_, **__: pytest.fail("the encoder was called"))
    assert not takes_ready_mask(model.encoder)
