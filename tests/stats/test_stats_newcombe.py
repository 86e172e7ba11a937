import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from tutelage.errors import ConfigError, DataError
from tutelage.stats.interval import wilson
from tutelage.stats.newcombe import newcombe, newcombe_paired
from tutelage.stats.paired import PairedTable, tango

counts = st.integers(0, 60)
tables = st.builds(PairedTable, counts, counts, counts, st.integers(1, 60))


@pytest.mark.parametrize(
    ("data", "low", "high"),
    [
        # Newcombe (1998), Stat. Med. 17:873, table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0000),
        ((10, 10, 0, 10), 0.6075, 1.0000),
    ],
)
def test_published_limits_of_independent_samples(data, low, high):
    got = newcombe(*data)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)
    assert (got.n, got.method) == (data[1] + data[3], "Newcombe hybrid score")


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe (1998), Stat. Med. 17:2635, table II, method 10
        (PairedTable(36, 12, 2, 0), 0.0569, 0.3404),
        (PairedTable(20, 12, 2, 16), 0.0562, 0.3292),
        # Fagerland, Lydersen & Laake (2014), Stat. Med. 33:2850: −0.507 to −0.026
        (PairedTable(1, 1, 7, 12), -0.5069, -0.0256),
    ],
)
def test_published_limits_of_pairs(table, low, high):
    got = newcombe_paired(table)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 0.99))
def test_agrees_with_statsmodels(n_1, n_2, share_1, share_2, level):
    x_1, x_2 = round(share_1 * n_1), round(share_2 * n_2)
    got = newcombe(x_1, n_1, x_2, n_2, level)
    expected = confint_proportions_2indep(x_1, n_1, x_2, n_2, method="newcomb", compare="diff", alpha=1 - level)
    assert (got.low, got.high) == pytest.approx(expected, abs=1e-6)


@given(tables)
def test_pairs_mirror_hold_the_estimate_and_know_their_correlation(table):
    got = newcombe_paired(table)
    swapped = newcombe_paired(PairedTable(table.both, table.only_second, table.only_first, table.neither))
    assert (swapped.low, swapped.high) == pytest.approx((-got.high, -got.low), abs=1e-12)
    assert -1.0 <= got.low <= table.difference + 1e-12
    assert table.difference - 1e-12 <= got.high <= 1.0
    right_1, right_2 = table.both + table.only_first, table.both + table.only_second
    apart = newcombe(right_1, table.n, right_2, table.n)
    # Positively correlated answers narrow the interval, negatively correlated ones widen it.
    cross = table.both * table.neither - table.only_first * table.only_second
    slack = 1e-12 if cross >= 0 else math.inf
    assert got.high - got.low <= apart.high - apart.low + slack
    if cross < 0:
        assert got.high - got.low >= apart.high - apart.low - 1e-12


@given(st.integers(1, 50), st.integers(0, 50))
def test_without_variation_in_one_model_there_is_no_correlation(right, wrong):
    table = PairedTable(right, wrong, 0, 0)  # the first is always right
    first, second = wilson(table.n, table.n), wilson(right, table.n)
    got = newcombe_paired(table)
    p = right / table.n
    assert got.low == pytest.approx(1 - p - math.hypot(1 - first.low, second.high - p), abs=1e-12)
    assert got.high == pytest.approx(min(1.0, 1 - p + math.hypot(first.high - 1, p - second.low)), abs=1e-12)


def test_pairs_come_near_tango_when_there_are_many():
    table = PairedTable(3000, 250, 150, 1600)
    got, other = newcombe_paired(table), tango(table)
    assert (got.low, got.high) == pytest.approx((other.low, other.high), abs=5e-4)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="11 successes of 10"):
        newcombe(11, 10, 3, 10)
    with pytest.raises(DataError, match="0 successes of 0"):
        newcombe(1, 10, 0, 0)
    with pytest.raises(ConfigError, match="level 95"):
        newcombe_paired(PairedTable(1, 1, 1, 1), 95)
