"""What settings would make of some notices: what is cut, what is trained, and how long it takes, told beforehand."""

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
def interrupt_as_error(notices):
    return time_prediction.Forecast(notices)


def test_the_parameters_are_those_the_training_then_writes_down(interrupt_as_error, run):
    trainable, total = interrupt_as_error.parameters(run.config)
    assert {"trainable": trainable, "total": total} == run.metadata["parameters"]


def test_the_share_cut_is_counted_on_the_very_texts(interrupt_as_error, notices):
    tokenizer = loading.load_tokenizer("minilm")
    longer = [len(tokenizer(text)["input_ids"]) > 40 for text in notices.texts]
    assert interrupt_as_error.cut_share("minilm", 40) == pytest.approx(np.mean(longer))


def test_of_many_texts_some_of_every_side_are_looked_at(notices, monkeypatch):
    monkeypatch.setattr(time_prediction, "SAMPLED_TEXTS", 50)
    few, all_of_them = time_prediction.Forecast(notices), time_prediction.Forecast(notices)
    all_of_them._sides, all_of_them._rows = notices.split, np.concatenate(list(notices.split.values()))
    assert len(few.encoder("minilm").table) <= 50 + 3
    assert few.cut_share("minilm", 40) == pytest.approx(all_of_them.cut_share("minilm", 40), abs=0.25)


def test_an_encoder_that_is_not_here_is_known_by_its_catalogue_entry(interrupt_as_error, monkeypatch):
    monkeypatch.setattr(loading, "_cached_snapshot", lambda hub_id: None)
    beto = time_prediction.Forecast(interrupt_as_error.notices).encoder("beto")
    assert (beto.here, beto.depth, beto.positions, beto.counted_with) == (False, 12, 512, "minilm")
    _, total = interrupt_as_error.parameters(TrainConfig(model="beto-random"))
    assert 109e6 < total < 112e6


def test_an_encoder_nobody_knows_is_refused_with_a_sentence(interrupt_as_error, monkeypatch):
    monkeypatch.setattr(loading, "_cached_snapshot", lambda hub_id: None)
    with pytest.raises(UserError, match="no está en este equipo"):
        interrupt_as_error.encoder("nadie/lo-conoce")


def test_a_training_is_priced_once_and_its_price_follows_the_settings(interrupt_as_error, config):
    assert not interrupt_as_error.is_priced(config)
    one = interrupt_as_error.expected(config)
    assert interrupt_as_error.is_priced(config.replace(freeze_layers=0, epochs=9))
    measured = interrupt_as_error.measured_seconds(config)
    twice = interrupt_as_error.expected(config.replace(epochs=2 * config.epochs))
    assert one.seconds < twice.seconds < 2 * one.seconds  # the frozen layers and the test rows are paid once
    assert interrupt_as_error.expected(baseline_of(config)).seconds > twice.seconds
    # In the same precision nothing is measured again.
    assert interrupt_as_error.measured_seconds(config, baseline_of(config)) == measured
    assert 0 < one.spread < np.inf
    assert str(one).startswith(("0 s ±", "1 s ±", "2 s ±"))


def test_measuring_changes_no_random_state(config, notices):
    tokenizer = loading.load_tokenizer("tiny", notices.texts)
    before = random_state()
    pricing.measure(loading.architecture("tiny", tokenizer), "fp32", config, notices)
    assert all((a == b).all() for a, b in zip(before, random_state(), strict=True))


@settings(max_examples=40, deadline=None)
@given(rates=st.lists(st.floats(1e-6, 1e-2), min_size=4, max_size=4), seed=st.integers(0, 2**16))
def test_rates_that_steps_follow_exactly_are_found_again(rates, seed):
    amounts = np.random.default_rng(seed).uniform(1, 100, (20, 4))
    found, spread = pricing.fit(amounts, amounts @ rates)
    np.testing.assert_allclose(found, rates, rtol=1e-4)
    assert spread < 1e-4


def test_the_spread_says_how_far_steps_are_from_their_prices():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(1, 100, (60, 3))
    _, spread = pricing.fit(amounts, amounts @ [1e-3, 2e-3, 3e-3] * rng.normal(1, 0.1, 60))
    assert spread == pytest.approx(0.2, rel=0.3)  # two sigma


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 256)), min_size=2, max_size=6), cut=st.integers(1, 5)
)
def test_the_work_of_an_epoch_is_the_sum_of_its_steps(shapes, cut):
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
def test_a_step_computes_the_layers_that_its_settings_leave_it(changes, layout):
    assert pricing.Layout.of(TrainConfig(**changes), 12) == pricing.Layout(*layout)
