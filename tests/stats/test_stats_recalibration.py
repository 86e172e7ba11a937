import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from tutelage.errors import ConfigError, DataError
from tutelage.stats.calibration import expected_calibration_error, fit_temperature, recalibrate
from tutelage.stats.labels import log_softmax


def draws(seed, items, labels, sharpness):
    """Labels drawn from softmax(logits), and what a model says that is `sharpness` times as sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (items, labels))
    chance = np.exp(log_softmax(logits))
    label = (rng.random((items, 1)) > np.cumsum(chance, axis=1)).sum(axis=1).clip(max=labels - 1)
    return sharpness * logits, label


def loss(logp, label, inverse):
    scaled = inverse * np.asarray(logp)
    top = scaled.max(axis=1)
    return float((top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[np.arange(len(label)), label]).sum())


@given(st.integers(0, 10_000), st.integers(60, 200), st.integers(2, 6), st.floats(0.1, 20))
def test_is_where_a_search_finds_the_least_loss(seed, items, labels, sharpness):
    logp, label = draws(seed, items, labels, sharpness)
    temperature = fit_temperature(logp, label)
    found = minimize_scalar(
        lambda log_inverse: loss(logp, label, np.exp(log_inverse)),
        bounds=(-9, 9),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert loss(logp, label, 1 / temperature) <= found.fun + 1e-9
    assert np.log(1 / temperature) == pytest.approx(found.x, abs=1e-3)
    assert fit_temperature(recalibrate(logp, temperature), label) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("sharpness", [0.02, 0.5, 1.0, 3.0, 500.0])
def test_finds_the_sharpness_that_was_put_in_and_mends_the_calibration(sharpness):
    logp, label = draws(1, 8_000, 4, sharpness)
    temperature = fit_temperature(logp, label)
    assert temperature == pytest.approx(sharpness, rel=0.05)

    def error(scores):
        decided = scores.argmax(axis=1)
        return expected_calibration_error(np.exp(scores.max(axis=1)), decided == label)

    mended = recalibrate(logp, temperature)
    assert (mended.argmax(axis=1) == logp.argmax(axis=1)).all()
    assert np.exp(mended).sum(axis=1) == pytest.approx(np.ones(8_000))
    assert error(mended) < 0.02
    if sharpness != 1.0:
        assert error(log_softmax(logp)) > 4 * error(mended)


def test_scale_and_shift_of_the_scores():
    logp, label = draws(2, 300, 3, 2.0)
    assert fit_temperature(4 * logp, label) == pytest.approx(4 * fit_temperature(logp, label), rel=1e-12)
    assert fit_temperature(logp + 7.0, label) == pytest.approx(fit_temperature(logp, label), rel=1e-9)


def test_degenerate_data_is_named():
    logp, label = draws(3, 100, 3, 1.0)
    with pytest.raises(DataError, match="all 100 labels have their item's highest score"):
        fit_temperature(logp, logp.argmax(axis=1))
    with pytest.raises(DataError, match="no higher than the average"):
        fit_temperature(-logp, label)
    with pytest.raises(DataError, match="no higher than the average"):
        fit_temperature([[0.0, 1.0], [0.0, 1.0]], [0, 1])
    with pytest.raises(DataError, match="99 labels for 100 items"):
        fit_temperature(logp, label[1:])
    with pytest.raises(DataError, match="label index 3 of 3"):
        fit_temperature(logp, np.full(100, 3))
    with pytest.raises(DataError, match="finite"):
        fit_temperature(np.where(logp > 1, np.nan, logp), label)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="temperature"):
            recalibrate(logp, wrong)
