"""Which interval a column of scores gets, by what the scores are and how many there are; and what it decides.

Shape legend: N items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.records import Decision
from tutelage.stats.clusters import clustered_difference, clustered_mean
from tutelage.stats.equivalence import verdict
from tutelage.stats.exact import clopper_pearson, paired_difference
from tutelage.stats.interval import Interval, bootstrap_of_means, wilson
from tutelage.stats.multiple import holm
from tutelage.stats.paired import PairedTable
from tutelage.stats.sequences import confidence_sequence

Floats = NDArray[np.float64]

ENOUGH_ITEMS = 200  # scores between 0 and 1, from which the bootstrap keeps its level
ENOUGH_EACH = 10  # right and wrong answers each, from which Wilson's does
RESAMPLES = 10_000
_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class Column:
    """Scores of one system on N items, each from 0 to 1; `is_binary` when all are 0 or 1 by the task's nature, `session_N` names
    the session of each item where items come in sessions."""

    score_N: Floats
    is_binary: bool
    session_N: NDArray[np.str_] | None = None


def mean_interval(column: Column, level: float, seed: int) -> Interval:
    """Of the mean score. Sessions: cluster-robust. Right or wrong: Wilson's, Clopper-Pearson's with few of either. Other
    scores: BCa bootstrap from 200 items, below that the empirical Bernstein sequence, which holds at any size."""
    score, n = column.score_N, column.score_N.size
    if column.session_N is not None:
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
        return clustered_difference(first.score_N, second.score_N, first.session_N, level, (0.0, 1.0)).interval
    if first.is_binary and second.is_binary:
        return paired_difference(PairedTable.from_correct(first.score_N == 1, second.score_N == 1), level)
    return _of_scores(first.score_N - second.score_N, level, (-1.0, 1.0), seed)


def _of_scores(values: Floats, level: float, bounds: tuple[float, float], seed: int) -> Interval:
    rng = np.random.default_rng(seed)
    if values.size >= ENOUGH_ITEMS and float(np.ptp(values)) > 0.0:
        return bootstrap_of_means(values[:, None], lambda mean: mean, rng, level, RESAMPLES)
    return confidence_sequence(rng.permutation(values), level, bounds).after(values.size)


def p_of(decision: Decision, interval_at: Callable[[float], Interval], margin: float) -> float:
    """The smallest 1 − level at which the interval still shows `decision`, by halving; 1 for INCONCLUSIVE.

    An interval at a lower level lies within that at a higher one, so the level is the only thing that is looked for."""
    if decision is Decision.INCONCLUSIVE:
        return 1.0
    low, high = 0.0, 1.0  # −log10(1 − level) is halved: 1 − level from 1 to 1e-12
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        shows = verdict(interval_at(1.0 - 10.0 ** (-12.0 * middle)), margin) if middle else decision
        low, high = (middle, high) if shows is decision else (low, middle)
    return 10.0 ** (-12.0 * low)


def adjusted(decisions: list[Decision], p_M: list[float], level_M: list[float]) -> list[tuple[Decision, float]]:
    """Several claims held against their levels together, by Holm: what does not stand is INCONCLUSIVE."""
    found = holm(p_M)
    return [
        (decision if float(p) <= 1.0 - level + 1e-9 else Decision.INCONCLUSIVE, float(p))
        for decision, p, level in zip(decisions, found, level_M, strict=True)
    ]
