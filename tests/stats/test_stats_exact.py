import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.exact import ENOUGH_DISCORDANT, clopper_pearson, exact_paired, paired_difference
from tutelage.stats.paired import PairedTable, tango


@pytest.mark.parametrize(
    ("x", "n", "low", "high"),
    [  # Newcombe (1998), Stat. Med. 17:857, table I, method 5
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_published_limits(x, n, low, high):
    got = clopper_pearson(x, n)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_agrees_with_statsmodels(n, share, level):
    x = round(share * n)
    got = clopper_pearson(x, n, level)
    assert (got.low, got.high) == pytest.approx(proportion_confint(x, n, 1 - level, method="beta"), abs=1e-6)


@pytest.mark.parametrize(("x", "n", "level"), [(0, 1, 0.95), (3, 7, 0.9), (7, 7, 0.8), (19, 40, 0.99), (1, 30, 0.95)])
def test_agrees_with_the_binomial_sum(x, n, level):
    got = clopper_pearson(x, n, level)
    assert (got.low, got.high) == pytest.approx(naive.clopper_pearson_limits(x, n, level), abs=1e-10)


@pytest.mark.parametrize("n", [1, 5, 12])
def test_one_proportion_is_covered_at_every_truth(n):
    limits = [clopper_pearson(x, n, 0.9) for x in range(n + 1)]
    for p in np.linspace(0, 1, 41):
        below = math.fsum(naive.binomial(x, n, p) for x in range(n + 1) if p < limits[x].low)
        above = math.fsum(naive.binomial(x, n, p) for x in range(n + 1) if p > limits[x].high)
        assert max(below, above) <= 0.05 + 1e-12


@pytest.mark.parametrize(("n", "level"), [(4, 0.95), (9, 0.8)])
def test_pairs_are_covered_on_each_side_at_every_truth(n, level):
    cells = [
        (b, c, exact_paired(PairedTable(n - b - c, b, c, 0), level)) for b in range(n + 1) for c in range(n + 1 - b)
    ]
    for first in np.linspace(0, 1, 14):
        for second in np.linspace(0, 1 - first, 9):
            rest = max(0.0, 1 - first - second)
            below = above = 0.0
            for b, c, interval in cells:
                ways = math.comb(n, b) * math.comb(n - b, c)
                chance = ways * first**b * second**c * rest ** (n - b - c)
                below += chance * (first - second < interval.low - 1e-12)
                above += chance * (first - second > interval.high + 1e-12)
            assert max(below, above) <= (1 - level) / 2 + 1e-9


@given(st.integers(0, 19), st.integers(0, 19), st.integers(0, 2000))
def test_pairs_hold_their_estimate_and_mirror(only_first, only_second, rest):
    table = PairedTable(rest + 1, only_first, only_second, 0)
    got, swapped = exact_paired(table), exact_paired(PairedTable(rest + 1, only_second, only_first, 0))
    assert got.low <= table.difference <= got.high
    assert (swapped.low, swapped.high) == pytest.approx((-got.high, -got.low), abs=1e-12)


@given(st.integers(0, 19), st.integers(0, 19), st.integers(20, 2000))
def test_the_price_of_certainty_is_known(only_first, only_second, rest):
    """Wider than Tango's, but by less than 3/4 of it: not absurd."""
    table = PairedTable(rest, only_first, only_second, 0)
    got, other = exact_paired(table), tango(table)
    assert 1.0 < (got.high - got.low) / (other.high - other.low) < 1.75


@pytest.mark.parametrize("n", [1, 10, 500, 5000])
def test_no_discordance(n):
    got = exact_paired(PairedTable(n, 0, 0, 0))
    assert got.high == -got.low == pytest.approx(1 - 0.0125 ** (1 / n), rel=1e-9)


def test_the_choice_is_made_by_discordant_items_and_said():
    few, enough = PairedTable(5000, 12, ENOUGH_DISCORDANT - 13, 0), PairedTable(5000, 12, ENOUGH_DISCORDANT - 12, 0)
    assert paired_difference(few) == exact_paired(few)
    assert paired_difference(few, 0.9) == exact_paired(few, 0.9)
    assert paired_difference(enough, 0.9) == tango(enough, 0.9)
    assert "exact" in paired_difference(few).method
    assert paired_difference(enough).method == "Tango score"


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 2000), st.floats(0.5, 0.98))
def test_the_choice_holds_its_estimate_mirrors_and_grows_with_the_level(only_first, only_second, rest, level):
    table, swapped = PairedTable(rest, only_first, only_second, 0), PairedTable(0, only_second, only_first, rest)
    got, mirror, wide = (
        paired_difference(table, level),
        paired_difference(swapped, level),
        paired_difference(table, 0.99),
    )
    assert -1.0 <= got.low <= table.difference <= got.high <= 1.0
    assert (mirror.low, mirror.high) == pytest.approx((-got.high, -got.low), abs=1e-12)
    assert wide.low <= got.low
    assert got.high <= wide.high


@pytest.mark.parametrize("table", [(30, 0, 0, 0), (0, 0, 0, 30), (0, 30, 0, 0), (0, 0, 30, 0), (1, 0, 0, 0)], ids=str)
def test_models_always_right_or_wrong_are_no_certainty(table):
    got = paired_difference(PairedTable(*table))
    assert got.low < PairedTable(*table).difference < got.high or abs(PairedTable(*table).difference) == 1.0
    assert got.high - got.low > 0.1


def test_bad_input_is_named():
    with pytest.raises(DataError, match="0 successes of 0"):
        clopper_pearson(0, 0)
    with pytest.raises(DataError, match="-1 successes"):
        clopper_pearson(-1, 4)
    for make in (exact_paired, paired_difference):
        with pytest.raises(ConfigError, match="level 95"):
            make(PairedTable(1, 1, 1, 1), 95)
