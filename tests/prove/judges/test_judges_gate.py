"""The gate: no judge that does not look at the answers ever gets a verdict, at any number of items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.prove.judges.made import BAD, NO_GOLD, bad, good, made_items
from tutelage.prove.judges.calls import Call, Items, JudgeCalls
from tutelage.prove.judges.evidence import judge_evidence
from tutelage.prove.judges.gate import LEAST_CONSISTENCY, LEVEL, is_usable
from tutelage.stats.exact import clopper_pearson

SEEDS = {5: 40, 50: 60, 500: 60, 5_000: 30, 100_000: 4}


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_judge_never_gets_a_verdict(kind: str, n: int) -> None:
    """Where the student is as good, and where it is much worse: then NON-INFERIOR would be wrong."""
    for seed in range(SEEDS[n]):
        rng = np.random.default_rng([seed, n])
        items, _ = made_items(rng, n, win_rate=0.5 if seed % 2 else 0.2)
        found = judge_evidence(items, bad(kind, rng, items), 0.1, 0.95)
        assert found["verdict"] == "INCONCLUSIVE", seed
        assert found["ci_low"] is None
        assert found["reasons"], "a person must read why"


@pytest.mark.parametrize("n", [50, 500, 5_000])
@pytest.mark.parametrize("kind", BAD)
def test_gold_unmasks_a_bad_judge(kind: str, n: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng([seed, n])
        items, _ = made_items(rng, n, gold=n // 2 if n > 50 else n)
        found = judge_evidence(items, bad(kind, rng, items), 0.1, 0.95)
        assert (found["verdict"], found["gate"]["ground"]) == ("INCONCLUSIVE", "gold")


def test_the_same_judge_by_length_is_cleared_by_gold_that_prefers_the_longer() -> None:
    """Without gold it is held back, and its leaning named; with gold that shares it, it may be believed."""
    rng = np.random.default_rng(1)
    items, _ = made_items(rng, 400)
    judge = bad("longer", rng, items)
    held = judge_evidence(items, judge, 0.1, 0.95)
    assert held["verdict"] == "INCONCLUSIVE"
    assert held["longer_preferred"]["share"] == 1.0
    assert held["swap_consistency"]["share"] == 1.0, "consistent it is"
    assert "preference for the longer" in " ".join(held["reasons"])
    gold_N = np.where(np.arange(400) < 120, items.longer_N, NO_GOLD).astype(np.int8)
    cleared = is_usable(Items(items.longer_N, items.identical_N, gold_N), judge)
    assert (cleared.is_usable, cleared.ground) == (True, "gold")


@pytest.mark.parametrize("n", [100, 400, 5_000])
def test_a_good_judge_passes_with_and_without_gold(n: int) -> None:
    passed = {0: 0, n // 2: 0}
    for seed in range(20):
        rng = np.random.default_rng([seed, n])
        for gold in passed:
            items, better = made_items(rng, n, gold=gold)
            passed[gold] += is_usable(items, good(rng, better, 0.93)).is_usable
    assert passed[n // 2] >= 19
    assert passed[0] >= (0 if n < 400 else 19), "a hundred items are too few to clear it without gold"


def test_thirty_items_are_the_least() -> None:
    for n, is_enough in ((29, False), (30, True)):
        settled = np.where(np.arange(n) % 2, 1, -1).astype(np.int8)
        longer = np.where(np.arange(n) % 4 < 2, 1, -1).astype(np.int8)
        items = Items(longer, np.zeros(n, bool), np.full(n, NO_GOLD, np.int8))
        assert is_usable(items, JudgeCalls("perfect", settled, settled)).is_usable is is_enough


def test_the_chance_to_pass_on_the_border_is_under_one_in_twenty_thousand_at_every_size() -> None:
    """Exact, not simulated: the binomial probability of the counts that pass, at a consistency of just 60 %."""
    worst = 0.0
    for n in (*range(30, 400), 1_000, 5_000, 100_000):
        low, high = 0, n + 1  # the least count that passes, by bisection
        while low < high:
            middle = (low + high) // 2
            passes = middle == n + 1 or clopper_pearson(middle, n, LEVEL).low > LEAST_CONSISTENCY
            low, high = (low, middle) if passes else (middle + 1, high)
        worst = max(worst, float(binom.sf(low - 1, n, LEAST_CONSISTENCY)))
    assert 0.0 < worst <= (1 - LEVEL) / 2 <= 1 / 20_000 + 1e-12


@given(*[st.floats(0, 1)] * 4)
def test_the_bounds_that_the_rules_rest_on(named_1: float, named_2: float, part_1: float, part_2: float) -> None:
    """P(other side twice) is at most half of P(inconsistent) for a judge that leans to one side on every item; P(one model
    twice) is at most P(inconsistent) for one that does not look."""
    one, other = (named_1 * part_1, named_2 * part_2), (named_1 * (1 - part_1), named_2 * (1 - part_2))
    if sum(other) > sum(one):
        one, other = other, one
    twice = other[0] * other[1]
    ties = (1 - named_1, 1 - named_2)
    inconsistent = one[0] * (other[1] + ties[1]) + one[1] * (other[0] + ties[0])
    inconsistent += other[0] * ties[1] + other[1] * ties[0]
    assert 2 * twice <= inconsistent + 1e-12
    a, b = one[0], other[0]  # says A, B or neither with these in either order: student first, then teacher first
    assert 2 * a * b <= a * a + b * b + 2 * (a + b) * ties[0] + 1e-12


def test_a_rubric_judge_needs_gold() -> None:
    """Asked twice at temperature nought it repeats itself, which shows nothing."""
    rng = np.random.default_rng(3)
    items, better = made_items(rng, 1_000)
    calls = good(rng, better).student_first_N
    judge = JudgeCalls("rubric", calls, calls, is_swapped=False)
    assert "saw each answer alone" in " ".join(is_usable(items, judge).reasons)
    items, better = made_items(rng, 1_000, gold=300)
    calls = good(rng, better).student_first_N
    assert is_usable(items, JudgeCalls("rubric", calls, calls, is_swapped=False)).is_usable


def test_gold_on_few_items_is_not_asked() -> None:
    rng = np.random.default_rng(4)
    items, better = made_items(rng, 1_000, gold=29)
    found = is_usable(items, good(rng, better))
    assert (found.is_usable, found.ground) == (True, "swap")


def test_equally_long_answers_do_not_hold_a_good_judge_back() -> None:
    rng = np.random.default_rng(5)
    items, better = made_items(rng, 1_000)
    level = Items(np.zeros(1_000, np.int8), items.identical_N, items.gold_N)
    assert is_usable(level, good(rng, better)).is_usable
    coin = JudgeCalls("coin", *(rng.choice(np.array([-1, 1], np.int8), 1_000) for _ in "AB"))
    assert not is_usable(level, coin).is_usable


def test_identical_answers_lend_a_judge_no_consistency() -> None:
    rng = np.random.default_rng(6)
    items, _ = made_items(rng, 1_000)
    alike = Items(items.longer_N, np.arange(1_000) >= 20, items.gold_N)
    calls = np.full(1_000, int(Call.STUDENT), np.int8)
    assert "named a model on 20 of 1000" in is_usable(alike, JudgeCalls("any", calls, calls)).reasons[0]


@pytest.mark.parametrize(("consistent", "passes"), [(5_900, False), (6_150, False), (6_250, True)])
def test_consistency_must_be_above_three_fifths_for_certain(consistent: int, passes: bool) -> None:
    """Ten thousand items, half of the consistent ones for either model and either length: nothing else holds it back."""
    settled = np.where(np.arange(10_000) % 2, 1, -1).astype(np.int8)
    again = np.where(np.arange(10_000) < consistent, settled, np.where(np.arange(10_000) % 4 < 2, -settled, 0))
    items = Items(np.where(np.arange(10_000) % 4 < 2, 1, -1).astype(np.int8), np.zeros(10_000, bool), _no_gold(10_000))
    found = is_usable(items, JudgeCalls("wavering", settled, again.astype(np.int8)))
    assert found.is_usable is passes
    assert passes or found.reasons[0].startswith(f"it keeps its word on {consistent / 10_000:.1%} of 10000 items")


def test_agreement_with_gold_that_chance_gives_once_in_a_thousand_is_not_enough() -> None:
    """24 of 30 gold items right: kappa 0.6, its lower limit above 0.2, and p 0.001 against 1/20,000."""
    settled = np.where(np.arange(200) % 2, 1, -1).astype(np.int8)
    gold = np.where(np.arange(200) < 6, -settled, settled).astype(np.int8)
    gold[30:] = NO_GOLD
    items = Items(np.where(np.arange(200) % 4 < 2, 1, -1).astype(np.int8), np.zeros(200, bool), gold)
    found = is_usable(items, JudgeCalls("lucky", settled, settled))
    assert (found.is_usable, len(found.reasons)) == (False, 1)
    assert "kappa 0.60" in found.reasons[0]


def test_one_word_throughout_against_gold_has_no_limits_and_the_reason_says_so() -> None:
    gold = np.where(np.arange(200) % 2, 1, -1).astype(np.int8)
    ones = np.ones(200, dtype=np.int8)
    found = is_usable(Items(-gold, np.zeros(200, bool), gold), JudgeCalls("always student", ones, ones))
    assert any("kappa with gold is 0.00" in reason and "variance is nought" in reason for reason in found.reasons)


def _no_gold(n: int) -> np.ndarray:
    return np.full(n, NO_GOLD, dtype=np.int8)
