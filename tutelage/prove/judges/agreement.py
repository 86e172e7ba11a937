"""Two raters on the same items: Cohen's kappa with its interval, and the exact chance of so much agreement by luck."""

from dataclasses import asdict, dataclass

import numpy as np

from tutelage.errors import DataError
from tutelage.stats.agreement import Kappa, kappa_of
from tutelage.stats.paired import PairedTable


@dataclass(frozen=True, slots=True)
class Agreement(Kappa):
    """`p` is the chance of at least so much agreement of raters that know nothing of each other, given how often each says
    what; 1 where both say one and the same throughout."""

    p: float


def agreement(table: PairedTable, level: float = 0.95) -> Agreement:
    """Cohen's kappa (`stats.agreement`) of two raters with two answers each: `both` and `neither` are the items on which they
    agree. `p` is Fisher's (1935) exact one-sided test. Raises `ConfigError` for a wrong level.
    """
    found = kappa_of(np.array([[table.both, table.only_first], [table.only_second, table.neither]]), level=level)
    return Agreement(**asdict(found), p=1.0 if found.kappa is None else fisher_p(table))


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
