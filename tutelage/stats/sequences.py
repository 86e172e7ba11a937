"""Intervals that stay valid however often one looks, and whenever one stops because of what was seen."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError
from tutelage.stats.columns import Floats, finite_column, paired_columns
from tutelage.stats.interval import Interval, check_level

MOST_BET = 0.5  # c of Waudby-Smith & Ramdas: a bet of 1 could lose everything on one item


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """Limits after each of T items: with probability at least `level` the mean lies within all of them at once.

    Both columns are (T,), `low_T` rising and `high_T` falling (what was once ruled out stays so).
    """

    low_T: Floats
    high_T: Floats
    level: float

    def after(self, items: int) -> Interval:
        """The interval after the first `items`. Raises `DataError` when there are not so many, or the limits crossed."""
        if not 1 <= items <= self.low_T.size:
            raise DataError(f"{items!r} of {self.low_T.size} items", fix="look after one of the items that there are")
        low, high = float(self.low_T[items - 1]), float(self.high_T[items - 1])
        if low > high:
            raise DataError(
                f"after {items} items no mean is left: above {low!r} and below {high!r}",
                fix="the mean drifted: put the items in random order before looking",
            )
        return Interval(low, high, self.level, "empirical Bernstein sequence", items)


def confidence_sequence(
    values_T: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> ConfidenceSequence:
    """Anytime-valid limits for the mean of bounded items in the order in which they came.

    Predictable plug-in empirical Bernstein: Waudby-Smith & Ramdas (2024), J. R. Stat. Soc. B 86:1, theorem 2, with their
    eq. 15. On values brought to [0, 1]: Σλ_i x_i / Σλ_i ± (ln(2/(1 − level)) + Σ v_i ψ(λ_i)) / Σλ_i, where
    v_i = 4 (x_i − m_{i−1})², ψ(λ) = (−ln(1 − λ) − λ)/4, λ_t = min(1/2, √(2 ln(2/(1 − level)) / (s_{t−1} t ln(1 + t)))),
    and m, s the running mean and variance with one item of 1/2 and 1/4 put before. The running intersection is taken.

    The items must have one mean, whatever came before: shuffle the items before asking. Never use it on items sorted by
    outcome. `values_T`: T numbers within `bounds`. Raises `DataError` when there is none, one is not finite or outside,
    `ConfigError` for a wrong level or bounds.
    """
    check_level(level)
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"bounds {bounds!r}", fix="give the least and the greatest value possible, such as (0, 1)")
    values = finite_column(values_T, "values")
    if (wrong := values[(values < low) | (values > high)]).size:
        raise DataError(
            f"value {float(wrong[0])!r} is outside the bounds {bounds!r}", fix="mend the bounds or the value"
        )
    x_T = (values - low) / (high - low)
    item_T = np.arange(1, x_T.size + 1)
    mean_T = (0.5 + np.cumsum(x_T)) / (item_T + 1)
    variance_T = (0.25 + np.cumsum((x_T - mean_T) ** 2)) / (item_T + 1)
    before_T, spread_T = np.append(0.5, mean_T[:-1]), np.append(0.25, variance_T[:-1])
    cost = math.log(2.0 / (1.0 - level))
    bet_T = np.minimum(MOST_BET, np.sqrt(2.0 * cost / (spread_T * item_T * np.log1p(item_T))))
    paid_T = np.cumsum((x_T - before_T) ** 2 * (-np.log1p(-bet_T) - bet_T))
    staked_T = np.cumsum(bet_T)
    centre_T, half_T = np.cumsum(bet_T * x_T) / staked_T, (cost + paid_T) / staked_T
    low_T = np.maximum.accumulate(np.maximum(centre_T - half_T, 0.0))
    high_T = np.minimum.accumulate(np.minimum(centre_T + half_T, 1.0))
    return ConfidenceSequence(low + (high - low) * low_T, low + (high - low) * high_T, level)


def difference_sequence(
    first_T: ArrayLike, second_T: ArrayLike, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> ConfidenceSequence:
    """Anytime-valid limits for the mean of first − second on the same items: `confidence_sequence` of the differences.

    `bounds` are those of the two columns; the differences lie in ±(high − low). Raises as `confidence_sequence`, and
    `DataError` when the columns have not the same items.
    """
    first, second = paired_columns(first_T, second_T)
    low, high = bounds
    for values in (first, second):
        if (wrong := values[(values < low) | (values > high)]).size:
            raise DataError(f"value {float(wrong[0])!r} is outside {bounds!r}", fix="mend the bounds or the value")
    return confidence_sequence(first - second, level, (low - high, high - low))
