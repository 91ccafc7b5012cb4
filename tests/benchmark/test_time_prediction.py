"""Forecast before training: truncated texts, trainable parameters and expected time of a config."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.benchmark import pricing, time_prediction
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.encoders import loading
from ocensa_nb.errors import UserError
from ocensa_nb.runtime.seeding import random_state


@pytest.fixture(scope="module")
def forecast(notices):
    return time_prediction.Forecast(notices)


def test_forecast_parameters_match_those_recorded_by_training(forecast, run):
    trainable, total = forecast.parameters(run.config)
    assert {"trainable": trainable, "total": total} == run.metadata["parameters"]


def test_cut_share_matches_share_of_texts_over_max_length(forecast, notices):
    tokenizer = loading.load_tokenizer("minilm")
    longer = [len(tokenizer(text)["input_ids"]) > 40 for text in notices.texts]
    assert forecast.cut_share("minilm", 40) == pytest.approx(np.mean(longer))


def test_forecast_of_many_texts_samples_every_split(notices, monkeypatch):
    monkeypatch.setattr(time_prediction, "SAMPLED_TEXTS", 50)
    few, all_of_them = time_prediction.Forecast(notices), time_prediction.Forecast(notices)
    all_of_them._sides, all_of_them._rows = notices.split, np.concatenate(list(notices.split.values()))
    assert len(few.encoder("minilm").table) <= 50 + 3
    assert few.cut_share("minilm", 40) == pytest.approx(all_of_them.cut_share("minilm", 40), abs=0.25)


def test_forecast_of_encoder_not_downloaded_uses_its_catalogue_entry(forecast, monkeypatch):
    monkeypatch.setattr(loading, "_cached_snapshot", lambda hub_id: None)
    beto = time_prediction.Forecast(forecast.notices).encoder("beto")
    assert (beto.here, beto.depth, beto.positions, beto.counted_with) == (False, 12, 512, "minilm")
    _, total = forecast.parameters(TrainConfig(model="beto-random"))
    assert 109e6 < total < 112e6


def test_forecast_of_unknown_encoder_raises_user_error(forecast, monkeypatch):
    monkeypatch.setattr(loading, "_cached_snapshot", lambda hub_id: None)
    with pytest.raises(UserError, match="no está en esta máquina"):
        forecast.encoder("nadie/lo-conoce")


def test_expected_time_is_measured_once_and_depends_on_the_config(forecast, config):
    assert not forecast.is_priced(config)
    one = forecast.expected(config)
    assert forecast.is_priced(config.replace(freeze_layers=0, epochs=9))
    measured = forecast.measured_seconds(config)
    twice = forecast.expected(config.replace(epochs=2 * config.epochs))
    assert one.seconds < twice.seconds < 2 * one.seconds  # frozen layers and test rows are computed once
    assert forecast.expected(baseline_of(config)).seconds > twice.seconds
    # The same precision is not measured again.
    assert forecast.measured_seconds(config, baseline_of(config)) == measured
    assert 0 < one.spread < np.inf
    assert str(one).startswith(("0 s ±", "1 s ±", "2 s ±"))


def test_pricing_measure_leaves_random_state_unchanged(config, notices):
    tokenizer = loading.load_tokenizer("tiny", notices.texts)
    before = random_state()
    pricing.measure(loading.architecture("tiny", tokenizer), "fp32", config, notices)
    assert all((a == b).all() for a, b in zip(before, random_state(), strict=True))


@settings(max_examples=40, deadline=None)
@given(rates=st.lists(st.floats(1e-6, 1e-2), min_size=4, max_size=4), seed=st.integers(0, 2**16))
def test_fit_of_exact_times_recovers_the_rates(rates, seed):
    amounts = np.random.default_rng(seed).uniform(1, 100, (20, 4))
    found, spread = pricing.fit(amounts, amounts @ rates)
    np.testing.assert_allclose(found, rates, rtol=1e-4)
    assert spread < 1e-4


def test_fit_of_noisy_times_reports_two_sigma_spread():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 100, (60, 3))
    _, spread = pricing.fit(amounts, amounts @ [1e-3, 2e-3, 3e-3] * rng.normal(1, 0.1, 60))
    assert spread == pytest.approx(0.2, rel=0.3)  # two sigma


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 256)), min_size=2, max_size=6), cut=st.integers(1, 5)
)
def test_work_of_an_epoch_is_the_sum_of_its_steps(shapes, cut):
    layout = pricing.Layout(trained=2, run=3, short=1, embeds=True)
    whole, (first, second) = np.array(shapes), (np.array(shapes[:cut]), np.array(shapes[cut:]).reshape(-1, 2))
    parts = pricing.work(first, layout) + (pricing.work(second, layout) if len(second) else 0)
    np.testing.assert_allclose(pricing.work(whole, layout), parts)


@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({"freeze_layers": 0, "cls_only": False}, (12, 0, 0, True, True)),
        ({"freeze_layers": 0, "cls_only": True}, (11, 0, 1, True, True)),
        ({"freeze_layers": 10, "cls_only": True, "cache_trunk": False}, (1, 10, 1, True)),
        ({"freeze_layers": 10, "cls_only": True, "cache_trunk": True}, (1, 0, 1, False)),
        ({"freeze_layers": 12, "cls_only": True, "cache_trunk": False}, (0, 12, 0, True)),
    ],
)
def test_layout_of_config_counts_trained_frozen_and_short_layers(changes, layout):
    assert pricing.Layout.of(TrainConfig(**changes), 12) == pricing.Layout(*layout)
