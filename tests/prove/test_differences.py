"""Which interval a column of scores gets, and that several claims are held together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.differences import Column, adjusted, difference_interval, mean_interval, p_of
from tutelage.records import Decision
from tutelage.stats.equivalence import verdict
from tutelage.stats.exact import paired_difference
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
def test_p_is_where_the_decision_turns(both: int, first: int, second: int, neither: int, margin: float) -> None:
    table = PairedTable(both, first, second, neither)

    def at(level: float):  # noqa: ANN202
        return paired_difference(table, level)

    decision = verdict(at(0.95), margin)
    p = p_of(decision, at, margin)
    if decision is Decision.INCONCLUSIVE:
        assert p == 1.0
    else:
        assert p <= 0.05 * (1 + 1e-6)
        if 1e-9 < p:
            assert verdict(at(1.0 - p * 1.01), margin) is decision
            if p > 1e-11:
                assert verdict(at(1.0 - p / 1.01), margin) is not decision


def test_holm_takes_back_what_stood_alone() -> None:
    decisions = [Decision.NON_INFERIOR, Decision.INFERIOR, Decision.INCONCLUSIVE]
    found = adjusted(decisions, [0.02, 0.001, 1.0], [0.95] * 3)
    assert [decision for decision, _ in found] == [Decision.NON_INFERIOR, Decision.INFERIOR, Decision.INCONCLUSIVE]
    found = adjusted(decisions, [0.03, 0.001, 1.0], [0.95] * 3)
    assert [decision for decision, _ in found] == [Decision.INCONCLUSIVE, Decision.INFERIOR, Decision.INCONCLUSIVE]
    assert [p for _, p in found] == pytest.approx([0.06, 0.003, 1.0])
