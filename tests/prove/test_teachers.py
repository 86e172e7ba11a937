"""Ranking compared teachers: what is decided, what is not, whom to take."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import ConfigError, DataError
from tutelage.prove.teachers import (
    Offer,
    accuracy_interval,
    choose,
    items_to_order,
    items_within,
    rank,
    two_sided_p,
)
from tutelage.stats.exact import paired_difference
from tutelage.stats.paired import PairedTable, mcnemar_exact

FREE = Offer(0.0, True)


def rows(*wrong: tuple[int, int], n: int = 400) -> np.ndarray:
    """One candidate a pair: wrong on the items from the first to before the second."""
    made = np.ones((len(wrong), n), dtype=bool)
    for row, (low, high) in zip(made, wrong, strict=True):
        row[low:high] = False
    return made


def test_a_clear_order_is_decided_in_tiers() -> None:
    found = rank(["low", "high", "mid"], rows((0, 200), (0, 20), (0, 100)), 0.03)
    assert [place.name for place in found.places] == ["high", "mid", "low"]
    assert [(place.tier, place.best_rank, place.worst_rank) for place in found.places] == [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
    ]
    assert found.is_decided and found.leaders == ("high",)
    assert [place.is_within for place in found.places] == [True, False, False]


def test_what_is_near_is_not_decided_and_shares_its_ranks() -> None:
    found = rank(["a", "b", "c"], rows((0, 60), (40, 102), (0, 250)), 0.03)
    first, second, third = found.places
    assert not found.is_decided
    assert found.leaders == ("a", "b")
    assert [(place.best_rank, place.worst_rank) for place in (first, second, third)] == [(1, 2), (1, 2), (3, 3)]
    pair = found.pairs[0]
    assert (pair.first, pair.second, pair.is_decided) == ("a", "b", False)
    assert pair.interval.low < 0 < pair.interval.high


def test_two_candidates_are_judged_at_the_level_itself() -> None:
    (pair,) = rank(["a", "b"], rows((0, 40), (20, 80)), 0.03).pairs
    assert pair.interval.level == pytest.approx(0.95)
    assert pair.interval == paired_difference(PairedTable(320, 40, 20, 20), pair.interval.level)
    assert pair.p == pytest.approx(two_sided_p(PairedTable(320, 40, 20, 20)))


def test_holm_gives_later_pairs_a_lower_level_than_bonferroni() -> None:
    found = rank(["a", "b", "c"], rows((0, 20), (0, 100), (0, 200)), 0.03)
    levels = sorted((pair.interval.level for pair in found.pairs), reverse=True)
    assert levels == pytest.approx([1 - 0.1 / 6, 1 - 0.1 / 5, 1 - 0.1 / 4])
    assert [pair.at_once.level for pair in found.pairs] == pytest.approx([1 - 0.05 / 3] * 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 60), st.integers(0, 10**6), st.sampled_from([0.8, 0.95, 0.99]))
def test_an_order_is_said_just_when_the_adjusted_interval_excludes_zero(
    count: int, n: int, seed: int, level: float
) -> None:
    draw = np.random.default_rng(seed)
    correct = draw.random((count, n)) < draw.random((count, 1))
    names = [f"t{at}" for at in range(count)]
    found = rank(names, correct, 0.05, level)
    place = {one.name: one for one in found.places}
    assert [one.accuracy for one in found.places] == sorted((one.accuracy for one in found.places), reverse=True)
    for pair in found.pairs:
        assert pair.is_decided == (pair.interval.low > 0 or pair.interval.high < 0)
        assert pair.is_decided == (pair.p <= 1 - level + 1e-9)
        assert pair.at_once.low <= pair.interval.low + 1e-12 and pair.interval.high <= pair.at_once.high + 1e-12
        if pair.is_decided:
            assert pair.difference > 0
            assert place[pair.first].tier < place[pair.second].tier
    for one in found.places:
        assert 1 <= one.best_rank <= one.worst_rank <= count
    again = rank(names[::-1], correct[::-1], 0.05, level)
    assert {one.name: one.tier for one in again.places} == {one.name: one.tier for one in found.places}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_p_is_the_level_at_which_the_interval_touches_zero(one: int, two: int, both: int) -> None:
    table = PairedTable(both + 1, one, two, 0)
    p = two_sided_p(table)
    if one == two:
        assert p == 1.0
    if 1e-11 < p < 0.999:
        wide, narrow = (paired_difference(table, 1 - p * factor) for factor in (0.999, 1.001))
        assert wide.low <= 0 <= wide.high
        assert narrow.low > 0 or narrow.high < 0


def test_p_is_near_mcnemars() -> None:
    table = PairedTable(500, 60, 35, 100)
    assert two_sided_p(table) == pytest.approx(math.erfc(25 / math.sqrt(190)))
    assert two_sided_p(table) == pytest.approx(mcnemar_exact(table), rel=0.4)
    few = PairedTable(80, 12, 1, 7)
    assert two_sided_p(few) > mcnemar_exact(few)  # it covers whatever the truth: no test is sharper


def test_equal_candidates_are_seldom_ordered() -> None:
    """Four equals, 200 times: P(any order said) is at most 5 %; 22 or more happen less than once in a thousand times."""
    draw = np.random.default_rng(7)
    said = 0
    for _ in range(200):
        easy = draw.random(150) < 0.6
        correct = np.where(draw.random((4, 150)) < 0.5, easy, draw.random((4, 150)) < 0.7)
        said += any(pair.is_decided for pair in rank(list("abcd"), correct, 0.05).pairs)
    assert said <= 21


def test_true_ranks_are_in_the_sets() -> None:
    draw, missed = np.random.default_rng(3), 0
    chance = np.array([0.8, 0.8, 0.7, 0.55])
    true_best = {"a": 1, "b": 1, "c": 3, "d": 4}  # one more than how many are better
    for _ in range(200):
        correct = draw.random((4, 200)) < chance[:, None]
        places = rank(list("abcd"), correct, 0.05).places
        missed += any(not place.best_rank <= true_best[place.name] <= place.worst_rank for place in places)
    assert missed <= 21  # 5 % of 200 are 10; 22 or more happen less than once in a thousand times


def test_more_items_would_decide() -> None:
    found = rank(["a", "b"], rows((0, 60), (40, 112)), 0.03)
    (pair,) = found.pairs
    needed = items_to_order(pair, 0.9)
    assert needed is not None and needed > 400
    times = needed // 400 + 1
    assert rank(["a", "b"], np.tile(rows((0, 60), (40, 112)), times), 0.03).is_decided
    assert items_to_order(rank(["a", "b"], rows((0, 60), (40, 100)), 0.03).pairs[0]) is None, "seen as equal"
    assert items_within(pair, 0.03, 0.9) < needed
    assert items_within(rank(["a", "b"], rows((0, 60), (0, 60)), 0.03).pairs[0], 0.03) is None, "never apart"


def test_the_cheapest_within_the_margin_is_taken() -> None:
    correct = rows((0, 40), (0, 42), (0, 200), n=2000)
    found = rank(["dear", "cheap", "poor"], correct, 0.03)
    offers = {"dear": Offer(9.0, True), "cheap": Offer(0.5, True), "poor": Offer(0.0, True)}
    assert choose(found, offers)[:2] == ("cheap", True)
    assert "the cheapest" in choose(found, offers).why
    hidden = offers | {"cheap": Offer(0.5, False)}
    assert choose(found, hidden).name == "dear"
    none = {name: offer._replace(reveals_logprobs=False) for name, offer in offers.items()}
    assert choose(found, none).name == "cheap"
    assert "none of them reveals" in choose(found, none).why
    same = dict.fromkeys(offers, FREE)
    assert choose(found, same).name == "dear"


def test_nothing_shown_is_said_and_a_low_price_does_not_win() -> None:
    found = rank(["a", "b"], rows((0, 30), (20, 52), n=150), 0.03)
    choice = choose(found, {"a": Offer(9.0, True), "b": Offer(0.0, True)})
    assert choice[:2] == ("a", False)


def test_one_candidate_is_no_comparison() -> None:
    found = rank(["a"], rows((0, 30)), 0.03)
    assert found.pairs == () and found.places[0].worst_rank == 1
    assert "compared with nobody" in choose(found, {"a": FREE}).why


def test_few_errors_have_an_exact_interval() -> None:
    assert accuracy_interval(398, 400).method.startswith("Clopper")
    assert accuracy_interval(300, 400).method.startswith("Wilson")


@pytest.mark.parametrize(
    ("names", "correct", "words"),
    [
        (["a", "b"], [[1, float("nan")], [1, 0]], "nan of a at item 1"),
        (["a", "b"], [[1, 0], [2, 0]], "2 of b at item 0"),
        (["a", "b"], [[1, 0]], r"shape \(1, 2\)"),
        (["a", "b"], np.zeros((2, 0)), r"shape \(2, 0\)"),
        (["a", "a"], [[1, 0], [1, 0]], "repeat"),
    ],
)
def test_bad_input_is_named(names: list[str], correct: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        rank(names, correct, 0.03)  # type: ignore[arg-type]


def test_bad_settings_are_named() -> None:
    for margin, level in itertools.product((0.0, 1.0, float("nan")), (0.95,)):
        with pytest.raises(ConfigError, match="margin"):
            rank(["a", "b"], rows((0, 1), (1, 2)), margin, level)
    with pytest.raises(ConfigError, match="95"):
        rank(["a", "b"], rows((0, 1), (1, 2)), 0.03, 95)
    with pytest.raises(DataError, match="nan dollars"):
        choose(rank(["a", "b"], rows((0, 1), (1, 2)), 0.03), {"a": Offer(float("nan"), True), "b": FREE})
