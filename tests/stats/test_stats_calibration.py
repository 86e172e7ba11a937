import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import stats_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.calibration import ReliabilityBin, expected_calibration_error, reliability


def test_worked_example():
    confidence, correct = [0.95, 0.85, 0.9, 0.6, 0.55], [1, 1, 0, 1, 0]
    assert reliability(confidence, correct, bins=5) == (
        ReliabilityBin(0.4, 0.6, 2, pytest.approx(0.575), 0.5),
        ReliabilityBin(0.8, 1.0, 3, pytest.approx(0.9), pytest.approx(2 / 3)),
    )
    assert expected_calibration_error(confidence, correct, bins=5) == pytest.approx(0.4 * 0.075 + 0.6 * (0.9 - 2 / 3))


def test_edges_belong_to_the_lower_bin():
    for bins in (3, 7, 10, 100):
        for step in range(1, bins + 1):
            (only,) = reliability([step / bins], [1], bins)
            assert (only.low, only.high) == ((step - 1) / bins, step / bins)
    assert reliability([0.0], [0], 10) == (ReliabilityBin(0.0, 0.1, 1, 0.0, 0.0),)


items = st.lists(
    st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.3, 0.7, 1.0])), st.booleans()), min_size=1
)


@given(items, st.integers(1, 20))
def test_agrees_with_the_naive_twin(pairs, bins):
    confidence, correct = zip(*pairs, strict=True)
    got = expected_calibration_error(confidence, correct, bins)
    assert got == pytest.approx(naive.calibration_error(confidence, correct, bins), abs=1e-12)
    assert 0.0 <= got <= 1.0
    filled = reliability(confidence, correct, bins)
    assert sum(bin.n for bin in filled) == len(pairs)
    assert all(bin.low - 1e-12 <= bin.confidence <= bin.high + 1e-12 for bin in filled)


@given(items)
def test_more_bins_that_split_bins_never_hide_error(pairs):
    confidence, correct = zip(*pairs, strict=True)
    coarse, fine = (expected_calibration_error(confidence, correct, bins) for bins in (5, 10))
    assert fine >= coarse - 1e-12


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_its_own():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, size=20_000)
    correct = rng.random(20_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.02
    wrong = rng.random(20_000) < confidence - 0.2
    assert expected_calibration_error(confidence, wrong) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("confidence", "correct", "words"),
    [
        ([], [], "at least one item"),
        ([0.5], [1, 0], "one of each"),
        ([0.5, 1.2], [1, 0], "confidence 1.2"),
        ([-0.1], [1], "confidence -0.1 .*\n.*not log-probabilities"),
        ([float("nan")], [1], "confidence nan"),
        ([0.5], [0.5], "correctness value 0.5"),
    ],
)
def test_refuses(confidence, correct, words):
    for function in (reliability, expected_calibration_error):
        with pytest.raises(DataError, match=words):
            function(confidence, correct)


def test_refuses_no_bins():
    with pytest.raises(ConfigError, match="0 bins"):
        reliability([0.5], [1], bins=0)
