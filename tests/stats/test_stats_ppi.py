import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from tutelage.errors import ConfigError, DataError
from tutelage.stats.ppi import FEWEST_GOLD, ppi_mean


def labels(seed, gold, cheap, correlation):
    rng = np.random.default_rng(seed)
    judged = rng.normal(0.5, 1.5, gold + cheap)
    truth = correlation * (judged[:gold] - 0.5) / 1.5 + math.sqrt(1 - correlation**2) * rng.normal(size=gold)
    return truth, judged[:gold], judged[gold:]


def waves(gold, cheap, mix):
    """Labels without a generator, the same for ever."""
    judged = [math.sin(7.0 * at * at) + 0.3 * math.cos(3.0 * at) for at in range(gold + cheap)]
    truth = [mix * judged[at] + math.sin(11.0 * at * at + 1.0) + 0.25 for at in range(gold)]
    return truth, judged[:gold], judged[gold:]


# ppi-python 0.2.3 on `waves`: ppi_mean_pointestimate, and ppi_mean_ci at alpha 0.05. Its wheel holds a top-level package
# `tests`, which hides ours, so that it cannot be installed beside it: what it said stands here.
PPI_PYTHON = {
    (30, 2, 1.0): (0.7639662444840974, 0.36303104843361733, 1.1649014405345777),
    (40, 400, 0.5): (0.37938940429555823, 0.1748538191475171, 0.5839249894435994),
    (120, 1200, 1.5): (0.2807183337584144, 0.12409971538438228, 0.4373369521324465),
    (250, 300, 4.0): (0.25478518771758946, -0.0567756850907814, 0.5663460605259603),
    (60, 900, 0.0): (0.41939658478905656, 0.2507853802907035, 0.5880077892874096),
    (80, 500, -1.0): (0.3849195570799233, 0.1895898504326913, 0.5802492637271554),
    (1000, 20000, 0.8): (0.254253945914293, 0.21013752238557049, 0.29837036944301554),
}


@pytest.mark.parametrize("case", PPI_PYTHON, ids=str)
def test_agrees_with_ppi_python(case):
    """Its limits are normal ones and divide by N; ours are t with N − 2: taken apart and compared."""
    data, (mean, low, high), gold = waves(*case), PPI_PYTHON[case], case[0]
    got = ppi_mean(*data)
    assert got.mean == pytest.approx(mean, abs=1e-6)
    far = got.weight**2 * np.var(data[2]) / case[1]
    half = NormalDist().inv_cdf(0.975) * math.sqrt((got.standard_error**2 - far) * (gold - 2) / gold + far)
    assert (got.mean - half, got.mean + half) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(0, 10_000), st.integers(FEWEST_GOLD, 300), st.integers(2, 2_000), st.floats(-0.9, 0.99))
def test_is_the_weighted_mean_with_the_variance_of_its_two_parts(seed, gold, cheap, correlation):
    truth, near, far = labels(seed, gold, cheap, correlation)
    got = ppi_mean(truth, near, far)
    assert 0.0 <= got.weight <= 1.0
    assert got.mean == pytest.approx(truth.mean() + got.weight * (far.mean() - near.mean()), abs=1e-9)
    rest = (truth - got.weight * near).var() * gold / (gold - 2)
    assert got.standard_error**2 == pytest.approx(rest / gold + got.weight**2 * far.var() / cheap)
    half = student.ppf(0.975, gold - 2) * got.standard_error
    assert (got.interval.low, got.interval.high) == pytest.approx((got.mean - half, got.mean + half), abs=1e-9)
    assert got.gold_equivalent == pytest.approx(truth.var(ddof=1) / got.standard_error**2)


def test_a_judge_that_says_nothing_is_not_heard():
    truth, _, _ = labels(0, 60, 10, 0.0)
    got = ppi_mean(truth, np.ones(60), np.ones(500))
    assert (got.weight, got.correlation) == (0.0, 0.0)
    assert got.mean == pytest.approx(truth.mean())
    assert got.saved == pytest.approx(60 * 58 / 59 - 60)


def test_a_judge_against_the_truth_is_not_heard():
    got = ppi_mean(*labels(1, 200, 2_000, -0.8))
    assert got.weight == 0.0
    assert got.correlation == pytest.approx(-0.8, abs=0.07)


def test_half_the_gold_labels_at_correlation_three_quarters():
    """Variance ratio 1 − ρ² M/(N + M): Angelopoulos, Duchi & Zrnic (2023), example 6.1."""
    worth = [ppi_mean(*labels(seed, 400, 4_000, 0.75)).gold_equivalent / 400 for seed in range(60)]
    assert np.mean(worth) == pytest.approx(1 / (1 - 0.75**2 * 10 / 11), rel=0.03)
    assert np.mean(worth) > 2.0


def test_a_biased_judge_costs_nothing():
    truth, near, far = labels(2, 100, 3_000, 0.9)
    plain, shifted = ppi_mean(truth, near, far), ppi_mean(truth, near + 7.0, far + 7.0)
    assert (plain.interval.low, plain.interval.high) == pytest.approx((shifted.interval.low, shifted.interval.high))


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_covers_with_few_gold_labels(correlation):
    missed = 0
    for seed in range(1_000):
        got = ppi_mean(*labels(seed, FEWEST_GOLD, 300, correlation))
        missed += not got.interval.low <= 0.0 <= got.interval.high
    assert missed / 1_000 < 0.07  # normal limits miss 8 %


def test_bad_input_is_named():
    truth, near, far = labels(4, 40, 50, 0.5)
    with pytest.raises(DataError, match="29 gold labels are too few"):
        ppi_mean(truth[:29], near[:29], far)
    with pytest.raises(DataError, match="40 items against 39"):
        ppi_mean(truth, near[1:], far)
    with pytest.raises(DataError, match="item 3 is nan"):
        ppi_mean(truth, np.where(np.arange(40) == 3, np.nan, near), far)
    with pytest.raises(DataError, match="other items of shape"):
        ppi_mean(truth, near, far[:1])
    with pytest.raises(DataError, match=r"less 0 times the cheap ones are the same on all 40 items"):
        ppi_mean(np.ones(40), near, far)
    with pytest.raises(ConfigError, match="level 95"):
        ppi_mean(truth, near, far, 95)
