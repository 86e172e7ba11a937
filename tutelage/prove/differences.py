"""Which interval a column of scores gets, by what the scores are and how many there are; and what it decides.

Shape legend: N items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.records import Decision
from tutelage.stats.clusters import clustered_difference, clustered_mean
from tutelage.stats.equivalence import check_margin
from tutelage.stats.exact import clopper_pearson, paired_difference
from tutelage.stats.interval import Interval, bootstrap_of_means, check_level, wilson
from tutelage.stats.multiple import holm
from tutelage.stats.paired import PairedTable
from tutelage.stats.sequences import confidence_sequence

Floats = NDArray[np.float64]

ENOUGH_ITEMS = 200  # scores between 0 and 1, from which the bootstrap keeps its level
ENOUGH_EACH = 10  # right and wrong answers each, from which Wilson's does
RESAMPLES = 10_000
_HALVINGS = 20


@dataclass(frozen=True, slots=True)
class Column:
    """Scores of one system on N items, each from 0 to 1; `is_binary` when all are 0 or 1 by the task's nature, `session_N` names
    the session of each item where items come in sessions."""

    score_N: Floats
    is_binary: bool
    session_N: NDArray[np.str_] | None = None


def mean_interval(column: Column, level: float, seed: int) -> Interval:
    """Of the mean score. Sessions: cluster-robust; all that can be where there is one alone. Right or wrong: Wilson's,
    Clopper-Pearson's with few of either. Other scores: BCa bootstrap from 200 items, below that the empirical Bernstein
    sequence, which holds at any size."""
    score, n = column.score_N, column.score_N.size
    if column.session_N is not None:
        if _is_one(column.session_N):
            return _anything(n, level, (0.0, 1.0))
        return clustered_mean(score, column.session_N, level, (0.0, 1.0)).interval
    if column.is_binary:
        right = int(score.sum())
        return (wilson if min(right, n - right) >= ENOUGH_EACH else clopper_pearson)(right, n, level)
    return _of_scores(score, level, (0.0, 1.0), seed)


def difference_interval(first: Column, second: Column, level: float, seed: int) -> Interval:
    """Of mean first − second on the same items: as `mean_interval`, with Tango's score interval or exact limits for pairs of
    right and wrong. Raises `DataError` when the columns have not the same items."""
    if first.score_N.shape != second.score_N.shape:
        raise DataError(
            f"{first.score_N.size} items against {second.score_N.size}",
            fix="every system must answer the same items; run again to ask what is missing",
        )
    if first.session_N is not None:
        if _is_one(first.session_N):
            return _anything(first.score_N.size, level, (-1.0, 1.0))
        return clustered_difference(first.score_N, second.score_N, first.session_N, level, (0.0, 1.0)).interval
    if first.is_binary and second.is_binary:
        return paired_difference(PairedTable.from_correct(first.score_N == 1, second.score_N == 1), level)
    return _of_scores(first.score_N - second.score_N, level, (-1.0, 1.0), seed)


def _is_one(session_N: NDArray[np.str_]) -> bool:
    return np.unique(session_N).size == 1


def _anything(n: int, level: float, bounds: tuple[float, float]) -> Interval:
    """All that can be true: within one session nothing says how sessions differ."""
    return Interval(*bounds, level, "none: all are of one session", n)


def _of_scores(values: Floats, level: float, bounds: tuple[float, float], seed: int) -> Interval:
    rng = np.random.default_rng(seed)
    if values.size >= ENOUGH_ITEMS and float(np.ptp(values)) > 0.0:
        return bootstrap_of_means(values[:, None], lambda mean: mean, rng, level, RESAMPLES)
    return confidence_sequence(rng.permutation(values), level, bounds).after(values.size)


class Shown(NamedTuple):
    """For each thing that a claim can show, the smallest 1 − level at which its interval does; 1 where none does.

    `no_worse`: low > −margin. `within`: that, and high < margin. `worse`: high < −margin."""

    no_worse: float
    within: float
    worse: float


NOTHING_SHOWN = Shown(1.0, 1.0, 1.0)


def shown(interval_at: Callable[[float], Interval], margin: float) -> Shown:
    """Each by halving. An interval at a lower level lies within that at a higher one, so the level is the only thing that is
    looked for; a level at which there is no interval (a bootstrap too skewed for it) shows nothing."""
    check_margin(margin)
    at = cache(interval_at)
    return Shown(
        _least(at, lambda found: found.low > -margin),
        _least(at, lambda found: found.low > -margin and found.high < margin),
        _least(at, lambda found: found.high < -margin),
    )


def _least(interval_at: Callable[[float], Interval], shows: Callable[[Interval], bool]) -> float:
    def stands(p: float) -> bool:
        try:
            return shows(interval_at(1.0 - p))
        except DataError:
            return False

    low, high = 0.0, 1.0  # −log10(1 − level) in units of 12 is halved: 1 − level from 1 to 1e-12
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if stands(10.0 ** (-12.0 * middle)) else (low, middle)
    return 10.0 ** (-12.0 * low)


def held_together(shown_M: Sequence[Shown], level: float) -> list[tuple[Decision, float]]:
    """Several claims held against one level: what stands of each, and the adjusted p of it (of an INCONCLUSIVE one, the lesser of
    both sides).

    Holm (1979) over the claims for each thing that can be shown, so that the chance of any wrong "no worse" is at most
    (1 − level)/2 whatever the dependence, and so for "within" and for "worse". Whatever is within is no worse, at a p no
    greater: a claim that loses EQUIVALENT is still NON-INFERIOR where that stands.
    """
    check_level(level)
    no_worse, within, worse = (holm(p_M) for p_M in zip(*shown_M, strict=True))
    alpha = 1.0 - level + 1e-9
    found = []
    for p in (Shown(*map(float, three)) for three in zip(no_worse, within, worse, strict=True)):
        if p.within <= alpha:
            found.append((Decision.EQUIVALENT, p.within))
        elif p.no_worse <= alpha:
            found.append((Decision.NON_INFERIOR, p.no_worse))
        elif p.worse <= alpha:
            found.append((Decision.INFERIOR, p.worse))
        else:
            found.append((Decision.INCONCLUSIVE, min(p.no_worse, p.worse)))
    return found
