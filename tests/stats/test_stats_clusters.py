import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.clusters import clustered_difference, clustered_mean


def dependent(seed, sizes, shared=0.7):
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(0.3, 1.0, session.size) + shared * rng.normal(0, 1, len(sizes))[session], session


def test_sessions_of_one_size_are_statsmodels_cluster_robust_mean():
    values, session = dependent(0, [6] * 15)
    got = clustered_mean(values, session)
    fit = sm.OLS(values, np.ones(values.size)).fit(cov_type="cluster", cov_kwds={"groups": session}, use_t=True)
    assert got.mean == pytest.approx(fit.params[0], abs=1e-9)
    assert got.standard_error == pytest.approx(fit.bse[0], abs=1e-9)
    assert got.degrees == pytest.approx(14, abs=1e-9)
    assert (got.interval.low, got.interval.high) == pytest.approx(fit.conf_int()[0], abs=1e-6)
    assert (got.sessions, got.interval.n) == (15, 90)
    assert got.interval.method == "cluster-robust t (CR2), 15 sessions, 14.0 degrees"


@given(st.lists(st.integers(1, 7), min_size=10, max_size=14), st.integers(0, 1000), st.floats(0, 2))
def test_agrees_with_whole_matrices(sizes, seed, shared):
    values, session = dependent(seed, sizes, shared)
    try:
        got = clustered_mean(values, session, bounds=(-99.0, 99.0))
    except DataError:
        return
    correlation = naive.intraclass(values.tolist(), session.tolist())
    error, degrees = naive.clustered(values, session, correlation)
    assert got.correlation == pytest.approx(correlation, abs=1e-9)
    assert got.standard_error == pytest.approx(error, rel=1e-8)
    assert got.degrees == pytest.approx(degrees, rel=1e-6)
    assert got.degrees <= got.sessions - 1 + 1e-6


def test_one_item_a_session_is_the_t_interval():
    values = np.random.default_rng(1).normal(size=40)
    got = clustered_mean(values, [f"s{at}" for at in range(40)], 0.9)
    half = student.ppf(0.95, 39) * values.std(ddof=1) / math.sqrt(40)
    assert (got.interval.low, got.interval.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert (got.design_effect, got.correlation) == (pytest.approx(1.0), 0.0)


def test_saying_everything_eight_times_teaches_nothing():
    values, _ = dependent(2, [1] * 30)
    once, often = (
        clustered_mean(values, np.arange(30)),
        clustered_mean(np.repeat(values, 8), np.repeat(np.arange(30), 8)),
    )
    assert often.standard_error == pytest.approx(once.standard_error)
    assert (often.interval.low, often.interval.high) == pytest.approx((once.interval.low, once.interval.high))
    assert often.design_effect == pytest.approx(8.0, rel=0.04)
    assert often.correlation == pytest.approx(1.0)


def test_names_and_order_of_sessions_do_not_matter():
    values, session = dependent(3, [3, 1, 8, 2, 5, 4, 4, 2, 9, 1, 3])
    order = np.random.default_rng(0).permutation(values.size)
    names = np.array([f"session {7 * one % 11}" for one in session])
    got, other = clustered_mean(values, session), clustered_mean(values[order], names[order])
    assert (got.interval.low, got.interval.high) == pytest.approx((other.interval.low, other.interval.high))


def test_a_difference_is_paired():
    first, session = dependent(4, [4] * 20)
    second = first - 0.1 + 0.01 * np.random.default_rng(5).normal(size=80)
    got = clustered_difference(first, second, session)
    assert got.mean == pytest.approx(0.1, abs=0.01)
    assert got.interval.high - got.interval.low < 0.02
    assert got == clustered_mean(first - second, session)


@pytest.mark.parametrize(
    "sizes", [[5, 5, 5, 5, 5], [1] * 12 + [400]], ids=["five sessions", "one session holds nearly all"]
)
def test_few_sessions_get_limits_that_hold_for_any_values(sizes):
    session = np.repeat(np.arange(len(sizes)), sizes)
    values = (np.random.default_rng(6).random(session.size) < 0.8).astype(float)
    got = clustered_mean(values, session, bounds=(0.0, 1.0))
    for limit in (got.interval.low, got.interval.high):
        if 0.0 < limit < 1.0:  # nearly one size: the mean is as far as theorem 1 lets it be
            entropy = naive.relative_entropy(float(values.mean()), limit)
            assert entropy * sum(sizes) / max(sizes) == pytest.approx(math.log(2 / 0.05), rel=1e-6)
    assert got.interval.method == f"Hoeffding (relative entropy) over {len(sizes)} sessions"
    assert got == clustered_mean(values, session)  # 0 and 1 say what the bounds are
    with pytest.raises(DataError, match="degrees of freedom"):
        clustered_mean(values + 1.0, session)
    paired = clustered_difference(values, 1 - values, session)
    wider = clustered_mean(values, session, (1 + 0.95) / 2)
    assert paired.interval.low == pytest.approx(wider.interval.low - (1 - wider.interval.low), abs=1e-9)
    assert paired.interval.high == pytest.approx(2 * wider.interval.high - 1, abs=1e-9)


def test_ten_sessions_are_enough_for_t():
    values, session = dependent(7, [5] * 10)
    assert "CR2" in clustered_mean(values, session, bounds=(-99.0, 99.0)).interval.method
    assert "Hoeffding" in clustered_mean(values[5:], session[5:], bounds=(-99.0, 99.0)).interval.method


def test_no_variation_is_no_certainty():
    session = np.repeat(np.arange(30), 4)
    with pytest.raises(DataError, match=r"standard error 0\.0"):
        clustered_mean(np.full(120, 0.1), session)
    got = clustered_mean(np.full(120, 1.0), session)
    assert got.interval.low == pytest.approx(0.025 ** (1 / 30))  # as 30 independent items all right
    assert got.interval.high == 1.0
    with pytest.raises(DataError, match=r"standard error 0\.0"):  # every session has the mean: sums of 0.1 and 0.7
        clustered_mean(np.tile([0.1, 0.1, 0.7, 0.7], 30), session)


@pytest.mark.parametrize(
    ("values", "session", "bounds", "words"),
    [
        ([], [], None, "shape"),
        ([1.0, float("nan")], [1, 2], None, "item 1 is nan"),
        ([1.0, 2.0], [1], None, "sessions of shape"),
        ([1.0, 2.0], [0.5, 1.5], None, "type float64"),
        ([1.0, 2.0], [None, "a"], None, "type object"),
        ([1.0, 2.0], ["a", "a"], None, "of one session 'a'"),
        ([1.0, 2.0], ["a", "b"], (0.0, 1.0), "2.0 is outside"),
    ],
)
def test_bad_data_is_named(values, session, bounds, words):
    with pytest.raises(DataError, match=words):
        clustered_mean(values, session, bounds=bounds)


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="bounds"):
        clustered_mean([1.0, 2.0], [1, 2], bounds=(1.0, 0.0))
    with pytest.raises(ConfigError, match="level 95"):
        clustered_mean([1.0, 2.0], [1, 2], 95)
    with pytest.raises(DataError, match="2 items against 3"):
        clustered_difference([1.0, 2.0], [1.0, 2.0, 3.0], [1, 2])
    with pytest.raises(DataError, match=r"2\.0 is outside"):
        clustered_difference([1.0, 2.0], [1.0, 1.0], [1, 2], bounds=(0.0, 1.0))
