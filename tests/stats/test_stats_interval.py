import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from tests.reference import stats_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.interval import Interval, bootstrap_of_means, two_sided_z, wilson


def gap(student, before, teacher):
    return (student - before) / (teacher - before)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_table(successes, n, low, high):
    """Newcombe (1998), Stat. Med. 17:857, table I, method 3."""
    got = wilson(successes, n)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)
    assert (got.n, got.level, got.method) == (n, 0.95, "Wilson score")


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_agrees_with_statsmodels_and_the_polynomial(counts, level):
    successes, n = counts
    got = wilson(successes, n, level)
    assert (got.low, got.high) == pytest.approx(proportion_confint(successes, n, 1 - level, method="wilson"), abs=1e-9)
    assert (got.low, got.high) == pytest.approx(naive.wilson_limits(successes, n, two_sided_z(level)), abs=1e-6)
    assert 0.0 <= got.low <= successes / n <= got.high <= 1.0


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_of_failures_is_the_mirror_image(counts):
    successes, n = counts
    got, mirror = wilson(successes, n), wilson(n - successes, n)
    assert (got.low, got.high) == pytest.approx((1 - mirror.high, 1 - mirror.low), abs=1e-12)


def test_wilson_extremes_are_exact():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


def test_wilson_covers():
    rng = np.random.default_rng(5)
    draws = rng.binomial(80, 0.9, size=4000)
    limits = {value: wilson(int(value), 80) for value in set(draws.tolist())}
    covered = np.mean([limits[value].low <= 0.9 <= limits[value].high for value in draws.tolist()])
    assert 0.93 < covered < 0.975


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(DataError, match=f"{successes} successes of {n} items"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan])
def test_a_level_is_a_share(level):
    with pytest.raises(ConfigError, match=r"not 95"):
        wilson(1, 2, level)


def test_an_interval_is_finite_and_ordered():
    for low, high, n in [(0.2, 0.1, 5), (math.nan, 1.0, 5), (0.0, math.inf, 5), (0.0, 1.0, 0)]:
        with pytest.raises(DataError, match="no interval"):
            Interval(low, high, 0.95, "by hand", n)


def binary_columns(rng, n):
    teacher = rng.random(n) < 0.9
    student = np.where(rng.random(n) < 0.9, teacher, ~teacher)
    return np.column_stack([student, rng.random(n) < 0.5, teacher]).astype(np.float64)


def test_bootstrap_is_its_naive_twin():
    rng = np.random.default_rng(0)
    for columns, statistic in [
        (binary_columns(rng, 60), gap),
        (np.round(rng.gamma(1.0, 1.0, size=(25, 1)), 3), lambda mean: mean**2),
    ]:
        got = bootstrap_of_means(columns, statistic, np.random.default_rng(7), level=0.9, resamples=1000)
        wanted = naive.bca_limits(columns.tolist(), statistic, np.random.default_rng(7), 0.9, 1000)
        assert (got.low, got.high) == pytest.approx(wanted, abs=1e-9)
        assert (got.n, got.method) == (len(columns), "BCa bootstrap, 1000 resamples")


