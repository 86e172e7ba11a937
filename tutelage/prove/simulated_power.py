"""Power where no formula holds: proofs are drawn, and the interval that such data get is taken of each.

The formulas (`stats.power`, `stats.power_means`) are those of Tango's, cluster-robust and bootstrap intervals; of few items wider
ones are made, which show less. Shape legend: R draws, N items.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tutelage.prove.differences import ENOUGH_ITEMS, Column, difference_interval

DRAWS = 1000  # a chance of 80 % is known to 1.3 points
ENOUGH_DIFFERENT = 40.0  # expected items on which just one is right: 20 and more of them are certain enough
ENOUGH_SESSIONS = 30


def formula_holds(n: int, discordance: float, sessions: int, *, is_binary: bool) -> bool:
    """Whether the intervals of such data are those that the formulas are about."""
    if sessions:
        return sessions >= ENOUGH_SESSIONS
    return n * discordance >= ENOUGH_DIFFERENT if is_binary else n >= ENOUGH_ITEMS


def enough(discordance: float, size: float, sessions: int, *, is_binary: bool) -> float:
    """Items from which the formulas hold; `size` are the items of a session, where there are `sessions`."""
    if sessions:
        return ENOUGH_SESSIONS * size
    return ENOUGH_DIFFERENT / discordance if is_binary else float(ENOUGH_ITEMS)


def simulated_power(
    n: int, margin: float, difference: float, discordance: float, level: float, *, is_binary: bool, sessions: int = 0,
    correlation: float = 0.0,
) -> float:  # fmt: skip
    """Share of `DRAWS` proofs whose lower limit lies above −margin, where a share (discordance ± difference) / 2 of the items is
    worth 1 to just one side. Items of a session share their draw with probability √correlation, so that two of them
    correlate as said. The draws are the same at every call."""
    rng = np.random.default_rng(0)
    draw_RN = rng.random((DRAWS, n))
    session_N = None
    if sessions:
        session_of_N = np.arange(n) * sessions // n
        shared_RN = rng.random((DRAWS, sessions))[:, session_of_N]
        draw_RN = np.where(rng.random((DRAWS, n)) < correlation**0.5, shared_RN, draw_RN)
        session_N = session_of_N.astype(str)
    better = (discordance + difference) / 2
    first_RN, second_RN = draw_RN < better, (draw_RN >= better) & (draw_RN < discordance)
    if session_N is None:  # in which order the items come changes nothing
        counts = Counter(zip(first_RN.sum(1).tolist(), second_RN.sum(1).tolist(), strict=True))
        drawn = [
            (_first_items(n, 0, one), _first_items(n, one, other), times) for (one, other), times in counts.items()
        ]
    else:
        drawn = [(first_N, second_N, 1) for first_N, second_N in zip(first_RN, second_RN, strict=True)]
    shown = 0
    for first_N, second_N, times in drawn:
        first, second = (Column(side_N.astype(float), is_binary, session_N) for side_N in (first_N, second_N))
        shown += times * (difference_interval(first, second, level, 0).low > -margin)
    return shown / DRAWS


def _first_items(n: int, start: int, count: int) -> NDArray[np.bool_]:
    at = np.arange(n)
    return (at >= start) & (at < start + count)
