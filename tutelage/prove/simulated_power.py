"""Power where no formula holds: proofs are drawn, and the interval that such data get is taken of each.

The formulas (`stats.power`, `stats.power_means`) are those of Tango's, cluster-robust and bootstrap intervals; of few items wider
ones are made, which show less. Shape legend: N items.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError, DataError
from tutelage.prove.differences import ENOUGH_ITEMS, Column, difference_interval
from tutelage.stats.power_means import design_effect

DRAWS = 1000  # a chance of 80 % is known to 1.3 points
MOST_ITEMS = 2_000_000  # that are drawn in all: fewer proofs where each is large
ENOUGH_DIFFERENT = 40.0  # expected items on which just one is right: 20 and more of them are certain enough
ENOUGH_SESSIONS = 30


class Expected(NamedTuple):
    """What is expected of `n` items: mean `difference`, first less second; `discordance`, the mean of differences squared, which
    of right and wrong (`is_binary`) is the share on which just one is right; their `sessions` (0: they name none) and how
    alike differences within one are (`correlation`, 0 to 1)."""

    n: int
    difference: float
    discordance: float
    is_binary: bool
    sessions: int = 0
    correlation: float = 0.0

    @property
    def size(self) -> float:
        return session_size(self.n, self.sessions)

    @property
    def effect(self) -> float:
        return design_effect(self.size, self.correlation)


def session_size(n: int, sessions: int) -> float:
    """Items a session, 1 where there are none."""
    return max(1.0, n / sessions) if sessions else 1.0


def formula_holds(expected: Expected) -> bool:
    """Whether the intervals of such data are those that the formulas are about."""
    return expected.n >= round(enough(expected), 6)


def enough(expected: Expected) -> float:
    """Items from which they are, in sessions as large as these."""
    items = ENOUGH_DIFFERENT * expected.effect / expected.discordance if expected.is_binary else 0.0
    if expected.sessions:
        return max(items, ENOUGH_SESSIONS * expected.size)
    return items if expected.is_binary else float(ENOUGH_ITEMS)


def simulated_power(expected: Expected, margin: float, level: float) -> float:
    """Share of the drawn proofs whose lower limit lies above −margin. Scores between 0 and 1 differ by √discordance either way,
    which has the mean and the mean square that are expected; items of a session share their draw with probability
    √correlation, so that two of them correlate as said. The draws are the same at every call. Raises `ConfigError` for a
    difference that such items cannot have."""
    if expected.n < 2 or expected.sessions == 1:
        return 0.0  # no interval is made of these
    worth = 1.0 if expected.is_binary else expected.discordance**0.5
    differ = expected.discordance if expected.is_binary else 1.0
    better, worse = (differ + side * expected.difference / worth for side in (1, -1))
    if min(better, worse) < 0:
        raise ConfigError(
            f"expected_difference = {expected.difference:g}, and expected_discordance = {expected.discordance:g} allows less",
            fix="expect a smaller difference, or a larger discordance",
        )
    shown = drawn = 0
    for difference_N, session_N, times in _drawn(expected, better / 2, worse / 2):
        if expected.is_binary:
            sides = (difference_N > 0).astype(float), (difference_N < 0).astype(float)
        else:
            sides = (1 + worth * difference_N) / 2, (1 - worth * difference_N) / 2
        first, second = (Column(side_N, expected.is_binary, session_N) for side_N in sides)
        drawn += times
        try:
            shown += times * (difference_interval(first, second, level, 0).low > -margin)
        except DataError:  # no interval: nothing is shown
            continue
    return shown / drawn


def _drawn(
    expected: Expected, better: float, worse: float
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.str_] | None, int]]:
    """Differences of −1, 0 and 1, the items' sessions, and how many proofs drew these."""
    rng, n = np.random.default_rng(0), expected.n
    draws = max(100, min(DRAWS, MOST_ITEMS // n))
    if expected.is_binary and not expected.sessions:  # which items they are changes nothing
        counts = rng.multinomial(n, (better, worse, max(0.0, 1 - better - worse)), DRAWS)
        for (more, less, even), times in Counter(map(tuple, counts.tolist())).items():
            yield np.repeat((1.0, -1.0, 0.0), (more, less, even)), None, times
        return
    of_N = np.arange(n) * expected.sessions // n
    session_N = of_N.astype(str) if expected.sessions else None
    for _ in range(draws):
        draw_N = rng.random(n)
        if expected.sessions:
            shared_N = rng.random(expected.sessions)[of_N]
            draw_N = np.where(rng.random(n) < expected.correlation**0.5, shared_N, draw_N)
        difference_N = np.where(draw_N < better, 1.0, np.where(draw_N < better + worse, -1.0, 0.0))
        yield difference_N, session_N, 1
