import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm
from scipy.stats import t as student

from tests.reference import inference_naive as naive
from tutelage.stats.clusters import clustered_difference, clustered_mean
from tutelage.stats.effective import (
    Spread,
    effective_items,
    hoeffding_limits,
    pair_limits,
    share_limits,
)
from tutelage.stats.interval import wilson_limits
from tutelage.stats.paired import tango_limits

sizes = st.lists(st.integers(1, 9), min_size=4, max_size=30)


def right(seed, sizes, share, correlation):
    """0/1 in sessions: each session has a chance of its own."""
    rng = np.random.default_rng(seed)
    pull = 1 / correlation - 1
    session = np.repeat(np.arange(len(sizes)), sizes)
    chance = rng.beta(share * pull, (1 - share) * pull, len(sizes))
    return (rng.random(session.size) < chance[session]).astype(float), session


def spread(error, degrees=29.0, items=240, sessions=30):
    return Spread(error, degrees, items, np.full(sessions, 1 / sessions), True)


def test_items_of_their_own_are_worth_what_they_are():
    """One item a session: error² is p(1 − p)/(n − 1), and only the degrees of freedom cost something."""
    values = np.array([1.0] * 150 + [0.0] * 50)
    got = clustered_mean(values, np.arange(200)).interval
    n = 199 * (norm.ppf(0.975) / student.ppf(0.975, 199)) ** 2
    assert (got.low, got.high) == pytest.approx(wilson_limits(0.75, n, norm.ppf(0.975)), abs=1e-9)
    assert got.method == "Wilson score, 197 effective items of 200 sessions"
    first, second = values, np.roll(values, 30)
    got = clustered_difference(first, second, np.arange(200)).interval
    only = ((first > second).mean(), (first < second).mean())
    expected = tango_limits(n * only[0], n * only[1], n, norm.ppf(0.975))
    assert (got.low, got.high) == pytest.approx(expected, abs=1e-9)
    assert got.method == "Tango score, 197 effective items of 200 sessions"


def test_saying_right_and_wrong_eight_times_teaches_nothing():
    values, _ = right(0, [1] * 60, 0.7, 0.5)
    once, often = (
        clustered_mean(np.repeat(values, times), np.repeat(np.arange(60), times)).interval for times in (1, 8)
    )
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-12)


def test_the_regimes_and_their_limits():
    """By hand: n = p(1 − p)/error² (z/t)²; Wilson, Clopper-Pearson with n p successes, Hoeffding."""
    ratio = (norm.ppf(0.975) / student.ppf(0.975, 29)) ** 2
    enough, fewer, few = (math.sqrt(0.09 / (n / ratio)) for n in (250.0, 100.0, 60.0))
    got = share_limits(0.9, spread(enough), 0.95, True)
    n = min(240, 0.09 / enough**2) * ratio  # never more than there are
    assert got[:2] == pytest.approx(wilson_limits(0.9, n, norm.ppf(0.975)))
    got = share_limits(0.9, spread(fewer), 0.95, True)
    assert got[:2] == pytest.approx((beta.ppf(0.025, 90, 11), beta.ppf(0.975, 91, 10)), rel=1e-9)
    assert got.method == "Clopper-Pearson, 100 effective items"
    got = share_limits(0.9, spread(few), 0.95, True)
    assert got == hoeffding_limits(0.9, np.full(30, 1 / 30), 0.95)
    unknown = spread(enough)._replace(known=False)
    assert share_limits(0.9, unknown, 0.95, True) == got
    assert effective_items(0.09, unknown, 0.95) == effective_items(0.09, spread(0.0), 0.95) == 0.0
    assert effective_items(0.09, spread(0.001), 0.95) == pytest.approx(0.09 / 1e-6 * ratio)


def test_the_regimes_of_pairs():
    apart = 0.975
    ratio = (norm.ppf(0.9875) / student.ppf(0.9875, 29)) ** 2
    variance = 0.1 - 0.02**2
    got = pair_limits(0.06, 0.04, spread(math.sqrt(variance / 150)), 0.95)
    n = 150 * ratio
    one, two = ((beta.ppf(0.0125, n * p, n - n * p + 1), beta.ppf(0.9875, n * p + 1, n - n * p)) for p in (0.06, 0.04))
    assert got[:2] == pytest.approx((one[0] - two[1], one[1] - two[0]), rel=1e-9)
    assert got.method.startswith("simultaneous Clopper-Pearson")
    got = pair_limits(0.06, 0.04, spread(math.sqrt(variance / 50)), 0.95)
    one, two = (hoeffding_limits(p, np.full(30, 1 / 30), apart) for p in (0.06, 0.04))
    assert got[:2] == pytest.approx((one.low - two.high, one.high - two.low))
    assert got.method == "Hoeffding (relative entropy) over 30 sessions, simultaneous"


