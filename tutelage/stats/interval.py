"""Confidence intervals for one proportion and for functions of means."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tutelage.errors import ConfigError, DataError

MAX_NON_FINITE_SHARE = 0.01
MIN_RESAMPLES = 1_000
_CELLS_AT_ONCE = 2_000_000  # counts held in memory at once: 16 MB of int64, and as much of float64
_ROUNDING = 1e-12  # sums of the same numbers in another order differ by less, relatively
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: `low` to `high` at two-sided `level` (0.95 for 95 %), from `n` items by `method`.

    Raises `DataError` when a limit is not finite, `low` exceeds `high` or `n` is below 1.
    """

    low: float
    high: float
    level: float
    method: str
    n: int

    def __post_init__(self) -> None:
        check_level(self.level)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high) or self.n < 1:
            raise DataError(
                f"no interval: low={self.low!r}, high={self.high!r}, n={self.n!r}",
                fix="give finite limits with low <= high, from at least one item",
            )


def check_level(level: float) -> None:
    """Raises `ConfigError` unless `level` is a two-sided confidence level strictly between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise ConfigError(f"confidence level {level!r} is not between 0 and 1", fix="give a share such as 0.95, not 95")


def two_sided_z(level: float) -> float:
    """Standard normal quantile at (1 + level) / 2: 1.959964 for 0.95. Raises `ConfigError` as `check_level`."""
    check_level(level)
    return _NORMAL.inv_cdf((1.0 + level) / 2.0)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Score interval for one proportion: Wilson (1927); method 3 of Newcombe (1998), Stat. Med. 17:857.

    The two roots p of (successes/n − p)² = z² p (1 − p) / n. Raises `DataError` when `n` is below 1 or `successes` is
    outside 0..n, `ConfigError` for a wrong level.
    """
    z = two_sided_z(level)
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes!r} successes of {n!r} items", fix="count successes among at least one item")
    low, high = wilson_limits(successes / n, n, z)
    return Interval(low, high, level, "Wilson score", n)


