"""What every interval must do, whatever its method."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.stats.clusters import clustered_mean
from tutelage.stats.exact import clopper_pearson, exact_paired
from tutelage.stats.interval import bootstrap_of_means, wilson
from tutelage.stats.newcombe import newcombe, newcombe_paired
from tutelage.stats.paired import PairedTable
from tutelage.stats.ppi import ppi_mean

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
tables = st.builds(PairedTable, *[st.integers(0, 80)] * 3, st.integers(1, 80))
levels = st.tuples(st.floats(0.5, 0.99), st.floats(0.5, 0.99)).map(sorted)
units = st.tuples(st.floats(0.01, 100), st.floats(-50, 50))


@pytest.mark.parametrize("make", [wilson, clopper_pearson])
@given(counts, levels)
def test_a_share_lies_inside_and_more_certainty_is_wider(make, pair, two):
    narrow, wide = (make(*pair, level) for level in two)
    assert 0.0 <= wide.low <= narrow.low <= pair[0] / pair[1] <= narrow.high <= wide.high <= 1.0
    mirror = make(pair[1] - pair[0], pair[1], two[0])
    assert (mirror.low, mirror.high) == pytest.approx((1 - narrow.high, 1 - narrow.low), abs=1e-9)


@pytest.mark.parametrize("make", [newcombe_paired, exact_paired])
@given(tables, levels)
def test_more_certainty_is_wider_for_pairs(make, table, two):
    narrow, wide = (make(table, level) for level in two)
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12
    assert narrow.low - 1e-12 <= table.difference <= narrow.high + 1e-12


@given(counts, counts, levels)
def test_independent_shares_mirror_and_widen(one, other, two):
    narrow, wide = (newcombe(*one, *other, level) for level in two)
    swapped = newcombe(*other, *one, two[0])
    assert (swapped.low, swapped.high) == pytest.approx((-narrow.high, -narrow.low), abs=1e-12)
    assert wide.low <= narrow.low + 1e-12
    assert narrow.high <= wide.high + 1e-12


def moved(interval, unit, start):
    return pytest.approx((start + unit * interval.low, start + unit * interval.high), rel=1e-6, abs=1e-6 * unit)


@settings(max_examples=25)
@given(st.integers(0, 99), units, levels)
def test_units_of_scores_do_not_matter(seed, unit_start, two):
    unit, start = unit_start
    rng = np.random.default_rng(seed)
    values, session = rng.gamma(2.0, size=60), np.repeat(np.arange(20), 3)
    got, other = clustered_mean(values, session, two[0]), clustered_mean(start + unit * values, session, two[0])
    assert (other.interval.low, other.interval.high) == moved(got.interval, unit, start)
    assert clustered_mean(values, session, two[1]).interval.low <= got.interval.low
    cheap, more = values + rng.normal(size=60), rng.gamma(2.0, size=200)
    got, other = (
        ppi_mean(values, cheap, more, two[0]),
        ppi_mean(start + unit * values, cheap * unit, more * unit, two[0]),
    )
    assert (other.interval.low, other.interval.high) == moved(got.interval, unit, start)
    assert other.weight == pytest.approx(got.weight, rel=1e-6)
    assert ppi_mean(values, cheap, more, two[1]).interval.low <= got.interval.low


@settings(max_examples=15)
@given(st.integers(0, 99), units)
def test_units_do_not_matter_to_the_bootstrap(seed, unit_start):
    unit, start = unit_start
    values = np.random.default_rng(seed).gamma(2.0, size=(40, 1))
    got, other = (
        bootstrap_of_means(one, lambda mean: mean, np.random.default_rng(1), resamples=1_000)
        for one in (values, start + unit * values)
    )
    assert (other.low, other.high) == moved(got, unit, start)
    assert got.low <= values.mean() <= got.high
