"""Settings: recipes set fields, the user's values win, and nothing impossible gets through."""

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocensa_nb.config import RECIPES, TrainConfig, from_recipe
from ocensa_nb.errors import UserError


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_config(name):
    assert from_recipe(name) == TrainConfig().replace(**RECIPES[name])


def test_what_the_user_sets_wins_over_the_recipe():
    assert from_recipe("baseline", {"epochs": 3}).epochs == 3
    assert from_recipe("baseline").epochs == 15


def test_baseline_is_the_guides_starting_point():
    config = from_recipe("baseline")
    assert (config.precision, config.padding, config.max_length) == ("fp32", "max_length", 256)
    assert (config.batch_size, config.epochs, config.freeze_layers) == (16, 15, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", -1),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("freeze_layers", -2),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("label_smoothing", 1.0),
        ("dropout", -0.1),
        ("test_size", 0.9),
        ("precision", "fp8"),
        ("padding", "none"),
        ("monitor", "causa_roc"),
        ("heads", {}),
        ("heads", {"causa": 0}),
    ],
)
def test_an_impossible_value_is_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        TrainConfig().replace(**{field: value}).validate()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="«causa_f1»"):
        TrainConfig(monitor="causa_f").validate()
    with pytest.raises(UserError, match="«epochs»"):
        TrainConfig().replace(epoch=3)
    with pytest.raises(UserError, match="quick"):
        from_recipe("fast")


def test_the_fingerprint_follows_the_experiment_and_not_its_place():
    config = TrainConfig()
    assert config.fingerprint() == config.replace(out="runs/a", data="b.csv", num_workers=2).fingerprint()
    for field in ("model", "epochs", "seed", "heads"):
        value = {"model": "beto", "epochs": 3, "seed": 7, "heads": {"causa": 1.0}}[field]
        assert config.replace(**{field: value}).fingerprint() != config.fingerprint()


@given(st.sampled_from([f.name for f in dataclasses.fields(TrainConfig)]), st.one_of(st.none(), st.text(), st.floats()))
def test_any_wrong_value_is_a_sentence_or_a_valid_config(field, value):
    # Anything but a sentence would escape.
    with contextlib.suppress(UserError):
        TrainConfig().replace(**{field: value}).validate()


def test_a_whole_number_where_a_real_one_is_meant_is_the_same_setting():
    whole = from_recipe("cpu", {"label_smoothing": 0, "dropout": 0, "heads": {"causa": 1}})
    real = from_recipe("cpu", {"label_smoothing": 0.0, "dropout": 0.0, "heads": {"causa": 1.0}})
    assert whole.fingerprint() == real.fingerprint()


@pytest.mark.parametrize("field", ["max_grad_norm", "seed", "batch_size", "num_workers", "checkpoint_minutes"])
def test_number_of_hundreds_of_digits_is_refused_in_a_short_message(field):
    with pytest.raises(UserError, match=field) as raised:
        from_recipe("cpu", {field: 10**400})
    assert len(str(raised.value)) < 150


def test_seed_is_at_most_the_largest_of_numpy():
    assert from_recipe("cpu", {"seed": 2**32 - 1}).seed == 2**32 - 1
    with pytest.raises(UserError, match="4,294,967,295 como máximo"):
        from_recipe("cpu", {"seed": 2**32})
