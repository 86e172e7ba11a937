import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.stats.paired import PairedTable, tango
from tutelage.stats.power import items_needed, non_inferiority_power


def simulated_power(n, margin, difference, discordance, runs, seed):
    first, second = (discordance + difference) / 2, (discordance - difference) / 2
    draws = np.random.default_rng(seed).multinomial(n, [1 - discordance, first, second, 0.0], size=runs)
    return np.mean([tango(PairedTable(*draw)).low > -margin for draw in draws.tolist()])


def test_the_planned_case():
    assert non_inferiority_power(4500, 0.03, -0.01, 0.17) == pytest.approx(0.90, abs=0.001)
    assert 4400 < items_needed(0.90, 0.03, -0.01, 0.17) <= 4500


@pytest.mark.parametrize(
    ("n", "margin", "difference", "discordance"),
    [(4500, 0.03, -0.01, 0.17), (1000, 0.03, 0.0, 0.10), (300, 0.10, -0.02, 0.30), (1500, 0.05, 0.02, 0.5)],
)
def test_promised_power_is_what_tango_delivers(n, margin, difference, discordance):
    promised = non_inferiority_power(n, margin, difference, discordance)
    assert 0.3 < promised < 0.999
    assert simulated_power(n, margin, difference, discordance, 2000, seed=1) == pytest.approx(promised, abs=0.03)


@pytest.mark.parametrize("n", [200, 3000])
def test_at_the_margin_the_power_is_the_size_of_the_test(n):
    promised = non_inferiority_power(n, 0.05, -0.05, 0.2)
    assert promised == pytest.approx(0.025, abs=1e-9)
    assert simulated_power(n, 0.05, -0.05, 0.2, 4000, seed=2) == pytest.approx(0.025, abs=0.009)


plans = st.tuples(
    st.floats(0.01, 0.2), st.floats(-0.5, 1.0), st.floats(0.05, 0.5), st.floats(0.05, 0.99), st.floats(0.8, 0.99)
).map(lambda five: (five[0], five[0] * five[1], max(five[2], abs(five[0] * five[1])), five[3], five[4]))


@given(plans)
def test_items_needed_is_the_smallest_number(plan):
    margin, difference, discordance, power, level = plan
    n = items_needed(power, margin, difference, discordance, level)
    assert non_inferiority_power(n, margin, difference, discordance, level) >= power
    assert n == 1 or non_inferiority_power(n - 1, margin, difference, discordance, level) < power


@given(plans)
def test_harder_claims_need_more(plan):
    margin, difference, discordance, power, level = plan
    n = items_needed(power, margin, difference, discordance, level)
    assert items_needed((1 + power) / 2, margin, difference, discordance, level) >= n
    assert items_needed(power, margin, difference, discordance, (1 + level) / 2) >= n


@given(st.floats(0.02, 0.2), st.floats(0.2, 0.5), st.floats(0.5, 0.99))
def test_a_worse_student_needs_more(margin, discordance, power):
    needed = [items_needed(power, margin, share * margin, discordance) for share in (0.0, -0.25, -0.5, -0.75)]
    assert needed == sorted(needed)
    assert needed[-1] > 8 * needed[0]  # the items grow as the inverse square of the room left: 16 times


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0.03, 0.0, 0.1), "0 items"),
        ((10, -0.03, 0.0, 0.1), "not -0.03"),
        ((10, 0.03, -0.2, 0.1), "no two models differ by -0.2"),
        ((10, 0.03, 0.0, 0.0), "no two models"),
        ((10, 0.03, 0.0, 1.5), "no two models"),
        ((10, 0.03, 0.0, 0.1, 95), "level 95"),
    ],
)
def test_power_refuses(arguments, words):
    with pytest.raises(ConfigError, match=words):
        non_inferiority_power(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.0, 0.03, 0.0, 0.1), "power 1.0"),
        ((0.9, 0.03, -0.03, 0.1), "not within the margin"),
        ((0.9, 0.03, -0.05, 0.1), "not within the margin"),
        ((0.9, 3, 0.0, 0.1), "margin 3"),
    ],
)
def test_items_needed_refuses(arguments, words):
    with pytest.raises(ConfigError, match=words):
        items_needed(*arguments)
