"""Time estimate from real steps, without effect on the training that follows."""

import numpy as np
import pytest
import torch

from ocensa_nb.runtime.timing import duration
from ocensa_nb.training import expected_time, train


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_time_estimate_does_not_change_losses_or_metrics(run, config, notices, tmp_path, monkeypatch, precision):
    settings = config.replace(precision=precision)
    if precision != "fp32":
        run = train.fit(settings.replace(out=str(tmp_path / "measured")), notices)
    monkeypatch.setattr(expected_time, "estimate_time", lambda *_: expected_time.Estimate(1.0, 1.0, 0.0))
    plain = train.fit(settings.replace(out=str(tmp_path / "plain")), notices)
    histories = [[line["loss"] for line in one.history()] for one in (run, plain)]
    assert histories[0] == histories[1]
    assert run.metrics == plain.metrics


def test_estimate_time_sums_steps_by_size_and_scoring(config, notices, monkeypatch):
    from ocensa_nb.engine import batching, step
    from ocensa_nb.models import catalogue, tokens

    tokenizer = catalogue.load_tokenizer("tiny", notices.texts)
    table = tokens.encode(notices.texts, tokenizer, config.max_length)
    model = step.classifier(config, notices, catalogue.load_encoder("tiny", tokenizer))
    cpu = torch.device("cpu")
    made = step.build(config, notices, table, model, "fp32", cpu)
    loader, sampler = batching.step_loader(made.table, notices, config, cpu)
    # One second per 100 padded tokens of a step; two seconds per scoring.
    monkeypatch.setattr(
        expected_time, "_step_seconds", lambda engine, batches, rows: len(rows) * table.lengths[rows].max() / 100
    )
    monkeypatch.setattr(expected_time, "_scoring_seconds", lambda *_: 2.0)
    found = expected_time.estimate_time(made, loader.dataset, sampler, notices.split, config.replace(epochs=3))
    steps = sum(len(rows) * table.lengths[rows].max() / 100 for rows in sampler)
    assert found.epoch == pytest.approx(steps + 2, rel=1e-6)
    assert found.training == pytest.approx(3 * (steps + 2) + 4, rel=1e-6)
    assert f"Tiempo previsto: {duration(found.training)}, a {duration(found.epoch)}" in str(found)
    assert all(np.isfinite(p.detach()).all() for p in model.parameters())


def test_duration_uses_seconds_minutes_or_hours():
    assert [duration(s) for s in (3.4, 99, 600, 7200)] == ["3 s", "99 s", "10,0 min", "2,0 h"]
