"""The trunk cache is exact: the same hidden states, the same gradients, the same loss curve and metrics."""

import numpy as np
import pytest
import torch
from test_model import FAMILIES, IDS, classifier

from ocensa_nb import train, trunk
from ocensa_nb.model import count_parameters, freeze
from ocensa_nb.tokens import TokenTable

LENGTHS = np.array([7, 3, 5, 6])
TABLE = TokenTable(
    np.concatenate([IDS[row, :length].numpy() for row, length in enumerate(LENGTHS)]).astype(np.int32),
    np.concatenate([[0], np.cumsum(LENGTHS)]),
    pad_id=0,
    max_length=16,
)
ROWS = np.array([2, 0, 3])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_logits_and_gradients_are_those_of_the_whole_encoder(family, k):
    model = classifier(family)
    freeze(model, k)
    counted = count_parameters(model)
    hidden, note = trunk.build(model, TABLE, k, "fp32")
    assert note == ""
    assert count_parameters(model) == counted
    model.eval()
    seen = []
    for table in (TABLE, hidden):
        model.zero_grad()
        logits = model(*table.batch(ROWS))
        sum(values.square().sum() for values in logits.values()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        seen.append((logits, gradients))
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen[0][1], seen[1][1], atol=1e-5, rtol=1e-4)


def test_a_training_with_the_cache_has_the_losses_and_metrics_of_one_without(config, notices, tmp_path):
    runs = [
        train.fit(config.replace(out=str(tmp_path / str(cached)), freeze_layers=2, cache_trunk=cached), notices)
        for cached in (True, False)
    ]
    losses = [[line["loss"] for line in run.history() if "step" in line] for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    assert runs[0].metrics == runs[1].metrics


def test_without_the_memory_for_it_the_training_goes_on_and_says_so(config, notices, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trunk, "MEMORY_SHARE", 0.0)
    run = train.fit(config.replace(out=str(tmp_path / "run"), epochs=1), notices)
    assert "no caben en memoria" in capsys.readouterr().out
    assert run.metrics["epochs"] == 1


def test_an_encoder_that_cannot_be_split_goes_on_without_the_cache(monkeypatch):
    model = classifier("bert")
    monkeypatch.setattr(trunk, "split_encoder", lambda encoder, k: (encoder, encoder))
    table, note = trunk.build(model, TABLE, 1, "fp32")
    assert table is TABLE
    assert "no deja separar" in note
