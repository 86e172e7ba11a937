import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.sequences import confidence_sequence, difference_sequence

units = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(units, st.floats(0.5, 0.99))
def test_agrees_with_an_item_at_a_time(values, level):
    got, expected = confidence_sequence(values, level), naive.empirical_bernstein(values, level)
    assert got.low_T == pytest.approx([low for low, _ in expected], abs=1e-9)
    assert got.high_T == pytest.approx([high for _, high in expected], abs=1e-9)


@given(units)
def test_what_was_ruled_out_stays_so_and_the_past_does_not_know_the_future(values):
    got = confidence_sequence(values)
    assert (np.diff(got.low_T) >= 0).all()
    assert (np.diff(got.high_T) <= 0).all()
    start = len(values) // 2 + 1
    assert confidence_sequence(values[:start]).low_T == pytest.approx(got.low_T[:start], abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_difference_is_scaled_to_its_bounds(pairs):
    first, second = np.array(pairs, dtype=float).T
    got = difference_sequence(first, second)
    unit = confidence_sequence((first - second + 1) / 2)
    assert got.low_T == pytest.approx(2 * unit.low_T - 1, abs=1e-12)
    assert got.high_T == pytest.approx(2 * unit.high_T - 1, abs=1e-12)
    mirrored = difference_sequence(second, first)
    assert mirrored.low_T == pytest.approx(-got.high_T, abs=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_truth_stays_inside_at_every_look(share):
    rng, missed = np.random.default_rng(0), 0
    for _ in range(400):
        got = confidence_sequence((rng.random(800) < share).astype(float), 0.9)
        missed += bool((got.low_T > share).any() or (got.high_T < share).any())
    assert missed <= 40


def test_agreeing_models_are_decided_sooner():
    rng = np.random.default_rng(1)
    differ = rng.random(4000)
    quiet = difference_sequence((differ < 0.01).astype(float), (differ > 0.99).astype(float)).after(4000)
    loud = difference_sequence((differ < 0.2).astype(float), (differ > 0.8).astype(float)).after(4000)
    assert quiet.high - quiet.low < 0.03 < 0.06 < loud.high - loud.low
    assert (quiet.n, quiet.level, quiet.method) == (4000, 0.95, "empirical Bernstein sequence")


def test_a_drifting_mean_is_noticed():
    drift = confidence_sequence([0.0] * 500 + [1.0] * 5000)
    assert drift.after(500).high < 0.1
    with pytest.raises(DataError, match="no mean is left"):
        drift.after(5500)


@pytest.mark.parametrize("items", [0, 3, -1])
def test_only_what_was_seen(items):
    with pytest.raises(DataError, match=f"{items} of 2 items"):
        confidence_sequence([0.5, 0.5]).after(items)


def test_bad_input_is_named():
    for values, words in (([], "shape"), ([0.5, float("nan")], "nan"), ([0.5, 1.5], "1.5 is outside")):
        with pytest.raises(DataError, match=words):
            confidence_sequence(values)
    with pytest.raises(DataError, match="1 items against 2"):
        difference_sequence([1.0], [0.0, 1.0])
    with pytest.raises(DataError, match=r"3\.0 is outside"):
        difference_sequence([3.0], [2.5])
    with pytest.raises(ConfigError, match="bounds"):
        confidence_sequence([0.5], bounds=(1.0, 1.0))
    with pytest.raises(ConfigError, match="level 95"):
        confidence_sequence([0.5], 95)
