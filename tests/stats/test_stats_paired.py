import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from tests.reference import stats_naive as naive
from tutelage.errors import DataError
from tutelage.stats.interval import two_sided_z
from tutelage.stats.paired import PairedTable, mcnemar_exact, tango

Z = two_sided_z(0.95)
counts = st.integers(0, 60)
tables = st.builds(lambda *four: four, counts, counts, counts, counts).filter(any).map(lambda four: PairedTable(*four))


@pytest.mark.parametrize(
    ("table", "level", "low", "high"),
    [
        # Fagerland, Lydersen & Laake (2014), Stat. Med. 33:2850: airway hyper-responsiveness, Bentur et al. (2009)
        (PairedTable(1, 1, 7, 12), 0.95, -0.5172, -0.0260),
        # Fagerland, Lydersen & Laake (2017), chapter 8: complete response, Cavo et al. (2012)
        (PairedTable(59, 6, 16, 80), 0.95, -0.1240, -0.0054),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90), for (28 − 25) / 618
        (PairedTable(300, 28, 25, 265), 0.90, -0.0148, 0.0247),
    ],
)
def test_tango_gives_published_limits(table, level, low, high):
    got = tango(table, level)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)
    assert (got.n, got.level, got.method) == (table.n, level, "Tango score")


@pytest.mark.parametrize("n", [1, 2, 3, 10, 4500])
def test_tango_closed_forms(n):
    """From T(Δ): no discordant pair gives ±z²/(n + z²); all in one cell gives (n − z²)/(n + z²) and 1."""
    no_discord = tango(PairedTable(n, 0, 0, 0))
    assert (no_discord.low, no_discord.high) == pytest.approx((-(Z**2) / (n + Z**2), Z**2 / (n + Z**2)), abs=1e-12)
    all_first = tango(PairedTable(0, n, 0, 0))
    assert all_first.low == pytest.approx((n - Z**2) / (n + Z**2), abs=1e-12)
    assert all_first.high == 1.0
    assert tango(PairedTable(0, 0, n, 0)).low == -1.0


@given(tables)
def test_tango_limits_are_where_the_naive_score_reaches_z(table):
    got = tango(table)
    assert -1.0 <= got.low <= table.difference <= got.high <= 1.0
    b, c, n = table.only_first, table.only_second, table.n
    if b < n:
        assert naive.tango_score(b, c, n, got.high) == pytest.approx(-Z, abs=1e-5)
    if c < n:
        assert naive.tango_score(b, c, n, got.low) == pytest.approx(Z, abs=1e-5)


@given(tables)
def test_tango_mirrors_and_sees_only_discordance(table):
    got = tango(table)
    swapped = tango(PairedTable(table.neither, table.only_second, table.only_first, table.both))
    assert (swapped.low, swapped.high) == (-got.high, -got.low)


@given(tables, st.floats(0.5, 0.99))
def test_tango_is_wider_at_a_higher_level(table, level):
    narrow, wide = tango(table, level), tango(table, (1 + level) / 2)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low


def test_tango_covers():
    rng = np.random.default_rng(11)
    shares = [0.75, 0.05, 0.10, 0.10]  # difference −0.05
    covered = []
    for draw in rng.multinomial(200, shares, size=2000).tolist():
        got = tango(PairedTable(*draw))
        covered.append(got.low <= -0.05 <= got.high)
    assert 0.935 < np.mean(covered) < 0.965


def test_mcnemar_gives_a_published_p():
    """Fagerland, Lydersen & Laake (2017), chapter 8: Cavo et al. (2012), exact conditional test."""
    assert mcnemar_exact(PairedTable(59, 6, 16, 80)) == pytest.approx(0.052479, abs=5e-7)


def test_approval_of_a_prime_minister():
    """Agresti (2013), Categorical Data Analysis, section 11.1: 1,600 people asked twice; difference 0.04, limits 0.021 and
    0.059, z² = 17.36. The exact p is what R's exact2x2::mcnemar.exact gives."""
    table = PairedTable(794, 150, 86, 570)
    got = tango(table)
    assert table.difference == pytest.approx(0.04)
    assert (round(got.low, 3), round(got.high, 3)) == (0.021, 0.059)
    assert mcnemar_exact(table) == pytest.approx(3.716e-05, abs=5e-9)
    # The level at which the score interval just reaches 0 is that of z² = 17.36.
    assert tango(table, math.erf(math.sqrt(17.3559 / 2))).low == pytest.approx(0.0, abs=1e-6)


@given(tables)
def test_mcnemar_agrees_with_statsmodels_and_whole_fractions(table):
    p = mcnemar_exact(table)
    assert p == pytest.approx(naive.mcnemar_p(table.only_first, table.only_second), rel=1e-10)
    assume(table.only_first + table.only_second)
    square = [[table.both, table.only_first], [table.only_second, table.neither]]
    assert p == pytest.approx(mcnemar(square, exact=True).pvalue, rel=1e-10)


def test_mcnemar_extremes():
    assert mcnemar_exact(PairedTable(5, 0, 0, 5)) == 1.0
    assert mcnemar_exact(PairedTable(0, 3, 3, 0)) == 1.0
    assert mcnemar_exact(PairedTable(0, 0, 10, 0)) == pytest.approx(2 * 0.5**10, rel=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_from_correct_counts(pairs):
    first, second = zip(*pairs, strict=True)
    table = PairedTable.from_correct(np.array(first), np.array(second, dtype=np.int64))
    assert table == PairedTable(
        *(pairs.count(pair) for pair in [(True, True), (True, False), (False, True), (False, False)])
    )
    assert table.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert table.discordance == pytest.approx(np.mean(np.array(first) != np.array(second)))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [], "at least one"),
        ([1, 0], [1], r"\(2,\) and \(1,\)"),
        ([[1]], [[1]], "same items"),
        ([1, 2], [1, 0], "value 2"),
        ([1, 0], [1, float("nan")], "value nan"),
        ([None, 1], [1, 0], "value None"),
        (["right", "wrong"], ["right", "right"], "value 'right'"),
        ([0.5, 1], [1, 0], "value 0.5"),
    ],
)
def test_from_correct_refuses(first, second, words):
    with pytest.raises(DataError, match=words):
        PairedTable.from_correct(first, second)


@pytest.mark.parametrize("four", [(0, 0, 0, 0), (1, -1, 0, 0), (1.5, 0, 0, 0), (True, 0, 0, 0)])
def test_a_table_counts_items(four):
    with pytest.raises(DataError, match="paired counts"):
        PairedTable(*four)
