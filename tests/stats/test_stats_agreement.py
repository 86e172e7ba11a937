"""Cohen's kappa on any number of categories, against statsmodels, a worked example, and its own laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from tutelage.errors import ConfigError, DataError
from tutelage.stats.agreement import cohen_kappa

WORDS = ("a", "b", "c", "d")


def said(counts):
    """Two columns of words that cross as `counts` do."""
    one = [
        WORDS[row] for row in range(len(counts)) for column in range(len(counts)) for _ in range(counts[row][column])
    ]
    two = [
        WORDS[column] for row in range(len(counts)) for column in range(len(counts)) for _ in range(counts[row][column])
    ]
    return one, two


def crossed(size):
    return st.lists(st.lists(st.integers(0, 12), min_size=size, max_size=size), min_size=size, max_size=size)


@given(st.integers(2, 4).flatmap(crossed), st.booleans())
def test_it_is_what_statsmodels_says(counts, ordered):
    table = np.array(counts)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    size = len(counts)
    if (
        table.sum() == 0
        or np.trace(table) == table.sum()
        or (np.count_nonzero(rows) == 1 and np.count_nonzero(columns) == 1)
    ):
        return
    found = cohen_kappa(*said(counts), WORDS[:size], ordered=ordered)
    # `std_kappa` is the error by Fleiss, Cohen & Everitt
    told = cohens_kappa(table, wt="quadratic" if ordered else None)
    assert found.kappa == pytest.approx(told.kappa, abs=1e-9)
    assert found.share == pytest.approx(np.trace(table) / table.sum())
    if found.low is None:
        assert not told.std_kappa > 1e-4
        return
    half = 1.959963984540054 * told.std_kappa
    assert found.low == pytest.approx(max(-1.0, told.kappa - half), abs=1e-7)
    assert found.high == pytest.approx(min(1.0, told.kappa + half), abs=1e-7)


def test_worked_by_hand():
    found = cohen_kappa(*said([[20, 5], [10, 15]]), ("a", "b"))  # chance: 0.5 · 0.6 + 0.5 · 0.4
    assert found.n == 50 and found.share == pytest.approx(0.7) and found.kappa == pytest.approx(0.4)


def test_raters_that_never_differ_are_not_certain():
    few, many = (cohen_kappa(*said([[n, 0], [0, n]]), ("a", "b")) for n in (5, 500))
    assert few.kappa == many.kappa == 1.0 and few.high == 1.0
    assert few.low == pytest.approx((0.025 ** (1 / 10) - 0.5) / 0.5)
    assert few.low < many.low < 1.0


def test_perfect_agreement_is_counted_and_not_summed():
    found = cohen_kappa(*said([[3, 0, 0], [0, 22, 0], [0, 0, 5]]), WORDS[:3])  # 3/30 + 22/30 + 5/30 is not 1 in floats
    assert found.share == 1.0 and found.low is not None and "Clopper" in found.method


def test_one_word_throughout_has_no_kappa():
    found = cohen_kappa(["a"] * 9, ["a"] * 9, WORDS)
    assert found.share == 1.0 and found.kappa is None and found.low is None and "undefined" in found.method
    none = cohen_kappa(["a"] * 9, ["b"] * 9, WORDS)
    assert none.kappa == 0.0 and none.low is None, "no agreement, by chance none either, and no certainty of that"
    never = cohen_kappa(["a", "b"] * 3, ["b", "a"] * 3, ("a", "b"))
    assert never.kappa == -1.0 and never.low is None and "variance is nought" in never.method


def test_near_scores_weigh_less_than_far_ones():
    near, far = said([[5, 3, 0], [0, 5, 0], [0, 0, 5]]), said([[5, 0, 3], [0, 5, 0], [0, 0, 5]])
    words = WORDS[:3]
    assert cohen_kappa(*near, words, ordered=True).kappa > cohen_kappa(*far, words, ordered=True).kappa
    assert cohen_kappa(*near, words).share == cohen_kappa(*far, words).share


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), min_size=1, max_size=60), st.booleans())
def test_both_are_treated_alike_and_limits_hold_the_estimate(pairs, ordered):
    one, two = [first for first, _ in pairs], [second for _, second in pairs]
    here, there = cohen_kappa(one, two, WORDS, ordered=ordered), cohen_kappa(two, one, WORDS, ordered=ordered)
    if here.kappa is None:
        assert there.kappa is None
        return
    assert here.kappa == pytest.approx(there.kappa, abs=1e-12)
    if here.low is None:
        assert there.low is None and here.high is None
        return
    assert here.low == pytest.approx(there.low, abs=1e-6)
    assert -1.0 <= here.low <= here.kappa + 1e-12 and here.kappa <= here.high + 1e-12 and here.high <= 1.0
    assert all(map(math.isfinite, (here.kappa, here.low, here.high)))


def test_bad_input_is_named():
    with pytest.raises(DataError, match="2 items against 1"):
        cohen_kappa(["a", "b"], ["a"], WORDS)
    with pytest.raises(DataError, match="0 items"):
        cohen_kappa([], [], WORDS)
    with pytest.raises(DataError, match="'z' is none of"):
        cohen_kappa(["a"], ["z"], WORDS)
    with pytest.raises(ConfigError):
        cohen_kappa(["a"], ["a"], ["a"])
    with pytest.raises(ConfigError):
        cohen_kappa(["a"], ["a"], ["a", "a", "b"])
    with pytest.raises(ConfigError):
        cohen_kappa(["a"], ["a"], WORDS, level=95)
