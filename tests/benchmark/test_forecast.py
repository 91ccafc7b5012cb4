"""Forecast before training: truncated texts, trainable parameters and expected time of a config."""

import numpy as np
import pytest

from ocensa_nb.benchmark import forecast as forecasts
from ocensa_nb.config import TrainConfig, baseline_of
from ocensa_nb.errors import UserError
from ocensa_nb.models import catalogue


@pytest.fixture(scope="module")
def forecast(notices):
    return forecasts.Forecast(notices)


def predict(forecast, config):
    assert forecast.measure(config)
    return forecast.expected(config)


def test_forecast_parameters_match_those_recorded_by_training(forecast, run):
    trainable, total = forecast.parameters(run.config)
    assert {"trainable": trainable, "total": total} == run.metadata["parameters"]


def test_cut_share_matches_share_of_texts_over_max_length(forecast, notices):
    tokenizer = catalogue.load_tokenizer("minilm")
    longer = [len(tokenizer(text)["input_ids"]) > 40 for text in notices.texts]
    assert forecast.cut_share("minilm", 40) == pytest.approx(np.mean(longer))


def test_forecast_of_many_texts_samples_every_split(notices, monkeypatch):
    monkeypatch.setattr(forecasts, "SAMPLED_TEXTS", 50)
    few, all_of_them = forecasts.Forecast(notices), forecasts.Forecast(notices)
    all_of_them._sides, all_of_them._rows = notices.split, np.concatenate(list(notices.split.values()))
    assert len(few.encoder("minilm").table) <= 50 + 3
    assert few.cut_share("minilm", 40) == pytest.approx(all_of_them.cut_share("minilm", 40), abs=0.25)


def test_forecast_of_encoder_not_downloaded_uses_its_catalogue_entry(forecast, monkeypatch):
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    beto = forecasts.Forecast(forecast.notices).encoder("beto")
    assert (beto.here, beto.depth, beto.positions, beto.counted_with) == (False, 12, 512, "minilm")
    _, total = forecast.parameters(TrainConfig(model="beto-random"))
    assert 109e6 < total < 112e6


def test_forecast_of_unknown_encoder_raises_user_error(forecast, monkeypatch):
    monkeypatch.setattr(catalogue, "_cached_snapshot", lambda hub_id: None)
    with pytest.raises(UserError, match="no está en esta máquina"):
        forecast.encoder("nadie/lo-conoce")


def test_expected_time_is_measured_once_and_depends_on_the_config(forecast, config):
    assert not forecast.is_measured(config)
    with pytest.raises(KeyError):
        forecast.expected(config)
    one = predict(forecast, config)
    assert forecast.is_measured(config.replace(epochs=9))
    assert not forecast.is_measured(config.replace(freeze_layers=0))
    measured = forecast.measured_seconds(config)
    twice = predict(forecast, config.replace(epochs=2 * config.epochs))
    assert one.seconds < twice.seconds < 2 * one.seconds  # frozen layers and test rows are computed once
    assert predict(forecast, baseline_of(config)).seconds > twice.seconds
    # The same precision is not measured again.
    assert forecast.measured_seconds(config, baseline_of(config)) == measured
    assert 0 < one.spread < np.inf
    assert str(one).startswith(("0 s ±", "1 s ±", "2 s ±"))


def test_expected_time_is_less_with_frozen_layers_and_least_with_cached_ones(forecast, config):
    trained, frozen, cached = (
        predict(forecast, config.replace(freeze_layers=k, cache_features=c, epochs=20)).seconds
        for k, c in ((0, False), (1, False), (1, True))
    )
    assert cached < frozen < trained


def test_measurement_cancelled_leaves_nothing_measured(notices, config):
    unmeasured = forecasts.Forecast(notices)
    assert not unmeasured.measure(config, cancelled=lambda: True)
    assert not unmeasured.is_measured(config)