@given(st.integers(0, 999), sizes, st.floats(0.05, 0.95), st.floats(0.02, 0.9))
def test_shares_hold_their_mean_mirror_and_grow_with_the_level(seed, counts, share, correlation):
    values, session = right(seed, counts, share, correlation)
    got, mirror = clustered_mean(values, session).interval, clustered_mean(1 - values, session).interval
    assert 0.0 <= got.low <= values.mean() <= got.high <= 1.0
    assert (mirror.low, mirror.high) == pytest.approx((1 - got.high, 1 - got.low), abs=1e-9)
    wide = clustered_mean(values, session, 0.99).interval
    assert wide.low <= got.low + 1e-12
    assert wide.high >= got.high - 1e-12


@given(st.integers(0, 999), sizes, st.floats(0.1, 0.9), st.floats(0.02, 0.9))
def test_pairs_hold_their_difference_mirror_and_grow_with_the_level(seed, counts, share, correlation):
    first, session = right(seed, counts, share, correlation)
    second, _ = right(seed + 1, counts, share, correlation)
    got, swapped = (clustered_difference(*two, session).interval for two in ((first, second), (second, first)))
    assert -1.0 <= got.low <= (first - second).mean() <= got.high <= 1.0
    assert (swapped.low, swapped.high) == pytest.approx((-got.high, -got.low), abs=1e-9)
    wide = clustered_difference(first, second, session, 0.99).interval
    assert wide.low <= got.low + 1e-12
    assert wide.high >= got.high - 1e-12


@given(st.integers(0, 999), sizes, st.sampled_from([(0.0, 5.0), (-1.0, 1.0), (10.0, 12.0)]))
def test_units_of_bounded_scores_do_not_matter(seed, counts, bounds):
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(len(counts)), counts)
    unit, (low, high) = rng.beta(4.0, 0.5, session.size), bounds
    got = clustered_mean(unit, session, bounds=(0.0, 1.0)).interval
    scaled = clustered_mean(low + (high - low) * unit, session, bounds=bounds).interval
    assert ((scaled.low - low) / (high - low), (scaled.high - low) / (high - low)) == pytest.approx(
        (got.low, got.high), abs=1e-7
    )
    assert scaled.method == got.method


def test_right_and_wrong_in_other_units_are_right_and_wrong():
    values, session = right(3, [8] * 30, 0.8, 0.2)
    got, scaled = clustered_mean(values, session).interval, clustered_mean(5 * values, session, bounds=(0, 5)).interval
    assert (scaled.low, scaled.high, scaled.method) == (
        pytest.approx(5 * got.low),
        pytest.approx(5 * got.high),
        got.method,
    )
    second, _ = right(4, [8] * 30, 0.8, 0.2)
    got = clustered_difference(values, second, session).interval
    scaled = clustered_difference(5 * values, 5 * second, session, bounds=(0, 5)).interval
    assert (scaled.low, scaled.high) == (pytest.approx(5 * got.low), pytest.approx(5 * got.high))


@pytest.mark.parametrize("sessions", [3, 12])
def test_hoeffdings_limits_hold_at_every_truth(sessions):
    """Sessions all right or all wrong vary most; the number of right ones is binomial."""
    limits = [hoeffding_limits(k / sessions, np.full(sessions, 1 / sessions), 0.9) for k in range(sessions + 1)]
    for p in np.linspace(0, 1, 81):
        chance = [naive.binomial(k, sessions, p) for k in range(sessions + 1)]
        below = math.fsum(one for one, limit in zip(chance, limits, strict=True) if p < limit.low - 1e-12)
        above = math.fsum(one for one, limit in zip(chance, limits, strict=True) if p > limit.high + 1e-12)
        assert max(below, above) <= 0.05 + 1e-12


def test_theorem_two_where_sizes_differ_much():
    share = np.array([0.4] + [0.05] * 12)
    got = hoeffding_limits(0.7, share, 0.95)
    half = math.sqrt(math.log(40) / 2 * (0.16 + 12 * 0.0025))
    assert (got.low, got.high) == (pytest.approx(0.7 - half), 1.0)
    assert got.method == "Hoeffding over 13 sessions"


@pytest.mark.parametrize(("share", "correlation"), [(0.8, 0.4), (0.95, 0.2), (0.95, 0.4)])
def test_few_lopsided_sessions_are_covered(share, correlation):
    """The t interval covers 89, 78 and 66 % here."""
    covered = 0
    for seed in range(400):
        values, session = right(seed, [8] * 10, share, correlation)
        got = clustered_mean(values, session).interval
        covered += got.low <= share <= got.high
    assert covered / 400 >= 0.96


def test_every_regime_is_met():
    made = [clustered_mean(*right(seed, [8] * 30, 0.85, 0.1)).interval for seed in range(40)]
    made += [clustered_mean(*right(seed, [8] * 30, 0.95, 0.1)).interval for seed in range(40)]
    methods = {one.method.split(",")[0] for one in made}
    assert methods == {"Wilson score", "Clopper-Pearson", "Hoeffding (relative entropy) over 30 sessions"}
