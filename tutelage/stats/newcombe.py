"""Differences of two proportions from the Wilson limits of each: closed forms, good at the edges."""

import math
from typing import NamedTuple

from tutelage.stats.interval import Interval, wilson
from tutelage.stats.paired import PairedTable


def newcombe(successes_1: int, n_1: int, successes_2: int, n_2: int, level: float = 0.95) -> Interval:
    """Interval for p_1 − p_2 of two independent samples: Newcombe (1998), Stat. Med. 17:873, method 10.

    (p_1 − p_2) − √((p_1 − l_1)² + (u_2 − p_2)²) to (p_1 − p_2) + √((u_1 − p_1)² + (p_2 − l_2)²), with (l_i, u_i) the
    Wilson limits of p_i. For two models on *different* items; on the same items use `newcombe_paired` or `tango`.
    `n` of the interval is n_1 + n_2. Raises `DataError` and `ConfigError` as `wilson`.
    """
    first, second = wilson(successes_1, n_1, level), wilson(successes_2, n_2, level)
    low, high = _square_and_add(successes_1 / n_1, first, successes_2 / n_2, second, 0.0)
    return Interval(low, high, level, "Newcombe hybrid score", n_1 + n_2)


def newcombe_paired(table: PairedTable, level: float = 0.95) -> Interval:
    """Interval for p_first − p_second on the same items: Newcombe (1998), Stat. Med. 17:2635, method 10.

    As `newcombe`, less twice the correlation times the product under each root. The correlation of the two 0/1 columns
    is taken with the paper's continuity correction, which brings a positive one towards 0, and as 0 where a model is
    always right or always wrong. Raises `ConfigError` for a wrong level.
    """
    right_1, right_2 = table.both + table.only_first, table.both + table.only_second
    first, second = wilson(right_1, table.n, level), wilson(right_2, table.n, level)
    low, high = _square_and_add(right_1 / table.n, first, right_2 / table.n, second, _correlation(table))
    return Interval(low, high, level, "Newcombe hybrid score, paired", table.n)


class _Limits(NamedTuple):
    low: float
    high: float


def _square_and_add(p_1: float, first: Interval, p_2: float, second: Interval, correlation: float) -> _Limits:
    def root(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    difference = p_1 - p_2
    low = difference - root(p_1 - first.low, second.high - p_2)
    high = difference + root(first.high - p_1, p_2 - second.low)
    return _Limits(max(-1.0, low), min(1.0, high))


def _correlation(table: PairedTable) -> float:
    """Newcombe's φ: (ad − bc) / √(product of the margins), with n/2 taken off a positive numerator, but not below 0."""
    right_1, right_2 = table.both + table.only_first, table.both + table.only_second
    margins = right_1 * (table.n - right_1) * right_2 * (table.n - right_2)
    if margins == 0:
        return 0.0
    cross = table.both * table.neither - table.only_first * table.only_second
    corrected = max(cross - table.n / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(margins)
