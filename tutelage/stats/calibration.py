"""Does a model that says 80 % get 80 % right?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """`n` >= 1 items with confidence in (low, high] (the first bin also holds 0): their means, as proportions."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidence_N: ArrayLike, correct_N: ArrayLike, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """The reliability diagram: items in `bins` equal-width bins of confidence, lowest first; empty bins are left out.

    Guo et al. (2017), arXiv:1706.04599, section 2, with B_m = ((m − 1)/M, m/M]. `confidence_N`: the probability of the
    decided label, in [0, 1]; `correct_N`: 0/1 or bool. Raises `DataError` when there is no item, the lengths differ or
    a value is outside its range, `ConfigError` when bins < 1.
    """
    if bins < 1:
        raise ConfigError(f"{bins!r} bins", fix="use at least one; 10 is usual")
    confidence, correct = np.asarray(confidence_N, dtype=np.float64), np.asarray(correct_N, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape or confidence.size == 0:
        raise DataError(
            f"confidences of shape {confidence.shape} for correctness of shape {correct.shape}",
            fix="give one of each for every item, at least one item",
        )
    outside = confidence[~((confidence >= 0.0) & (confidence <= 1.0))]
    if outside.size:
        raise DataError(
            f"confidence {float(outside[0])!r} is not in [0, 1]", fix="give probabilities, not log-probabilities"
        )
    if not np.isin(correct, (0.0, 1.0)).all():
        wrong = correct[~np.isin(correct, (0.0, 1.0))][0].item()
        raise DataError(f"correctness value {wrong!r}", fix="use 1 for right and 0 for wrong")
    edges = np.arange(bins + 1) / bins
    bin_N = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    count = np.bincount(bin_N, minlength=bins)
    confidence_sum = np.bincount(bin_N, weights=confidence, minlength=bins)
    correct_sum = np.bincount(bin_N, weights=correct, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=float(edges[at]),
            high=float(edges[at + 1]),
            n=int(count[at]),
            confidence=float(confidence_sum[at] / count[at]),
            accuracy=float(correct_sum[at] / count[at]),
        )
        for at in range(bins)
        if count[at]
    )


def expected_calibration_error(confidence_N: ArrayLike, correct_N: ArrayLike, bins: int = 10) -> float:
    """Mean |accuracy − confidence| over bins, weighted by their items, a proportion in [0, 1].

    Naeini et al. (2015), AAAI; Guo et al. (2017) eq. 3. Raises as `reliability`.
    """
    filled = reliability(confidence_N, correct_N, bins)
    total = sum(bin.n for bin in filled)
    return sum(bin.n * abs(bin.accuracy - bin.confidence) for bin in filled) / total
