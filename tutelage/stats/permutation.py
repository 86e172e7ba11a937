"""Is a mean paired difference more than chance? By flipping signs, with nothing assumed about the distribution."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError
from tutelage.stats.columns import Floats, finite_column

MOST_OUTCOMES = 65_536  # sums enumerated exactly: all of 16 items that differ by different amounts
MIN_RESAMPLES = 999
_CELLS_AT_ONCE = 2_000_000
_ROUNDING = 1e-12  # sums of the same numbers in another order differ by less, relative to the sum of their sizes


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """Two-sided `p` of no difference; `mean` is the mean difference of `n` items; `method` says how it was counted."""

    p: float
    mean: float
    n: int
    method: str


def paired_permutation(difference_N: ArrayLike, rng: np.random.Generator, resamples: int = 9_999) -> PermutationTest:
    """Sign-flip test that paired differences are symmetric about 0: Fisher (1935), The Design of Experiments, section 21.

    p is the share of the 2^N sign patterns whose |sum| is at least the one seen. It is counted exactly where the
    patterns have at most 65,536 different outcomes: differences of one size are counted together, by binomial
    coefficients, so 0/1 answers are exact at every N (and give McNemar's exact p), and any numbers up to 16 items.
    Beyond that `resamples` random patterns are drawn and p = (1 + those at least as large) / (1 + resamples), which is
    never 0 and keeps its level: Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9:39.

    `difference_N`: first − second, an item each; several items of one session are not exchangeable: give their sum.
    Where no item differs nothing speaks against equality: 1. Raises `DataError` when there is no item or one is not
    finite, `ConfigError` when resamples < 999.
    """
    difference = finite_column(difference_N, "differences")
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"{resamples!r} resamples", fix=f"use at least {MIN_RESAMPLES}; 9999 is usual")
    mean = float(difference.mean())
    size_M, count_M = np.unique(np.abs(difference[difference != 0.0]), return_counts=True)
    reached = abs(float(difference.sum())) - _ROUNDING * float(np.abs(difference).sum())
    if math.prod(count + 1 for count in count_M.tolist()) <= MOST_OUTCOMES:
        return PermutationTest(_exact(size_M, count_M, reached), mean, difference.size, "sign flips, exact")
    step, larger = max(1, _CELLS_AT_ONCE // size_M.size), 0
    for start in range(0, resamples, step):
        positive_RM = rng.binomial(count_M, 0.5, size=(min(step, resamples - start), size_M.size))
        larger += int(np.count_nonzero(np.abs((2 * positive_RM - count_M) @ size_M) >= reached))
    p = (1 + larger) / (1 + resamples)
    return PermutationTest(p, mean, difference.size, f"sign flips, {resamples} at random")


def _exact(size_M: Floats, count_M: np.ndarray, reached: float) -> float:
    """P(|sum| >= reached): every number of positive signs among equal sizes, weighted by its binomial probability."""
    sums, weights = np.zeros(1), np.ones(1)
    for size, count in zip(size_M.tolist(), count_M.tolist(), strict=True):
        positive = np.arange(count + 1)
        chance = np.exp(_log_choose(count, positive) - count * math.log(2.0))
        sums = (sums[:, None] + size * (2 * positive - count)).ravel()
        weights = (weights[:, None] * chance).ravel()
    return min(1.0, float(weights[np.abs(sums) >= reached].sum()))


def _log_choose(count: int, chosen: np.ndarray) -> Floats:
    from scipy.special import gammaln

    return np.asarray(gammaln(count + 1) - gammaln(chosen + 1) - gammaln(count - chosen + 1))
