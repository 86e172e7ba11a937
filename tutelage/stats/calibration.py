"""Does a model that says 80 % get 80 % right? And one number that mends it where it does not."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError
from tutelage.stats.labels import Floats, log_softmax, shares_of

MOST_STEPS = 200


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


def fit_temperature(logp_NL: ArrayLike, label_N: ArrayLike) -> float:
    """The temperature T > 0 with the least −Σ log softmax(logp / T)[label] on held-out items: Guo et al. (2017), section 4.2.

    Above 1 the model was too sure, below 1 not sure enough; no decision changes. The derivative in 1/T,
    Σ (E_softmax[logp] − logp[label]), rises with 1/T, so its one zero is found by Newton's method kept within a bracket.

    `logp_NL`: label scores as in `labels`; `label_N`: whole numbers in 0..L − 1, gold labels on items that no training or
    tuning saw, and that no claim is tested on. Raises `DataError` for wrong shapes or values, when every item's label has
    its highest score (T would be 0), and when the scores say no more than chance (T would be infinite or negative).
    """
    logp = log_softmax(logp_NL)
    shares_of(label_N, logp.shape[1])  # refuses what is no label
    label = np.asarray(label_N)
    if label.shape != logp.shape[:1]:
        raise DataError(f"{label.size} labels for {len(logp)} items", fix="give one gold label an item")
    given_N = logp[np.arange(label.size), label]
    if (logp.max(axis=1) == given_N).all():
        raise DataError(
            f"all {label.size} labels have their item's highest score: no temperature is low enough",
            fix="use more held-out items, some of which the model gets wrong",
        )
    if _slope(logp, given_N, 0.0)[0] >= 0.0:
        raise DataError(
            f"on these {label.size} items the scores of the right label are no higher than the average label's",
            fix="the model knows less than chance here: check the labels' order before mending its confidence",
        )
    return temperature_at(lambda inverse: _slope(logp, given_N, inverse))


def temperature_at(derivatives: Callable[[float], tuple[float, float]], precision: float = 4e-16) -> float:
    """T at the one zero of a function of 1/T that rises, below 0 at 0 and not everywhere: by Newton's method kept within a
    bracket, to a relative `precision`. `derivatives(1/T)` gives its value and slope, which here are derivatives of a negative
    log-likelihood."""
    low, high = 0.0, 1.0
    while derivatives(high)[0] < 0.0:
        low, high = high, 2.0 * high
    at = high
    for _ in range(MOST_STEPS):
        slope, curve = derivatives(at)
        low, high = (at, high) if slope < 0.0 else (low, at)
        following = at - slope / curve if curve > 0.0 else low
        if not low < following < high:
            following = (low + high) / 2.0
        if abs(following - at) <= precision * at:
            break
        at = following
    return 1.0 / at


def recalibrate(logp_NL: ArrayLike, temperature: float) -> Floats:
    """log softmax(logp / temperature) of every row, (N, L), in nats. Raises `ConfigError` unless temperature is above 0."""
    if not 0.0 < temperature < float("inf"):
        raise ConfigError(f"temperature {temperature!r}", fix="use what fit_temperature found: a finite number above 0")
    return log_softmax(log_softmax(logp_NL) / temperature)


def _slope(logp_NL: Floats, given_N: Floats, inverse: float) -> tuple[float, float]:
    """First and second derivative of the negative log-likelihood in 1/T at `inverse`."""
    weight_NL = np.exp(inverse * (logp_NL - logp_NL.max(axis=1, keepdims=True)))
    weight_NL /= weight_NL.sum(axis=1, keepdims=True)
    mean_N = (weight_NL * logp_NL).sum(axis=1)
    spread_N = (weight_NL * (logp_NL - mean_N[:, None]) ** 2).sum(axis=1)
    return float((mean_N - given_N).sum()), float(spread_N.sum())
