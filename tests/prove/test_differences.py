"""Which interval a column of scores gets, and that several claims are held together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import ConfigError, DataError
from tutelage.prove.differences import (
    Column,
    Shown,
    difference_interval,
    held_together,
    mean_interval,
    shown,
)
from tutelage.records import Decision
from tutelage.stats.equivalence import verdict
from tutelage.stats.exact import paired_difference
from tutelage.stats.interval import Interval
from tutelage.stats.paired import PairedTable


def binary(right: int, n: int, shift: int = 0) -> Column:
    return Column(np.roll(np.array([1.0] * right + [0.0] * (n - right)), shift), True)


def test_right_or_wrong_gets_score_limits_and_exact_ones_where_few_differ() -> None:
    assert mean_interval(binary(80, 100), 0.95, 0).method == "Wilson score"
    assert mean_interval(binary(98, 100), 0.95, 0).method == "Clopper-Pearson exact"
    many = difference_interval(binary(80, 100), binary(80, 100, 30), 0.95, 0)
    assert many == paired_difference(PairedTable(60, 20, 20, 0), 0.95)
    few = difference_interval(binary(98, 100), binary(97, 100), 0.95, 0)
    assert few.method == "exact, simultaneous limits"


def test_scores_between_get_the_bootstrap_from_200_items_and_limits_for_any_size_below() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0, 1, 400), rng.uniform(0, 1, 400)
    long = difference_interval(Column(first, False), Column(second, False), 0.95, 0)
    assert long.method.startswith("BCa") and long.low < (first - second).mean() < long.high
    short = difference_interval(Column(first[:100], False), Column(second[:100], False), 0.95, 0)
    assert "sequence" in short.method
    assert short.high - short.low > long.high - long.low
    same = difference_interval(Column(first, False), Column(first, False), 0.95, 0)  # nothing to resample
    assert "sequence" in same.method and same.low < 0.0 < same.high


def test_sessions_are_known() -> None:
    rng = np.random.default_rng(2)
    session = np.repeat([f"s{at}" for at in range(30)], 10)
    base = np.repeat(rng.integers(0, 2, 30), 10).astype(float)
    alone = difference_interval(Column(base, True), Column(np.zeros(300), True), 0.95, 0)
    together = difference_interval(Column(base, True, session), Column(np.zeros(300), True, session), 0.95, 0)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_unequal_items_are_refused() -> None:
    with pytest.raises(DataError, match="100 items against 99"):
        difference_interval(binary(80, 100), binary(80, 99), 0.95, 0)


@given(
    both=st.integers(30, 300), first=st.integers(0, 60), second=st.integers(0, 60), neither=st.integers(0, 40),
    margin=st.floats(0.01, 0.3),
)  # fmt: skip
def test_p_is_where_what_is_shown_turns(both: int, first: int, second: int, neither: int, margin: float) -> None:
    table = PairedTable(both, first, second, neither)

    def shows(level: float) -> Shown:
        found = paired_difference(table, level)
        no_worse = found.low > -margin
        return Shown(no_worse, no_worse and found.high < margin, found.high < -margin)

    p_of_each = shown(lambda level: paired_difference(table, level), margin)
    assert p_of_each.no_worse <= p_of_each.within
    for at, p in enumerate(p_of_each):
        assert shows(0.95)[at] == (p <= 0.05) or abs(p - 0.05) < 1e-3
        if 1e-9 < p < 0.99:
            assert shows(1.0 - p * 1.01)[at]
            if p > 1e-11:
                assert not shows(1.0 - p / 1.01)[at]


def test_what_turns_into_more_at_a_lower_level_is_still_shown() -> None:
    """At 95 % NON-INFERIOR, at 90 % EQUIVALENT: the p of "no worse" is not that of a verdict."""
    half = {0.95: 0.06, 0.90: 0.05}

    def at(level: float) -> Interval:
        width = 0.06 - (0.95 - level) * (half[0.95] - half[0.90]) / 0.05
        return Interval(0.05 - width, 0.05 + width, level, "made", 100)

    assert verdict(at(0.95), 0.1) is Decision.NON_INFERIOR and verdict(at(0.89), 0.1) is Decision.EQUIVALENT
    found = shown(at, 0.1)
    assert found.no_worse < 1e-9
    assert found.within == pytest.approx(0.1, rel=1e-3)
    assert found.worse == 1.0


def test_a_level_without_an_interval_shows_nothing() -> None:
    def at(level: float) -> Interval:
        if level > 0.999:
            raise DataError("BCa breaks down", fix="fewer nines")
        return Interval(0.0, 0.01, level, "made", 100)

    assert shown(at, 0.1).within == pytest.approx(0.001, rel=1e-3)
    with pytest.raises(ConfigError, match="margin"):
        shown(at, 3.0)


def test_holm_takes_back_what_stood_alone() -> None:
    claims = [Shown(0.02, 1.0, 1.0), Shown(1.0, 1.0, 0.001), Shown(0.4, 1.0, 0.9)]
    stands = [Decision.INCONCLUSIVE, Decision.INFERIOR, Decision.INCONCLUSIVE]
    found = held_together(claims, 0.95)
    assert [decision for decision, _ in found] == stands
    assert [p for _, p in found] == pytest.approx([0.06, 0.003, 0.8])
    found = held_together([Shown(0.016, 1.0, 1.0), *claims[1:]], 0.95)
    assert [decision for decision, _ in found] == [Decision.NON_INFERIOR, *stands[1:]]


def test_an_equivalence_that_does_not_stand_beside_others_is_still_no_worse() -> None:
    claims = [Shown(0.0001, 0.04, 1.0), Shown(0.001, 1.0, 1.0)]
    found = held_together(claims, 0.95)
    assert [decision for decision, _ in found] == [Decision.NON_INFERIOR] * 2
    assert found[0][1] == pytest.approx(0.0002)
    assert held_together([Shown(0.0001, 0.02, 1.0), claims[1]], 0.95)[0] == (Decision.EQUIVALENT, pytest.approx(0.04))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_holm_never_gives_more_than_a_claim_alone(raw: list[tuple[float, float, float]]) -> None:
    claims = [Shown(min(one, two), max(one, two), three) for one, two, three in raw]
    for claim, (decision, p) in zip(claims, held_together(claims, 0.95), strict=True):
        alone = held_together([claim], 0.95)[0]
        assert p >= alone[1] - 1e-12 or decision is not alone[0]
        if decision is Decision.EQUIVALENT:
            assert claim.within <= 0.05 + 1e-8
        if decision is Decision.NON_INFERIOR:
            assert claim.no_worse <= 0.05 + 1e-8
