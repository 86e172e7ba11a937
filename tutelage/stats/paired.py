"""Two models on the same items: the difference of their paired proportions."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import DataError
from tutelage.stats.interval import Interval, two_sided_z


@dataclass(frozen=True, slots=True)
class PairedTable:
    """Items counted by who is right: both, only the first, only the second, neither.

    Raises `DataError` when a count is negative or not whole, or all are zero.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    def __post_init__(self) -> None:
        counts = (self.both, self.only_first, self.only_second, self.neither)
        if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts) or not any(
            counts
        ):
            raise DataError(f"paired counts {counts!r}", fix="give whole counts >= 0 of at least one item in all")

    @classmethod
    def from_correct(cls, first: ArrayLike, second: ArrayLike) -> Self:
        """Count two equally long vectors of 0/1 (or bool) correctness, item by item. Raises `DataError` otherwise."""
        one, two = np.asarray(first), np.asarray(second)
        if one.ndim != 1 or one.shape != two.shape or one.size == 0:
            raise DataError(
                f"correctness of shapes {one.shape} and {two.shape}",
                fix="give both the same items, at least one",
            )
        for vector in (one, two):
            if not np.isin(vector, (0, 1)).all():
                wrong = vector[~np.isin(vector, (0, 1))].tolist()[0]
                raise DataError(f"correctness value {wrong!r}", fix="use 1 for right and 0 for wrong")
        right_one, right_two = one == 1, two == 1
        return cls(
            both=int(np.count_nonzero(right_one & right_two)),
            only_first=int(np.count_nonzero(right_one & ~right_two)),
            only_second=int(np.count_nonzero(~right_one & right_two)),
            neither=int(np.count_nonzero(~right_one & ~right_two)),
        )

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """p_first − p_second."""
        return (self.only_first - self.only_second) / self.n

    @property
    def discordance(self) -> float:
        """Share of items on which just one of the two is right."""
        return (self.only_first + self.only_second) / self.n


def tango(table: PairedTable, level: float = 0.95) -> Interval:
    """Score interval for p_first − p_second on the same items: Tango (1998), Stat. Med. 17:891.

    The differences that the score test does not reject: |T(Δ)| <= z, where T(Δ) = (b − c − nΔ) / √(n(2q + Δ(1 − Δ))),
    b = only_first, c = only_second, and q is the maximum-likelihood P(only second) given Δ. T falls in Δ, so each limit
    is found by bisection to the last bit. With no discordant item the limits are ±z²/(n + z²). Raises `ConfigError` for
    a wrong level.
    """
    low, high = tango_limits(table.only_first, table.only_second, table.n, two_sided_z(level))
    return Interval(low, high, level, "Tango score", table.n)


def tango_limits(only_first: float, only_second: float, n: float, z: float) -> tuple[float, float]:
    """Tango's limits at the quantile `z`; the counts need not be whole (effective numbers)."""
    return _limit(only_first, only_second, n, z), -_limit(only_second, only_first, n, z)


def mcnemar_exact(table: PairedTable) -> float:
    """Two-sided exact p of equal proportions: McNemar (1947) with the binomial tail, given the b + c discordant items.

    min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). With no discordant item nothing speaks against equality: 1.
    """
    from scipy.special import bdtr

    discordant = table.only_first + table.only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(float(min(table.only_first, table.only_second)), discordant, 0.5)))


def constrained_share(only_first: float, only_second: float, n: float, difference: float) -> float:
    """Maximum-likelihood P(only second) given P(only first) − P(only second) = `difference` >= 0.

    Tango (1998), the positive root of 2n q² + B q + C = 0 with B = (2n − b + c)Δ − b − c and C = −cΔ(1 − Δ).
    """
    assert difference >= 0.0
    half = ((2 * n - only_first + only_second) * difference - only_first - only_second) / 2
    return (math.sqrt(half * half + 2 * n * only_second * difference * (1 - difference)) - half) / (2 * n)


def _score(only_first: float, only_second: float, n: float, difference: float) -> float:
    if difference < 0.0:
        return -_score(only_second, only_first, n, -difference)
    distance = only_first - only_second - n * difference
    share = constrained_share(only_first, only_second, n, difference)
    variance = n * (2 * share + difference * (1 - difference))
    if variance <= 0.0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _limit(only_first: float, only_second: float, n: float, z: float) -> float:
    """The lower limit: the Δ below the estimate where T(Δ) = z."""
    low, high = -1.0, (only_first - only_second) / n
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return low
        if _score(only_first, only_second, n, middle) > z:
            low = middle
        else:
            high = middle
