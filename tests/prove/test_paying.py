"""Prices: the unit in which two are compared, the front, and when a student has paid for itself."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tutelage.prove.lengths import length_row
from tutelage.prove.paying import CPU, MONEY, WAITED, front, queries_to_pay, unit_of

ROW = {"usd_per_1000": 0.0, "cpu_s_per_query": None, "latency_s": 1.0}


def test_money_goes_before_cpu_and_that_before_waiting() -> None:
    paid, ours = ROW | {"usd_per_1000": 2.0}, ROW | {"cpu_s_per_query": 0.5}
    assert unit_of(paid, paid) is MONEY and unit_of(ours, ours) is CPU
    assert unit_of(paid, ours) is WAITED
    assert unit_of(ROW | {"latency_s": 0.0}, ROW) is None


def test_when_it_has_paid_for_itself() -> None:
    assert queries_to_pay(600.0, 2.0, 0.5) == 400
    assert queries_to_pay(0.3, 0.001, 0.0) == 300
    assert queries_to_pay(600.0, 0.5, 0.5) is None and queries_to_pay(600.0, 0.5, 0.6) is None
    assert queries_to_pay(None, 2.0, 0.5) is None and queries_to_pay(1.0, None, 0.5) is None


@given(
    st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=9)
)
def test_the_front_is_what_nobody_beats(points: list[tuple[float, float]]) -> None:
    kept = front([price for price, _ in points], [quality for _, quality in points])
    assert kept
    for at, (price, quality) in enumerate(points):
        beaten = any((p < price and q >= quality) or (p <= price and q > quality) for p, q in points)
        assert (at in kept) is not beaten
    for first, second in product(kept, kept):
        assert (points[first][0] < points[second][0]) <= (points[first][1] < points[second][1])


def test_without_an_answer_there_is_no_length() -> None:
    assert length_row("student", [None]) == {"role": "student", "n": 0, "characters": None, "tokens": None}
