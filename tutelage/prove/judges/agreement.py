"""Two raters on the same items: Cohen's kappa with its interval, and the exact chance of so much agreement by luck."""

import math
from dataclasses import dataclass

import numpy as np

from tutelage.errors import DataError
from tutelage.stats.exact import clopper_pearson
from tutelage.stats.interval import two_sided_z
from tutelage.stats.paired import PairedTable


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two raters on `n` items: `share` as it is, `kappa` beyond chance with limits `low` and `high` at `level`,
    and `p`, the chance of at least so much agreement of raters that know nothing of each other, given how often each says
    what. Kappa is None, and `p` 1, where both say one and the same throughout."""

    n: int
    share: float
    kappa: float | None
    low: float | None
    high: float | None
    p: float
    level: float
    method: str


def agreement(table: PairedTable, level: float = 0.95) -> Agreement:
    """Cohen's kappa of two raters with two answers each: `both` and `neither` are the items on which they agree.

    Cohen (1960), Educ. Psychol. Meas. 20:37; limits by the large-sample variance of Fleiss, Cohen & Everitt (1969),
    Psychol. Bull. 72:323, cut to [−1, 1]. Where the raters never differ that variance is nought: then the limits are
    those of Clopper and Pearson for the share of agreement, with the chance share held. `p` is Fisher's (1935) exact
    one-sided test. Raises `ConfigError` for a wrong level.
    """
    z, n = two_sided_z(level), table.n
    share = (table.both + table.neither) / n
    first, second = (table.both + table.only_first) / n, (table.both + table.only_second) / n
    chance = first * second + (1 - first) * (1 - second)
    if chance >= 1.0:
        return Agreement(n, share, None, None, None, 1.0, level, "undefined: both say one thing throughout")
    kappa = (share - chance) / (1 - chance)
    if table.only_first + table.only_second == 0:
        exact = clopper_pearson(n, n, level)
        low = (exact.low - chance) / (1 - chance)
        return Agreement(n, share, kappa, low, 1.0, fisher_p(table), level, "Clopper-Pearson, chance share held")
    cells = np.array([[table.both, table.only_first], [table.only_second, table.neither]]) / n
    rows, columns = cells.sum(axis=1), cells.sum(axis=0)
    same = sum(cells[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    apart = (1 - kappa) ** 2 * sum(cells[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in range(2))
    variance = (same + apart - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = z * math.sqrt(max(0.0, float(variance)))
    low, high = max(-1.0, kappa - half), min(1.0, kappa + half)
    return Agreement(n, share, kappa, low, high, fisher_p(table), level, "Fleiss, Cohen & Everitt")


def fisher_p(table: PairedTable) -> float:
    """P(at least so many `both`) of independent raters given the margins: Fisher's exact test, one-sided (hypergeometric).

    At most 2^53 items; raises `DataError` beyond.
    """
    from scipy.special import gammaln

    if table.n > 2**53:
        raise DataError(f"{table.n} items", fix="count at most 2^53")
    first, second = table.both + table.only_first, table.both + table.only_second
    most = min(first, second)
    both = np.arange(table.both, most + 1, dtype=np.float64)

    def log_choose(total: float, of: "np.ndarray | float") -> "np.ndarray":
        return gammaln(total + 1.0) - gammaln(np.add(of, 1.0)) - gammaln(np.subtract(total, of) + 1.0)

    rest = table.n - first
    logs = log_choose(first, both) + log_choose(rest, second - both) - log_choose(table.n, second)
    return min(1.0, float(np.exp(logs).sum()))
