import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import ConfigError
from tutelage.records import Decision
from tutelage.stats.equivalence import equivalence, non_inferiority, verdict
from tutelage.stats.interval import Interval


def between(low, high):
    return Interval(low, high, 0.95, "by hand", 100)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (-0.029, 0.01, Decision.NON_INFERIOR),
        (-0.029, -0.001, Decision.NON_INFERIOR),  # worse, but by less than the margin
        (0.04, 0.05, Decision.NON_INFERIOR),
        (-0.03, 0.01, Decision.INCONCLUSIVE),  # the limit itself is not inside
        (-0.05, 0.05, Decision.INCONCLUSIVE),
        (-0.05, -0.03, Decision.INCONCLUSIVE),
        (-0.05, -0.031, Decision.INFERIOR),
    ],
)
def test_non_inferiority(low, high, decision):
    assert non_inferiority(between(low, high), 0.03) is decision


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (-0.029, 0.029, Decision.EQUIVALENT),
        (-0.03, 0.01, Decision.INCONCLUSIVE),
        (-0.01, 0.03, Decision.INCONCLUSIVE),
        (-0.05, -0.04, Decision.INFERIOR),
        (0.04, 0.05, Decision.NON_INFERIOR),
        (-0.05, 0.05, Decision.INCONCLUSIVE),
    ],
)
def test_equivalence(low, high, decision):
    assert equivalence(between(low, high), 0.03) is decision


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (-0.029, 0.029, Decision.EQUIVALENT),
        (-0.029, 0.031, Decision.NON_INFERIOR),
        (0.04, 0.05, Decision.NON_INFERIOR),
        (-0.03, 0.01, Decision.INCONCLUSIVE),
        (-0.05, 0.05, Decision.INCONCLUSIVE),
        (-0.05, -0.03, Decision.INCONCLUSIVE),
        (-0.05, -0.031, Decision.INFERIOR),
    ],
)
def test_verdict(low, high, decision):
    assert verdict(between(low, high), 0.03) is decision


limits = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted)


@given(limits, st.floats(0.001, 0.999))
def test_equivalence_is_non_inferiority_both_ways(pair, margin):
    low, high = pair
    both = (
        non_inferiority(between(low, high), margin) is Decision.NON_INFERIOR
        and non_inferiority(between(-high, -low), margin) is Decision.NON_INFERIOR
    )
    assert (equivalence(between(low, high), margin) is Decision.EQUIVALENT) == both


@given(limits, st.floats(0.001, 0.999), st.floats(0, 1))
def test_the_verdict_is_true_when_the_interval_holds_the_truth(pair, margin, share):
    low, high = pair
    truth = min(high, low + share * (high - low))
    said = verdict(between(low, high), margin)
    if said is Decision.EQUIVALENT:
        assert abs(truth) < margin
    if said is Decision.NON_INFERIOR:
        assert truth > -margin
    if said is Decision.INFERIOR:
        assert truth < -margin
    strongest = (equivalence(between(low, high), margin), non_inferiority(between(low, high), margin))
    assert (said is Decision.INCONCLUSIVE) == (set(strongest) == {Decision.INCONCLUSIVE})


@given(limits, st.floats(0.001, 0.5), st.floats(0.001, 0.499))
def test_a_larger_margin_never_takes_non_inferiority_back(pair, margin, more):
    interval = between(*pair)
    if non_inferiority(interval, margin) is Decision.NON_INFERIOR:
        assert non_inferiority(interval, margin + more) is Decision.NON_INFERIOR
    if non_inferiority(interval, margin + more) is Decision.INFERIOR:
        assert non_inferiority(interval, margin) is Decision.INFERIOR


@pytest.mark.parametrize("margin", [-0.03, 0.0, 1.0, 3, float("nan")])
@pytest.mark.parametrize("decide", [non_inferiority, equivalence, verdict])
def test_a_margin_is_a_positive_proportion(decide, margin):
    with pytest.raises(ConfigError, match=r"(?s)margin .*0\.03 for three points, not -0\.03 and not 3"):
        decide(between(-0.01, 0.01), margin)