def test_bootstrap_agrees_with_scipy():
    from scipy import stats

    rng = np.random.default_rng(1)
    values = rng.gamma(1.0, 1.0, size=40)
    got = bootstrap_of_means(values[:, None], np.log, np.random.default_rng(2), resamples=20_000)
    other = stats.bootstrap(
        (values,), lambda x, axis: np.log(x.mean(axis=axis)), n_resamples=20_000, method="BCa", random_state=3
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx((other.low, other.high), abs=0.015)
    percentile = np.quantile(np.log(rng.choice(values, size=(20_000, 40)).mean(axis=1)), [0.025, 0.975])
    assert got.low > percentile[0] + 0.015  # the correction for skewness is there


def test_bootstrap_does_not_depend_on_the_order_of_items():
    columns = binary_columns(np.random.default_rng(3), 500)
    one = bootstrap_of_means(columns, gap, np.random.default_rng(4), resamples=1000)
    assert one == bootstrap_of_means(columns[::-1], gap, np.random.default_rng(4), resamples=1000)


def test_bootstrap_in_blocks_is_complete(monkeypatch):
    columns = np.random.default_rng(3).normal(size=(50, 2))
    whole = bootstrap_of_means(columns, np.subtract, np.random.default_rng(4), resamples=1003)
    monkeypatch.setattr("tutelage.stats.interval._CELLS_AT_ONCE", 50 * 10)
    assert whole == bootstrap_of_means(columns, np.subtract, np.random.default_rng(4), resamples=1003)


def test_bootstrap_covers_the_gap_recovered():
    """Teacher .9, before .5, student right where the teacher is with .9, else with .1: student .82, gap .8."""
    rng = np.random.default_rng(8)
    runs = 300
    covered = 0
    for _ in range(runs):
        got = bootstrap_of_means(binary_columns(rng, 300), gap, rng, resamples=1000)
        covered += got.low <= 0.8 <= got.high
    assert 0.915 < covered / runs < 0.985


def test_bootstrap_says_how_many_resamples_it_dropped():
    columns = np.array([[1.0, 1.0]] * 3 + [[0.0, 1.0], [1.0, 0.0]] * 2)

    def above(first, second):  # infinite in a few resamples only
        return np.where(first < 0.17, np.inf, first - second)

    got = bootstrap_of_means(columns, above, np.random.default_rng(0), resamples=2000)
    dropped = int(got.method.split(", ")[2].split()[0])
    assert got.method == f"BCa bootstrap, 2000 resamples, {dropped} non-finite dropped"
    assert 1 <= dropped <= 20


@pytest.mark.parametrize(
    ("columns", "statistic", "words"),
    [
        (np.ones((9, 3)), gap, "is the teacher better"),
        (np.array([[1, 0, 1]] * 2 + [[0, 1, 0], [1, 1, 1], [0, 0, 0]] * 3), gap, "resamples have no finite"),
        (np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]), np.subtract, "all 1000 resamples give the same"),
        (np.array([[0.5]]), np.log, "at least two items"),
        (np.array([1.0, 2.0]), np.log, "at least two items"),
        (np.array([[1.0], [math.nan]]), np.log, "finite: False"),
        (np.eye(4), lambda *means: np.float64(1.0), "one value for each set of means"),
    ],
)
def test_bootstrap_refuses(columns, statistic, words):
    with pytest.raises(DataError, match=words):
        bootstrap_of_means(columns, statistic, np.random.default_rng(0), resamples=1000)


def test_bootstrap_refuses_a_statistic_that_one_item_makes_infinite():
    """No resample of four items has the mean of three, so only the jackknife meets it."""
    columns = np.array([[1.0], [2.0], [4.0], [8.0]])
    with pytest.raises(DataError, match="leaving one item out"):
        bootstrap_of_means(
            columns,
            lambda mean: np.where(np.abs(mean - 14 / 3) < 1e-9, np.inf, mean),
            np.random.default_rng(0),
            resamples=1000,
        )


def test_bootstrap_refuses_an_infinite_bias_correction():
    columns = np.random.default_rng(0).normal(size=(60, 1))
    with pytest.raises(DataError, match=r"a share 1\.0 of the resamples"):
        bootstrap_of_means(columns, lambda mean: -((mean - columns.mean()) ** 2), np.random.default_rng(0))


def test_bootstrap_refuses_where_the_correction_breaks_down():
    columns = np.array([[1000.0], *([[0.0]] * 49)])
    with pytest.raises(DataError, match="BCa breaks down"):
        bootstrap_of_means(columns, lambda mean: mean, np.random.default_rng(0), level=1 - 1e-12)


def test_bootstrap_refuses_few_resamples():
    with pytest.raises(ConfigError, match="999 resamples"):
        bootstrap_of_means(np.eye(3), gap, np.random.default_rng(0), resamples=999)
