"""Few gold labels and many cheap ones: the cheap ones narrow the interval, the gold ones keep it honest."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import DataError
from tutelage.stats.columns import Floats, finite_column, paired_columns
from tutelage.stats.interval import Interval, check_level

FEWEST_GOLD = 30


@dataclass(frozen=True, slots=True)
class PredictionPowered:
    """A mean of gold labels, helped by cheap ones.

    `weight` is λ, how far the cheap labels are trusted (0: not at all, the plain mean; 1: fully). `correlation` is that
    of cheap and gold labels on the gold items (0 where either is constant). `gold_equivalent` is how many gold labels
    the plain mean would need for the same standard error; `saved` of them were not asked for.
    """

    mean: float
    standard_error: float
    weight: float
    correlation: float
    gold: int
    cheap: int
    gold_equivalent: float
    interval: Interval

    @property
    def saved(self) -> float:
        return self.gold_equivalent - self.gold


def ppi_mean(gold_N: ArrayLike, cheap_N: ArrayLike, cheap_M: ArrayLike, level: float = 0.95) -> PredictionPowered:
    """Mean of the gold label over all items, from N items with gold and cheap labels and M others with cheap ones only.

    PPI++ with power tuning: Angelopoulos, Duchi & Zrnic (2023), arXiv:2311.01453, section 6 and example 6.1:
    mean(gold_N) + λ (mean(cheap_M) − mean(cheap_N)), λ = Cov(gold, cheap) / ((1 + N/M) Var(cheap)) held to [0, 1], with
    variance Var(gold − λ cheap)/N + λ² Var(cheap)/M. As in regression, where the slope costs a degree of freedom too
    (Cochran (1977), Sampling Techniques, section 12.6), the first variance is divided by N − 2 and the interval is
    Student's t with N − 2 degrees: the paper's limits are too near for small N.

    The gold items must be drawn at random from all items, never picked by what the cheap labels say. Raises `DataError`
    with fewer than 30 gold or 2 other items, unequal lengths, a value that is not finite, and where gold − λ cheap does
    not vary (then its error cannot be seen); `ConfigError` for a wrong level.
    """
    check_level(level)
    gold, cheap = paired_columns(gold_N, cheap_N, least=1)
    if gold.size < FEWEST_GOLD:
        raise DataError(
            f"{gold.size} gold labels are too few to tune by", fix=f"label {FEWEST_GOLD} items or more by hand"
        )
    more = finite_column(cheap_M, "cheap labels of the other items", least=2)
    weight = _weight(gold, cheap, more)
    rest = gold - weight * cheap
    squares = float(((rest - rest.mean()) ** 2).sum())
    if squares <= 1e-24 * float((rest**2).sum()):
        raise DataError(
            f"gold labels less {weight:.3g} times the cheap ones are the same on all {gold.size} items",
            fix="label more items: an error rate of nought in the sample is not nought; or use clopper_pearson on them",
        )
    variance = squares / (gold.size - 2) / gold.size + weight * weight * float(more.var()) / more.size
    mean = float(rest.mean()) + weight * float(more.mean())
    half = _t_quantile(gold.size - 2, level) * math.sqrt(variance)
    method = f"PPI++ (weight {weight:.2f}), t with {gold.size - 2} degrees"
    return PredictionPowered(
        mean=mean,
        standard_error=math.sqrt(variance),
        weight=weight,
        correlation=_correlation(gold, cheap),
        gold=gold.size,
        cheap=more.size,
        gold_equivalent=float(gold.var(ddof=1)) / variance,
        interval=Interval(mean - half, mean + half, level, method, gold.size),
    )


def _weight(gold: Floats, cheap: Floats, more: Floats) -> float:
    everywhere = float(np.concatenate([cheap, more]).var(ddof=1))
    if everywhere == 0.0:
        return 0.0  # a cheap label that never changes says nothing
    together = float(((gold - gold.mean()) * (cheap - cheap.mean())).mean())
    return min(1.0, max(0.0, together / ((1.0 + gold.size / more.size) * everywhere)))


def _correlation(gold: Floats, cheap: Floats) -> float:
    scale = math.sqrt(float(gold.var()) * float(cheap.var()))
    return float(((gold - gold.mean()) * (cheap - cheap.mean())).mean()) / scale if scale > 0.0 else 0.0


def _t_quantile(degrees: int, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1.0 + level) / 2.0))
