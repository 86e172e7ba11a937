import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import inference_naive as naive
from tutelage.errors import ConfigError, DataError
from tutelage.stats.paired import PairedTable, mcnemar_exact
from tutelage.stats.permutation import MOST_OUTCOMES, paired_permutation

DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_fisher_on_darwins_maize():
    """Fisher (1935), section 21: 1,726 of 32,768 sign patterns are at least as far from 0, in eighths of an inch."""
    got = paired_permutation(DARWIN, rng())
    assert got.p == pytest.approx(1726 / 32768, abs=1e-12)
    assert (got.mean, got.n, got.method) == (pytest.approx(314 / 15), 15, "sign flips, exact")


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_exact_agrees_with_all_patterns(differences):
    got = paired_permutation(np.array(differences) / 10, rng())  # tenths: sums in another order round differently
    assert got.p == pytest.approx(naive.sign_flip_p(differences), abs=1e-12)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 50))
def test_right_and_wrong_are_mcnemars(only_first, only_second, same):
    differences = [1] * only_first + [-1] * only_second + [0] * (same + 1)
    got = paired_permutation(differences, rng())
    table = PairedTable(same + 1, only_first, only_second, 0)
    assert got.p == pytest.approx(mcnemar_exact(table), rel=1e-9)
    assert "exact" in got.method


def test_random_patterns_come_near_the_exact_share_and_depend_on_the_generator_only():
    values = rng(3).normal(0.4, 1.0, size=16)
    exact = paired_permutation(values, rng())
    assert "exact" in exact.method
    assert 2 ** len(values) == MOST_OUTCOMES
    more = np.append(values, [1e-9])  # one more outcome doubling: too many to enumerate, the same test otherwise
    drawn = paired_permutation(more, rng(5), 9_999)
    assert drawn.method == "sign flips, 9999 at random"
    assert drawn.p == pytest.approx(exact.p, abs=4 * (exact.p / 9_999) ** 0.5)
    assert paired_permutation(more, rng(5), 9_999) == drawn
    assert paired_permutation(more, rng(6), 9_999) != drawn


def test_random_patterns_never_say_impossible():
    """Phipson & Smyth (2010): 0 of m at least as large is (0 + 1)/(m + 1)."""
    assert paired_permutation(np.linspace(1, 2, 60), rng(), 999).p == 1 / 1000


def test_memory_does_not_change_the_draw_count(monkeypatch):
    monkeypatch.setattr("tutelage.stats.permutation._CELLS_AT_ONCE", 40 * 7)
    drawn = paired_permutation(rng(1).normal(0.1, 1.0, size=40), rng(2), 999)
    assert drawn.p * 1000 == pytest.approx(round(drawn.p * 1000))
    monkeypatch.undo()
    whole = paired_permutation(rng(1).normal(0.1, 1.0, size=40), rng(2), 999)
    assert drawn == whole


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.floats(0.1, 10))
def test_sides_and_units_do_not_matter(values, unit):
    p = paired_permutation(values, rng()).p
    assert paired_permutation(np.negative(values), rng()).p == p
    assert 0.0 < p <= 1.0
    doubled = paired_permutation(np.multiply(values, 4.0), rng()).p
    assert doubled == p


def test_nothing_differs():
    assert paired_permutation([0.0, 0.0], rng()).p == 1.0


@pytest.mark.parametrize(
    ("values", "words"), [([], "shape"), ([[1.0]], "shape"), ([1.0, float("nan")], "item 1 is nan"), ([np.inf], "inf")]
)
def test_bad_input_is_named(values, words):
    with pytest.raises(DataError, match=words):
        paired_permutation(values, rng())


def test_too_few_resamples():
    with pytest.raises(ConfigError, match="99 resamples"):
        paired_permutation([1.0], rng(), 99)
