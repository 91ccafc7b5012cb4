"""Training configs: recipes, user settings, validation and fingerprint."""

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocensa_nb.config import RECIPES, TrainConfig, from_recipe
from ocensa_nb.errors import UserError


@pytest.mark.parametrize("name", RECIPES)
def test_from_recipe_of_every_recipe_is_a_valid_config(name):
    assert from_recipe(name) == TrainConfig().replace(**RECIPES[name])


def test_from_recipe_user_settings_override_the_recipe():
    assert from_recipe("baseline", {"epochs": 3}).epochs == 3
    assert from_recipe("baseline").epochs == 15


def test_baseline_recipe_matches_the_guide():
    config = from_recipe("baseline")
    assert (config.precision, config.padding, config.max_length) == ("fp32", "max_length", 256)
    assert (config.batch_size, config.epochs, config.freeze_layers) == (16, 15, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", -1),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("freeze_layers", -101),
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
def test_validate_invalid_value_raises_user_error_naming_the_field(field, value):
    with pytest.raises(UserError, match=field):
        TrainConfig().replace(**{field: value}).validate()


def test_unknown_metric_field_or_recipe_suggests_the_nearest_name():
    with pytest.raises(UserError, match="«causa_f1»"):
        TrainConfig(monitor="causa_f").validate()
    with pytest.raises(UserError, match="«epochs»"):
        TrainConfig().replace(epoch=3)
    with pytest.raises(UserError, match="quick"):
        from_recipe("fast")


def test_fingerprint_depends_on_training_settings_and_not_on_paths():
    config = TrainConfig()
    assert config.fingerprint() == config.replace(out="runs/a", data="b.csv", num_workers=2).fingerprint()
    for field in ("model", "epochs", "seed", "heads"):
        value = {"model": "beto", "epochs": 3, "seed": 7, "heads": {"causa": 1.0}}[field]
        assert config.replace(**{field: value}).fingerprint() != config.fingerprint()


@given(st.sampled_from([f.name for f in dataclasses.fields(TrainConfig)]), st.one_of(st.none(), st.text(), st.floats()))
def test_validate_any_value_is_valid_or_raises_user_error(field, value):
    # Any other exception fails the test.
    with contextlib.suppress(UserError):
        TrainConfig().replace(**{field: value}).validate()


def test_fingerprint_of_int_and_equal_float_is_the_same():
    whole = from_recipe("cpu", {"label_smoothing": 0, "dropout": 0, "heads": {"causa": 1}})
    real = from_recipe("cpu", {"label_smoothing": 0.0, "dropout": 0.0, "heads": {"causa": 1.0}})
    assert whole.fingerprint() == real.fingerprint()


@pytest.mark.parametrize("field", ["max_grad_norm", "seed", "batch_size", "num_workers", "checkpoint_minutes"])
def test_number_of_hundreds_of_digits_raises_short_user_error(field):
    with pytest.raises(UserError, match=field) as raised:
        from_recipe("cpu", {field: 10**400})
    assert len(str(raised.value)) < 150


def test_seed_over_numpy_maximum_raises_user_error():
    assert from_recipe("cpu", {"seed": 2**32 - 1}).seed == 2**32 - 1
    with pytest.raises(UserError, match="de 0 a 4 294 967 295"):
        from_recipe("cpu", {"seed": 2**32})
