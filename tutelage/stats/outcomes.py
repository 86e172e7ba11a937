"""How often one of two answers is better: a mean of outcomes 1, ½ (a tie) and 0, less one half; by gold, or by gold and a judge.

Shape legend: N items with gold, M others.
"""

import numpy as np
from numpy.typing import ArrayLike

from tutelage.stats.columns import Floats, finite_column, paired_columns
from tutelage.stats.exact import ENOUGH_DISCORDANT, paired_difference
from tutelage.stats.interval import Interval
from tutelage.stats.paired import PairedTable
from tutelage.stats.ppi import FEWEST_GOLD, ppi_mean

EVEN = 0.5
FEWEST_OF_A_KIND = ENOUGH_DISCORDANT


def win_rate(outcome_N: ArrayLike, level: float = 0.95) -> Interval:
    """Mean outcome less one half: half the difference of wins and losses on the same items (`exact.paired_difference`).

    Raises `DataError` when there is no item or a value is not finite, `ConfigError` for a wrong level.
    """
    wins, losses, n = _counts(finite_column(outcome_N, "outcomes", least=1))
    found = paired_difference(PairedTable(n - wins - losses, wins, losses, 0), level)
    return Interval(found.low / 2, found.high / 2, level, f"{found.method} of wins and losses, halved", found.n)


def judged_win_rate(gold_N: ArrayLike, judged_N: ArrayLike, judged_M: ArrayLike, level: float = 0.95) -> Interval:
    """Mean gold outcome over all items less one half, from N items with gold and M that a judge alone decided.

    By PPI++ (`ppi.ppi_mean`) where the N items show every kind of error: 20 wins, 20 losses, 20 items on which the judge is
    kinder to the student than gold and 20 on which it is harder. Else by gold alone (`win_rate`), since what PPI++ corrects
    the judge by is then a handful of items: a limit that may err with 2.5 % erred with 47 for a judge that overlooks one loss
    in twenty, which 30 gold items rarely show. Of 12,348 kinds of data those 40 on which the rule takes PPI++ and erred most
    erred with 3.3 % at most, gold alone on the same ones with 3.0 (40,000 data sets each); `benchmarks/statistics` keeps some.

    The gold items must be drawn at random from all. Raises as `win_rate`, and `DataError` for unequal lengths.
    """
    gold, judged = paired_columns(gold_N, judged_N, least=1)
    others = finite_column(judged_M, "outcomes of the other items", least=0)
    wins, losses, n = _counts(gold)
    rarest = min(wins, losses, int(np.count_nonzero(judged > gold)), int(np.count_nonzero(judged < gold)))
    if rarest < FEWEST_OF_A_KIND or n < FEWEST_GOLD or others.size < 2:
        return win_rate(gold, level)
    found = ppi_mean(gold, judged, others, level).interval
    return Interval(found.low - EVEN, found.high - EVEN, level, found.method, n + others.size)


def _counts(outcome_N: Floats) -> tuple[int, int, int]:
    """Wins, losses, items."""
    return int(np.count_nonzero(outcome_N > EVEN)), int(np.count_nonzero(outcome_N < EVEN)), outcome_N.size