def wilson_limits(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's limits for `share` in [0, 1] of `n` > 0 items, whole or not (an effective number), at the quantile `z`."""
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The extreme limits are exactly 0 and 1; rounding must not say otherwise.
    return 0.0 if share == 0.0 else (centre - half) / scale, 1.0 if share == 1.0 else (centre + half) / scale


def bootstrap_of_means(
    columns_NK: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """BCa bootstrap interval for a function of the means of K paired columns.

    Efron (1987), JASA 82:171; limits by eq. 2.3 of DiCiccio & Efron (1996), Stat. Sci. 11:189, with the jackknife
    acceleration of their section 6; resamples equal to the estimate count half in the bias correction. Items (rows) are
    resampled together, so the pairing is kept. Equal rows are drawn together, as a multinomial over the distinct ones.

    `columns_NK`: N >= 2 items, K measurements each (for example 0/1 for right and wrong).
    `statistic`: called as `statistic(mean_1, ..., mean_K)` with K float64 arrays of one shape (R,); returns (R,).
    For the share of the gap recovered: `lambda student, before, teacher: (student - before) / (teacher - before)`.

    Resamples where the statistic is not finite are dropped, and `method` says how many. Raises `DataError` when they
    are more than 1 %, when the estimate or a leave-one-out estimate is not finite, when there are fewer than two items
    or a value that is not finite, or when there is no spread to resample; `ConfigError` for a wrong level or too few
    resamples.
    """
    z = two_sided_z(level)
    if resamples < MIN_RESAMPLES:
        raise ConfigError(f"{resamples!r} resamples", fix=f"use at least {MIN_RESAMPLES}; 10000 is usual")
    columns = np.asarray(columns_NK, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] < 2 or columns.shape[1] < 1 or not np.isfinite(columns).all():
        raise DataError(
            f"columns of shape {columns.shape} (finite: {bool(np.isfinite(columns).all())})",
            fix="give finite numbers of shape (items, columns), at least two items",
        )
    rows_MK, counts_M = np.unique(columns, axis=0, return_counts=True)
    items = int(counts_M.sum())
    estimate = float(_apply(statistic, (counts_M @ rows_MK)[None, :] / items)[0])
    if not math.isfinite(estimate):
        raise DataError(
            f"the statistic of the data is {estimate!r} at column means {(counts_M @ rows_MK) / items}",
            fix="the statistic needs a non-zero denominator: is the teacher better than the student before training?",
        )
    values = _resample(rows_MK, counts_M, statistic, rng, resamples)
    kept = values[np.isfinite(values)]
    dropped = resamples - kept.size
    if dropped > MAX_NON_FINITE_SHARE * resamples:
        raise DataError(
            f"{dropped} of {resamples} resamples have no finite statistic",
            fix="the denominator is too near zero for these items: use more items, or report the difference instead",
        )
    spread = float(np.ptp(kept))
    if spread <= _ROUNDING * float(np.abs(kept).max()):
        raise DataError(
            f"all {resamples} resamples give the same statistic {float(kept[0])!r}: no spread to resample",
            fix="use an interval made for this case: wilson for one proportion, tango for two paired ones",
        )
    acceleration = _acceleration(rows_MK, counts_M, statistic)
    equal = np.abs(kept - estimate) <= _ROUNDING * spread
    below = (np.count_nonzero((kept < estimate) & ~equal) + 0.5 * np.count_nonzero(equal)) / kept.size
    if not 0.0 < below < 1.0:
        raise DataError(
            f"a share {below} of the resamples lies below the estimate {estimate!r}: the bias correction is infinite",
            fix="the statistic jumps at the data: use more items or a smoother statistic",
        )
    low, high = np.quantile(kept, [_bca_share(below, acceleration, -z), _bca_share(below, acceleration, z)])
    method = f"BCa bootstrap, {resamples} resamples" + (f", {dropped} non-finite dropped" if dropped else "")
    return Interval(float(low), float(high), level, method, items)


def _apply(statistic: Callable[..., NDArray[np.float64]], means_RK: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = np.asarray(statistic(*means_RK.T), dtype=np.float64)
    if values.shape != (means_RK.shape[0],):
        raise DataError(
            f"the statistic returned shape {values.shape} for {means_RK.shape[0]} sets of means",
            fix="write it element-wise on arrays: one value for each set of means",
        )
    return values


def _resample(
    rows_MK: NDArray[np.float64],
    counts_M: NDArray[np.int64],
    statistic: Callable[..., NDArray[np.float64]],
    rng: np.random.Generator,
    resamples: int,
) -> NDArray[np.float64]:
    items = int(counts_M.sum())
    step = max(1, _CELLS_AT_ONCE // len(counts_M))
    parts = []
    for start in range(0, resamples, step):
        drawn_RM = rng.multinomial(items, counts_M / items, size=min(step, resamples - start))
        parts.append(_apply(statistic, drawn_RM @ rows_MK / items))
    return np.concatenate(parts)


def _acceleration(
    rows_MK: NDArray[np.float64], counts_M: NDArray[np.int64], statistic: Callable[..., NDArray[np.float64]]
) -> float:
    """A sixth of the jackknife values' skewness; equal rows have equal values, so one of each is computed."""
    items = int(counts_M.sum())
    left_out_M = _apply(statistic, ((counts_M @ rows_MK) - rows_MK) / (items - 1))
    if not np.isfinite(left_out_M).all():
        raise DataError(
            "leaving one item out makes the statistic infinite",
            fix="the denominator rests on a single item: use more items, or report the difference instead",
        )
    spread_M = counts_M @ left_out_M / items - left_out_M
    squares = float(counts_M @ spread_M**2)
    if squares == 0.0:
        raise DataError("leaving any one item out changes nothing", fix="the statistic ignores the data: check it")
    return float(counts_M @ spread_M**3) / (6.0 * squares**1.5)


def _bca_share(below: float, acceleration: float, z: float) -> float:
    """Which share of the resamples lies below the corrected limit: DiCiccio & Efron (1996) eq. 2.3."""
    bias = _NORMAL.inv_cdf(below)
    scale = 1.0 - acceleration * (bias + z)
    if scale <= 0.0:
        raise DataError(
            f"BCa breaks down: acceleration {acceleration:.3g}, bias {bias:.3g}, z {z:.3g}",
            fix="the statistic is too skewed for so few items: use more items or a lower level",
        )
    return _NORMAL.cdf(bias + (bias + z) / scale)
