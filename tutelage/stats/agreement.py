"""How far two raters agree beyond chance, on any number of categories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError, DataError
from tutelage.stats.exact import clopper_pearson
from tutelage.stats.interval import two_sided_z

_NOUGHT = 1e-10  # a variance below is rounding: its parts are of the order of 1


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement of two raters on `n` items: `share` on which they say the same, `kappa` beyond chance with limits `low`
    and `high` at `level`. `kappa` is None where both say one and the same throughout: chance explains all of it. Limits
    are None too where the data show no spread to make them from; `method` says so.
    """

    n: int
    share: float
    kappa: float | None
    low: float | None
    high: float | None
    level: float
    method: str


def cohen_kappa(
    first_N: Sequence[str], second_N: Sequence[str], categories: Sequence[str], *, ordered: bool = False, level: float = 0.95
) -> Kappa:  # fmt: skip
    """Cohen's kappa of what two raters say of the same N items, each one of `categories`.

    Cohen (1960), Educ. Psychol. Meas. 20:37. `ordered`: categories are equally spaced steps in the order given, and a
    disagreement weighs by the square of its steps (Cohen (1968), Psychol. Bull. 70:213). Limits by the large-sample
    variance of Fleiss, Cohen & Everitt (1969), Psychol. Bull. 72:323, cut to [−1, 1]; raters that never differ have
    none, and get the limit of Clopper and Pearson for the share of agreement, with the chance share held. Raises
    `DataError` for no item, unequal lengths or a word that is no category; `ConfigError` for a wrong level or fewer
    than two categories.
    """
    return kappa_of(_crossed(first_N, second_N, categories), ordered=ordered, level=level)


def kappa_of(counts_KK: NDArray[np.int64], *, ordered: bool = False, level: float = 0.95) -> Kappa:
    """`cohen_kappa` of how often the first rater says one of K ≥ 2 categories (row) while the second says another (column); at
    least one item. Raises `ConfigError` for a wrong level."""
    z = two_sided_z(level)
    n = int(counts_KK.sum())
    p = counts_KK / n
    same = int(np.trace(counts_KK))
    share = same / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    steps = np.arange(len(p))
    apart = np.subtract.outer(steps, steps) / (len(p) - 1.0)
    weights = 1.0 - apart**2 if ordered else np.eye(len(p))
    observed, chance = float((weights * p).sum()), float(rows @ weights @ columns)
    if chance >= 1.0 - 1e-12:
        return Kappa(n, share, None, None, None, level, "undefined: both say one thing throughout")
    kappa = (observed - chance) / (1.0 - chance)
    if same == n:
        exact = clopper_pearson(n, n, level)
        low = max(-1.0, (exact.low - chance) / (1.0 - chance))
        return Kappa(n, share, kappa, low, 1.0, level, "Clopper-Pearson, chance share held")
    margins = np.add.outer(weights @ columns, rows @ weights)
    second = float((p * (weights - margins * (1.0 - kappa)) ** 2).sum())
    variance = (second - (kappa - chance * (1.0 - kappa)) ** 2) / (n * (1.0 - chance) ** 2)
    if n * variance < _NOUGHT:  # one of them says one thing throughout, or they never agree: no spread to go by
        return Kappa(n, share, kappa, None, None, level, "no limits: the large-sample variance is nought")
    half = z * math.sqrt(variance)
    method = "Fleiss, Cohen & Everitt" + (", quadratic weights" if ordered else "")
    return Kappa(n, share, kappa, max(-1.0, kappa - half), min(1.0, kappa + half), level, method)


def _crossed(first_N: Sequence[str], second_N: Sequence[str], categories: Sequence[str]) -> NDArray[np.int64]:
    """How often the first says one category while the second says another."""
    if len(set(categories)) < 2 or len(set(categories)) < len(categories):
        raise ConfigError(f"categories {list(categories)!r:.80}", fix="give two or more, each once")
    if len(first_N) != len(second_N) or not first_N:
        raise DataError(f"{len(first_N)} items against {len(second_N)}", fix="give what both say of the same items")
    at = {category: place for place, category in enumerate(categories)}
    counts = np.zeros((len(categories), len(categories)), dtype=np.int64)
    for one, two in zip(first_N, second_N, strict=True):
        for word in (one, two):
            if word not in at:
                raise DataError(f"{word!r:.60} is none of {', '.join(categories)}", fix="name every category")
        counts[at[one], at[two]] += 1
    return counts
