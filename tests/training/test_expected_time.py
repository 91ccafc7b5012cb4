"""Time estimate from real steps, without effect on the training that follows."""

import pytest
import torch

from ocensa_nb.engine import batching, step
from ocensa_nb.errors import duration
from ocensa_nb.models import catalogue, tokens
from ocensa_nb.training import expected_time, train

CPU = torch.device("cpu")


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


@pytest.fixture
def estimate(config, notices, monkeypatch):
    """Return a function that estimates a training of three epochs, given the seconds of (tokens, calls before)."""
    tokenizer = catalogue.load_tokenizer("tiny", notices.texts)
    table = tokens.encode(notices.texts, tokenizer, config.max_length)
    model = step.classifier(config, notices, catalogue.load_encoder("tiny", tokenizer))
    made = step.build(config, notices, table, model, "fp32", CPU)
    loader, sampler = batching.step_loader(table, notices, config, CPU)
    measured = []

    def tokens_of(rows):
        return len(rows) * int(table.lengths[rows].max())

    def estimated(seconds):
        measured.clear()
        monkeypatch.setattr(made, "table", table)
        monkeypatch.setattr(expected_time, "REPEATS", 3)
        monkeypatch.setattr(type(loader.dataset), "__getitem__", lambda dataset, rows: rows)
        monkeypatch.setattr(made, "step", lambda rows: measured.append(tokens_of(rows)))
        monkeypatch.setattr(expected_time, "logits", lambda model, table, rows, *_: measured.append(tokens_of(rows)))
        monkeypatch.setattr(
            expected_time, "seconds_of", lambda work, device: work() or seconds(measured[-1], len(measured) - 1)
        )
        return expected_time.estimate_time(made, loader.dataset, sampler, notices.split, config.replace(epochs=3))

    sides = []
    for rows in (notices.split["val"], notices.split["test"]):
        sides.append(sum(tokens_of(rows[batch]) for batch in tokens.scoring_batches(table.lengths[rows], CPU)))
    return estimated, sum(tokens_of(rows) for rows in sampler), *sides


def test_estimate_time_sums_steps_and_scored_batches_by_their_tokens(estimate):
    estimated, steps, val, test = estimate
    found = estimated(lambda size, calls: size / 10_000)
    assert found.epoch == pytest.approx((steps + val) / 10_000, rel=1e-6)
    assert found.training == pytest.approx((3 * (steps + val) + val + test) / 10_000, rel=1e-6)
    assert f"Tiempo previsto: {duration(found.training)} ± 0 %, a {duration(found.epoch)}" in str(found)


def test_estimate_time_leaves_out_the_start_of_a_cold_device(estimate):
    estimated, steps, val, _ = estimate
    found = estimated(lambda size, calls: size / 10_000 + 30 * (calls == 0))
    assert found.epoch == pytest.approx((steps + val) / 10_000, rel=1e-6)
    assert found.spread == 0


def test_estimate_time_of_rounds_that_differ_is_their_median_with_the_spread(estimate):
    estimated, steps, val, _ = estimate
    found = estimated(lambda size, calls: size * (1.0, 1.1, 0.9, 1.0, 1.0)[calls % 5] / 10_000)
    assert 0.9 <= 10_000 * found.epoch / (steps + val) <= 1.1
    assert 0.001 < found.spread <= 0.1


def test_estimate_time_of_a_slow_device_measures_the_smallest_and_the_largest_in_three_rounds(estimate):
    estimated, steps, val, _ = estimate
    calls = []
    found = estimated(lambda size, _: calls.append(size) or size)
    assert len(calls) == 2 * (2 + 3 * 2)
    assert found.epoch == pytest.approx(steps + val, rel=1e-6)


def test_duration_uses_seconds_minutes_or_hours():
    assert [duration(s) for s in (3.4, 99, 600, 7200)] == ["3 s", "99 s", "10,0 min", "2,0 h"]
