"""Temperature, calibration error, reliability, coverage and thresholds, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, logit, softmax
from scipy.stats import binomtest

from ocensa_nb.evaluation import calibration

# Few distinct confidences, so that ties are frequent.
ROWS = st.lists(st.tuples(st.sampled_from([0.25, 0.5, 0.6, 0.75, 0.9, 1.0]), st.booleans()), min_size=1, max_size=60)


def columns(rows):
    confidence, correct = zip(*rows, strict=True)
    return np.array(confidence), np.array(correct)


def loss(logits, labels, temperature):
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


def sampled(temperature, rows=4_000, classes=5, seed=0):
    """Return logits and labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, classes)).astype(np.float32)
    shares = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (rng.random((rows, 1)) > shares[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_fit_temperature_recovers_the_one_that_labels_were_drawn_with(temperature):
    assert calibration.fit_temperature(*sampled(temperature)) == pytest.approx(temperature, rel=0.08)


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_fit_temperature_has_the_lowest_loss_of_a_grid(temperature):
    logits, labels = sampled(temperature, rows=500)
    grid = [loss(logits, labels, t) for t in np.geomspace(calibration.COLDEST, calibration.HOTTEST, 400)]
    assert loss(logits, labels, calibration.fit_temperature(logits, labels)) <= min(grid) + 1e-4


@given(st.integers(0, 5), st.integers(1, 4), st.sampled_from([0.0, 1.0, 1e4]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_fit_temperature_of_few_rows_or_one_class_stays_within_its_bounds(rows, classes, scale, seed):
    rng = np.random.default_rng(seed)
    found = calibration.fit_temperature(rng.normal(0, 1, (rows, classes)) * scale, np.zeros(rows, np.int64))
    assert calibration.COLDEST <= found <= calibration.HOTTEST


def test_fit_temperature_of_a_few_rows_that_are_all_right_is_moderate():
    assert 0.3 < calibration.fit_temperature(np.array([[2.0, 0.0]] * 8), np.zeros(8, np.int64)) < 1


def test_fit_confidence_recovers_the_curve_of_each_class_that_the_rows_were_drawn_with():
    rng = np.random.default_rng(0)
    confidence, predicted = rng.uniform(0.2, 0.99, 20_000), rng.integers(3, size=20_000)
    correct = rng.random(20_000) < expit(0.5 * logit(confidence) + np.array([0.3, -1.0, 2.0])[predicted])
    slope, intercepts = calibration.fit_confidence(confidence, correct, predicted, 4)
    assert slope == pytest.approx(0.5, abs=0.05)
    assert intercepts[:3] == pytest.approx([0.3, -1.0, 2.0], abs=0.15)
    assert min(intercepts[:3]) < intercepts[3] < max(intercepts[:3])  # no row: the curve of all


@given(ROWS)
@settings(deadline=None)
def test_fit_confidence_of_few_rows_rises_and_is_finite(rows):
    confidence, correct = columns(rows)
    slope, intercepts = calibration.fit_confidence(confidence, correct, np.zeros(len(confidence), np.int64), 2)
    assert slope >= calibration.FLATTEST
    assert np.isfinite([slope, *intercepts]).all()


@given(st.integers(2, 6), st.floats(0.1, 3), st.floats(-3, 3), st.sampled_from([0.5, 5.0, 50.0]), st.integers(0, 20))
@settings(deadline=None)
def test_recalibrate_keeps_the_order_of_the_classes_and_the_sum(classes, slope, intercept, scale, seed):
    before = softmax(np.random.default_rng(seed).normal(0, scale, (30, classes)), axis=1)
    after = calibration.recalibrate(before, slope, intercept)
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-5)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    rest = np.sort(before, axis=1)[:, :-1], np.sort(after, axis=1)[:, :-1]
    np.testing.assert_allclose(
        rest[1] * rest[0].sum(axis=1)[:, None], rest[0] * rest[1].sum(axis=1)[:, None], atol=1e-5
    )


def test_recalibrate_puts_the_confidence_on_the_curve():
    before = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)
    after = calibration.recalibrate(before, 0.5, 1.0)
    assert after.dtype == np.float32
    certain = calibration.recalibrate(np.array([[1.0, 0.0, 0.0]], np.float32), 0.2, 0.0)
    assert 0.9 < certain[0, 0] < 0.99
    assert certain.sum() == pytest.approx(1)
    np.testing.assert_allclose(after.max(axis=1), expit(0.5 * logit([0.5, 0.8]) + 1), rtol=1e-5)
    np.testing.assert_allclose(calibration.recalibrate(before, 1.0, 0.0), before, rtol=1e-5)


def plain_calibration_error(confidence, correct, bins):
    """Return the error with the bin of each row from the ranks of all rows with its confidence."""
    rows = len(confidence)
    members = [[] for _ in range(bins)]
    for row in range(rows):
        below, equal = (confidence < confidence[row]).sum(), (confidence == confidence[row]).sum()
        members[int((2 * below + equal) * bins) // (2 * rows)].append(row)
    return sum(
        len(part) / rows * abs(np.mean([confidence[row] - correct[row] for row in part])) for part in members if part
    )


@given(ROWS, st.integers(1, 20))
def test_calibration_error_equals_a_plain_loop(rows, bins):
    confidence, correct = columns(rows)
    found = calibration.expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(plain_calibration_error(confidence, correct, bins))


@given(ROWS, st.randoms())
def test_calibration_error_does_not_depend_on_the_order_of_the_rows(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert calibration.expected_calibration_error(*columns(shuffled)) == pytest.approx(
        calibration.expected_calibration_error(*columns(rows))
    )


def test_calibration_error_of_known_rows_is_their_gap():
    correct = np.arange(10) < 6
    assert calibration.expected_calibration_error(np.full(10, 0.9), correct) == pytest.approx(0.3)
    assert np.isnan(calibration.expected_calibration_error(np.empty(0), np.empty(0, bool)))


def test_calibration_error_falls_with_the_fitted_temperature_on_other_rows():
    logits, labels = sampled(3.0)
    temperature = calibration.fit_temperature(logits[:2_000], labels[:2_000])
    errors = []
    for scale in (1.0, temperature):
        shares = softmax(logits[2_000:] / scale, axis=1)
        correct = shares.argmax(axis=1) == labels[2_000:]
        errors.append(calibration.expected_calibration_error(shares.max(axis=1), correct))
    assert errors[1] < 0.04 < 0.2 < errors[0]


@given(ROWS, st.integers(1, 20))
def test_reliability_has_every_row_once_and_never_separates_ties(rows, bins):
    confidence, correct = columns(rows)
    table = calibration.reliability(confidence, correct, bins)
    assert list(table) == ["from", "to", "confidence", "accuracy", "low", "high", "rows"]
    assert table["rows"].sum() == len(rows)
    assert len(table) <= bins
    assert (table["to"].to_numpy()[:-1] < table["from"].to_numpy()[1:]).all()
    for _, part in table.iterrows():
        inside = (confidence >= part["from"]) & (confidence <= part["to"])
        assert part["rows"] == inside.sum()
        assert part["accuracy"] == pytest.approx(correct[inside].mean())
        assert part["confidence"] == pytest.approx(confidence[inside].mean())
    assert (table["low"] <= table["accuracy"] + 1e-12).all()
    assert (table["accuracy"] <= table["high"] + 1e-12).all()


@given(ROWS, st.sampled_from([0.3, 0.6, 0.9]))
def test_threshold_is_the_lowest_whose_lower_bound_reaches_the_target(rows, target):
    confidence, correct = columns(rows)
    reached = []
    for threshold in set(confidence):
        above = confidence >= threshold
        test = binomtest(int(correct[above].sum()), int(above.sum()))
        if test.proportion_ci(0.9, method="wilson").low >= target:  # two-sided 90 %: its lower bound is that of 95 %
            reached.append(threshold)
    assert calibration.threshold_for(confidence, correct, target) == min(reached, default=None)


def test_threshold_of_right_rows_needs_enough_of_them_for_the_target():
    assert calibration.threshold_for(np.full(24, 0.8), np.full(24, True), 0.9) is None
    assert calibration.threshold_for(np.full(25, 0.8), np.full(25, True), 0.9) == 0.8
    assert calibration.threshold_for(np.empty(0), np.empty(0, bool), 0.9) is None


@given(st.integers(1, 400), st.data())
def test_wilson_equals_scipys_interval(rows, data):
    right = data.draw(st.integers(0, rows))
    interval = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    assert calibration.wilson(right, rows, -calibration.TWO_SIDED) == pytest.approx(interval.low, abs=1e-9)
    assert calibration.wilson(right, rows, calibration.TWO_SIDED) == pytest.approx(interval.high, abs=1e-9)


def test_wilson_interval_has_the_published_values():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I: 81/263, 15/148, 0/20, 1/29.
    right, rows = np.array([81, 15, 0, 1, 0]), np.array([263, 148, 20, 29, 0])
    low = [0.2553, 0.0624, 0, 0.0061, np.nan]
    high = [0.3662, 0.1605, 0.1611, 0.1718, np.nan]
    np.testing.assert_allclose(calibration.wilson(right, rows, -calibration.TWO_SIDED), low, atol=1e-4)
    np.testing.assert_allclose(calibration.wilson(right, rows, calibration.TWO_SIDED), high, atol=1e-4)


def test_wilson_interval_contains_the_share_whatever_the_rounding():
    rows = np.repeat(np.arange(1, 200), 3)
    right = rows * np.tile([0, 0.5, 1], 199) // 1
    assert (calibration.wilson(right, rows, -calibration.TWO_SIDED) <= right / rows).all()
    assert (calibration.wilson(right, rows, calibration.TWO_SIDED) >= right / rows).all()
