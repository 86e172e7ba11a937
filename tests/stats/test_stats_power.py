import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError
from tutelage.stats.paired import PairedTable, mcnemar_exact, tango
from tutelage.stats.power import (
    equivalence_items_needed,
    equivalence_power,
    items_needed,
    mcnemar_items_needed,
    mcnemar_power,
    non_inferiority_power,
)


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


def test_equivalence_is_both_sides_at_once():
    first, second = 0.06, 0.08
    draws = np.random.default_rng(3).multinomial(1000, [1 - first - second, first, second], size=1500)
    limits = [tango(PairedTable(*draw, 0), 0.90) for draw in draws.tolist()]
    found = np.mean([one.low > -0.05 and one.high < 0.05 for one in limits])
    assert found == pytest.approx(equivalence_power(1000, 0.05, -0.02, 0.14), abs=0.035)
    assert found < 0.95


@given(plans)
def test_equivalence_never_needs_fewer_than_either_side(plan):
    margin, difference, discordance, power, level = plan
    n = 500
    got = equivalence_power(n, margin, difference, discordance, level)
    sides = [non_inferiority_power(n, margin, sign * difference, discordance, level) for sign in (1, -1)]
    assert 0.0 <= got <= min(sides) + 1e-12
    assert got == pytest.approx(equivalence_power(n, margin, -difference, discordance, level))
    if abs(difference) < 0.9 * margin:
        needed = equivalence_items_needed(power, margin, difference, discordance, level)
        assert equivalence_power(needed, margin, difference, discordance, level) >= power
        assert needed == 1 or equivalence_power(needed - 1, margin, difference, discordance, level) < power


@given(st.integers(1, 25), st.floats(0.05, 0.99), st.floats(-1, 1), st.sampled_from([0.9, 0.95]))
def test_mcnemar_counts_every_outcome(n, discordance, lean, level):
    expected = naive.mcnemar_power(n, lean * discordance, discordance, level)
    assert mcnemar_power(n, lean * discordance, discordance, level) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_finds_what_was_promised():
    draws = np.random.default_rng(4).multinomial(300, [0.8, 0.13, 0.07], size=1500)
    found = np.mean([mcnemar_exact(PairedTable(*draw, 0)) <= 0.05 for draw in draws.tolist()])
    assert found == pytest.approx(mcnemar_power(300, 0.06, 0.2), abs=0.035)


@pytest.mark.parametrize(("difference", "discordance"), [(0.05, 0.2), (-0.05, 0.2), (0.02, 0.05), (0.3, 0.3)])
def test_mcnemar_items_needed(difference, discordance):
    n = mcnemar_items_needed(0.9, difference, discordance)
    assert mcnemar_power(n, difference, discordance) >= 0.9
    assert mcnemar_power(n - 1, difference, discordance) < 0.9


def test_mcnemar_of_many_items_keeps_its_level():
    """At no difference the power is the size of the exact test: near 5 % from below."""
    assert 0.045 < mcnemar_power(100_000, 0.0, 0.2) <= 0.05
    assert mcnemar_power(5, 0.0, 0.2) == 0.0  # five items cannot give p <= 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mcnemar_power(0, 0.1, 0.2), "0 items"),
        (lambda: non_inferiority_power(float("nan"), 0.03, 0.0, 0.2), "nan items"),
        (lambda: mcnemar_power(10, 0.3, 0.2), "no two models differ by 0.3"),
        (lambda: mcnemar_power(10, 0.1, 0.2, 95), "level 95"),
        (lambda: mcnemar_items_needed(0.9, 0.0, 0.2), "never found"),
        (lambda: mcnemar_items_needed(1.5, 0.1, 0.2), "power 1.5"),
        (lambda: equivalence_power(100, -0.03, 0.0, 0.2), "not -0.03"),
        (lambda: equivalence_items_needed(0.9, 0.03, 0.03, 0.2), "not within the margin"),
        (lambda: equivalence_items_needed(0.9, 0.03, -0.04, 0.2), "not within the margin"),
        (lambda: equivalence_items_needed(0.0, 0.03, 0.0, 0.2), "power 0.0"),
    ],
)
def test_further_plans_refuse(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
