"""The blend: weights from validation only, calibrated probabilities, and what predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from ocensa_nb.config import AUTO, BLEND, ENCODER, LINEAR
from ocensa_nb.errors import UserError
from ocensa_nb.evaluation import blend, predictor
from ocensa_nb.evaluation.blend import Blend
from ocensa_nb.evaluation.predictor import Predictor
from ocensa_nb.runs import manifest
from ocensa_nb.runs.run import Run

CLASSES = 4


def logits_of(labels, right, seed, sure=3.0):
    """Return logits that are right for a share of the rows, and wrong at random for the others."""
    rng = np.random.default_rng(seed)
    guess = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, CLASSES, len(labels)))
    return (rng.normal(size=(len(labels), CLASSES)) + sure * np.eye(CLASSES)[guess]).astype(np.float32)


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, CLASSES, 600)


@pytest.fixture
def copied_run(run, tmp_path):
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def test_blend_of_two_models_with_different_errors_is_better_than_both(labels):
    logits = {ENCODER: logits_of(labels, 1.0, 1, sure=1.2), LINEAR: logits_of(labels, 1.0, 2, sure=1.2)}
    fitted = Blend.fit({model: values[:300] for model, values in logits.items()}, labels[:300])
    right = {
        source: (fitted.probabilities({m: v[300:] for m, v in logits.items()}, source).argmax(1) == labels[300:]).mean()
        for source in (ENCODER, LINEAR, BLEND)
    }
    assert fitted.source == BLEND
    assert right[BLEND] > max(right[ENCODER], right[LINEAR]) + 0.03


@pytest.mark.parametrize(("good", "bad"), [(ENCODER, LINEAR), (LINEAR, ENCODER)])
def test_model_that_learnt_nothing_gets_almost_no_weight(labels, good, bad):
    logits = {good: logits_of(labels, 0.9, 1), bad: np.zeros((len(labels), CLASSES), np.float32)}
    fitted = Blend.fit(logits, labels)
    expected = logits[good].argmax(axis=1)
    np.testing.assert_array_equal(fitted.probabilities(logits).argmax(axis=1), expected)


def test_model_that_harms_the_blend_is_not_used(labels):
    harmful = -logits_of(labels, 1.0, 2, sure=9.0)
    fitted = Blend.fit({ENCODER: logits_of(labels, 0.9, 1), LINEAR: harmful}, labels)
    assert fitted.source == ENCODER or fitted.weight <= 0.2


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 1000.0]))
def test_probabilities_of_any_logits_are_finite_and_sum_to_one(rows, seed, scale):
    rng = np.random.default_rng(seed)
    logits = {m: (scale * rng.normal(size=(rows, 3))).astype(np.float32) for m in (ENCODER, LINEAR)}
    fitted = Blend.fit(logits, rng.integers(0, 3, rows))
    assert 0 <= fitted.weight <= 1
    for source in (AUTO, ENCODER, LINEAR, BLEND):
        shares = fitted.probabilities(logits, source)
        assert np.isfinite(shares).all()
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)


def test_probabilities_of_a_model_alone_keep_its_predictions(labels):
    logits = {ENCODER: logits_of(labels, 0.5, 1), LINEAR: logits_of(labels, 0.7, 2)}
    fitted = Blend.fit(logits, labels)
    for model in (ENCODER, LINEAR):
        np.testing.assert_array_equal(fitted.probabilities(logits, model).argmax(1), logits[model].argmax(1))


def test_needs_only_the_models_of_the_source():
    fitted = Blend(1.0, {}, {})
    assert fitted.needs() == (LINEAR,)
    assert fitted.needs(BLEND) == (ENCODER, LINEAR)


def test_uncalibrated_blend_of_a_model_is_its_softmax(labels):
    logits = {ENCODER: {"x": logits_of(labels, 0.6, 1)}, LINEAR: {"x": logits_of(labels, 0.6, 2)}}
    blends = blend.uncalibrated(blend.fit(logits, {"x": labels}))
    np.testing.assert_allclose(
        blend.apply(blends, logits, LINEAR)["x"], softmax(logits[LINEAR]["x"], axis=1), atol=1e-4
    )


def test_run_predicts_with_its_blends(run, notices):
    texts = notices.texts[:5]
    loaded = Predictor.load(run)
    logits = loaded.logits(texts)
    for source in (AUTO, ENCODER, LINEAR, BLEND):
        found = loaded.probabilities(texts, source=source)
        for head, shares in blend.apply(blend.read_blends(run), logits, source).items():
            np.testing.assert_array_equal(found[head], shares)


def test_predictor_loads_each_model_once(run, notices, monkeypatch):
    loaded = []
    for name in ("load_model", "read_linear"):
        load = getattr(predictor, name)
        monkeypatch.setattr(predictor, name, lambda run, load=load, name=name: loaded.append(name) or load(run))
    predict = Predictor.load(run).probabilities
    assert np.array_equal(predict(notices.texts[:3], source=BLEND)["causa"], predict(notices.texts[:3])["causa"])
    assert sorted(loaded) == ["load_model", "read_linear"]


def test_linear_predicts_without_loading_the_encoder(run, notices, monkeypatch):
    monkeypatch.setattr(predictor, "load_model", None)
    assert Predictor.load(run).probabilities(notices.texts[:3], source=LINEAR)["causa"].shape[0] == 3


def test_unknown_source_raises_user_error(run):
    with pytest.raises(UserError, match=r"«liner» no existe.*«linear»"):
        Predictor.load(run).probabilities(["fuga"], source="liner")


@pytest.mark.parametrize(
    "damage",
    [
        lambda blends: blends["causa"].pop("weight"),
        lambda blends: blends["causa"].update(source="otro"),
        lambda blends: blends["causa"]["temperatures"].update(linear=0),
        lambda blends: blends.pop("modo"),
    ],
)
def test_damaged_blend_raises_user_error(run, copied_run, damage):
    path = copied_run / blend.FILE
    blends = json.loads(path.read_text())
    damage(blends)
    path.write_text(json.dumps(blends))
    with pytest.raises(UserError, match=r"blend\.json.*no es el que se guardó"):
        Run.load(copied_run)
    manifest.write(copied_run)
    with pytest.raises(UserError, match=r"blend\.json» no es de esta corrida, o está dañado"):
        blend.read_blends(Run.load(copied_run))


def test_run_whose_linear_was_removed_raises_user_error(copied_run):
    for file in (copied_run / "linear").iterdir():
        file.unlink()
    (copied_run / "linear").rmdir()
    with pytest.raises(UserError, match=r"linear.* falta"):
        Run.load(copied_run)
