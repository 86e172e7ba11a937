import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError
from tutelage.stats.clusters import clustered_mean
from tutelage.stats.power_means import clustered_power, clustered_sessions_needed, ppi_gold_needed, ppi_power


@given(st.integers(2, 400), st.floats(-0.5, 0.5), st.floats(0.2, 3.0), st.sampled_from([0.8, 0.9, 0.95]))
def test_one_item_a_session_is_statsmodels_t_test(sessions, difference, deviation, level):
    got = clustered_power(sessions, 1, difference, deviation, 0.3, 0.0, level)
    expected = TTestPower().power(difference / deviation, sessions, (1 - level) / 2, alternative="larger")
    assert got == pytest.approx(expected, abs=1e-6)


@given(st.integers(2, 60), st.integers(1, 20), st.floats(0, 1), st.floats(0, 0.5), st.floats(-0.2, 0.3))
def test_sessions_have_kishs_design_effect(sessions, items, correlation, margin, difference):
    error = 0.7 * math.sqrt((1 + (items - 1) * correlation) / (sessions * items))
    expected = naive.t_power(difference + margin, error, sessions - 1, 0.95)
    got = clustered_power(sessions, items, difference, 0.7, correlation, margin)
    assert got == pytest.approx(expected, abs=1e-9)
    assert 0.0 <= got <= 1.0


@given(st.integers(30, 500), st.integers(2, 5000), st.floats(-1, 0.99), st.floats(0, 0.3))
def test_cheap_labels_take_their_share_of_the_variance(gold, cheap, correlation, margin):
    error = 0.5 * math.sqrt((1 - max(0.0, correlation) ** 2 * cheap / (gold + cheap)) / gold)
    got = ppi_power(gold, cheap, -0.02, 0.5, correlation, margin)
    assert got == pytest.approx(naive.t_power(margin - 0.02, error, gold - 2, 0.95), abs=1e-9)
    assert ppi_power(gold, 2 * cheap, -0.02, 0.5, correlation, margin + 0.02) >= got - 1e-12


def test_what_is_needed_is_the_least():
    sessions = clustered_sessions_needed(0.9, 8, 0.0, 0.4, 0.1, 0.03)
    assert clustered_power(sessions, 8, 0.0, 0.4, 0.1, 0.03) >= 0.9
    assert clustered_power(sessions - 1, 8, 0.0, 0.4, 0.1, 0.03) < 0.9
    gold = ppi_gold_needed(0.9, 20_000, 0.0, 0.4, 0.8, 0.03)
    assert ppi_power(gold, 20_000, 0.0, 0.4, 0.8, 0.03) >= 0.9
    assert ppi_power(gold - 1, 20_000, 0.0, 0.4, 0.8, 0.03) < 0.9
    plain = ppi_gold_needed(0.9, 20_000, 0.0, 0.4, 0.0, 0.03)
    assert plain / gold == pytest.approx(1 / (1 - 0.64 * 20_000 / (20_000 + gold)), rel=0.01)
    assert ppi_gold_needed(0.9, 20_000, 1.0, 0.1, 0.0) == 30  # never fewer than ppi_mean takes


def test_promised_is_what_sessions_deliver():
    rng, said = np.random.default_rng(0), 0
    session = np.repeat(np.arange(25), 6)
    for _ in range(1_000):
        values = math.sqrt(0.2) * rng.normal(size=25)[session] + math.sqrt(0.8) * rng.normal(size=150)
        said += clustered_mean(values, session).interval.low > -0.35
    assert said / 1_000 == pytest.approx(clustered_power(25, 6, 0.0, 1.0, 0.2, 0.35), abs=0.045)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clustered_power(1, 8, 0.0, 1.0, 0.1), "1 sessions"),
        (lambda: clustered_power(math.nan, 8, 0.0, 1.0, 0.1), "nan sessions"),
        (lambda: ppi_power(math.nan, 100, 0.0, 1.0, 0.5), "nan gold"),
        (lambda: clustered_power(9, 0.5, 0.0, 1.0, 0.1), r"0\.5 items"),
        (lambda: clustered_power(9, 8, 0.0, 0.0, 0.1), r"deviation 0\.0"),
        (lambda: clustered_power(9, 8, 0.0, 1.0, 1.1), r"correlation 1\.1"),
        (lambda: clustered_power(9, 8, 0.0, 1.0, 0.1, -0.03), r"(?s)margin -0\.03.*not -0\.03"),
        (lambda: clustered_power(9, 8, math.nan, 1.0, 0.1), "difference of nan"),
        (lambda: clustered_power(9, 8, 0.0, 1.0, 0.1, level=95), "level 95"),
        (lambda: clustered_sessions_needed(0.9, 8, 0.0, 1.0, 0.1), "not above minus the margin"),
        (lambda: clustered_sessions_needed(1.0, 8, 0.1, 1.0, 0.1), r"power 1\.0"),
        (lambda: clustered_sessions_needed(0.9, 8, 1e-9, 1.0, 0.1), "more than"),
        (lambda: ppi_power(29, 100, 0.0, 1.0, 0.5), "29 gold"),
        (lambda: ppi_power(40, 1, 0.0, 1.0, 0.5), "1 cheap"),
        (lambda: ppi_power(40, 100, 0.0, 1.0, -1.5), r"correlation -1\.5"),
        (lambda: ppi_power(40, 100, 0.0, math.inf, 0.5), "deviation inf"),
        (lambda: ppi_gold_needed(0.9, 100, -0.1, 1.0, 0.5, 0.1), "not above minus the margin"),
        (lambda: ppi_gold_needed(0.9, 100, 0.1, 1.0, 0.5, -0.2), r"margin -0\.2"),
    ],
)
def test_bad_plans_are_named(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
