"""Naive float64 twins of `tutelage.stats`: loops, grids, whole fractions and enumeration; slow and plain."""

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri


def wilson_limits(successes, n, z):
    """Roots of (share − p)² = z² p(1 − p)/n by the polynomial's coefficients."""
    share = successes / n
    roots = np.roots([1 + z * z / n, -(2 * share + z * z / n), share * share])
    return min(roots.real), max(roots.real)


def tango_score(b, c, n, difference):
    """The score statistic with P(only second) found by minimising the multinomial likelihood on a shrinking grid."""
    low, high = max(0.0, -difference), min(1.0, (1.0 - difference) / 2)
    for _ in range(60):
        grid = np.linspace(low, high, 21)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [
                count * np.log(np.maximum(share, 0.0)) if count else np.zeros(21)
                for count, share in ((b, grid + difference), (c, grid), (n - b - c, 1 - 2 * grid - difference))
            ]
        at = int(np.nanargmax(sum(terms)))
        low, high = grid[max(at - 1, 0)], grid[min(at + 1, 20)]
    q = (low + high) / 2
    return (b - c - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))


def mcnemar_p(b, c):
    """Exact binomial tails as whole fractions."""
    tail = sum(Fraction(math.comb(b + c, k), 2 ** (b + c)) for k in range(min(b, c) + 1))
    return float(min(Fraction(1), 2 * tail))


def bca_limits(columns, statistic, rng, level, resamples):
    """BCa with a resample, and a left-out row, at a time; the draws are those of a multinomial over the sorted rows."""
    rows = sorted(map(tuple, columns))
    distinct = sorted(set(rows))
    n = len(rows)
    shares = [rows.count(row) / n for row in distinct]

    def of(sample):
        return statistic(*[math.fsum(column) / len(sample) for column in zip(*sample, strict=True)])

    estimate, values = of(rows), []
    for _ in range(resamples):
        counts = rng.multinomial(n, shares)
        values.append(of([row for row, count in zip(distinct, counts, strict=True) for _ in range(count)]))
    left_out = [of(rows[:at] + rows[at + 1 :]) for at in range(n)]
    spread = [math.fsum(left_out) / n - value for value in left_out]
    a = math.fsum(value**3 for value in spread) / (6 * math.fsum(value**2 for value in spread) ** 1.5)
    below = sum(1.0 if value < estimate else 0.5 if value == estimate else 0.0 for value in values) / resamples
    z0, limits = float(ndtri(below)), []
    for z in (ndtri((1 - level) / 2), ndtri((1 + level) / 2)):
        limits.append(float(np.quantile(values, ndtr(z0 + (z0 + z) / (1 - a * (z0 + z))))))
    return tuple(limits)


def calibration_error(confidence, correct, bins):
    """Guo et al. (2017) eq. 3, a bin at a time, by comparisons alone."""
    total = 0.0
    for m in range(1, bins + 1):
        low = Fraction(m - 1, bins)
        members = [
            at
            for at, value in enumerate(confidence)
            if (float(low) < value or (m == 1 and value == 0.0)) and value <= float(Fraction(m, bins))
        ]
        if members:
            accuracy = sum(correct[at] for at in members) / len(members)
            mean = sum(confidence[at] for at in members) / len(members)
            total += len(members) / len(confidence) * abs(accuracy - mean)
    return total


def log_softmax(row):
    top = max(row)
    return [value - top - math.log(math.fsum(math.exp(other - top) for other in row)) for value in row]


def kl(p_logits, q_logits):
    p, q = log_softmax(p_logits), log_softmax(q_logits)
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def best_assignment_total(logp, counts):
    """Largest total logp of any assignment with these counts, by trying all of them."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return max(
        math.fsum(logp[at][label] for at, label in enumerate(order)) for order in set(itertools.permutations(labels))
    )


def nearest_two_label_miss(difference, share_first):
    """Smallest distance of the first label's count from its share over all cuts of the difference, by trying them."""
    n = len(difference)
    cuts = [math.inf, *difference]
    return min(abs(sum(value >= cut for value in difference) - share_first * n) for cut in cuts)


def logistic_loss(weights, bias, features, target, l2):
    """Penalised mean cross-entropy, an example at a time, on dense features."""
    total = 0.0
    for row, wanted in zip(features, target, strict=True):
        logp = log_softmax(list(row @ weights + bias))
        total -= math.fsum(share * value for share, value in zip(wanted, logp, strict=True))
    return total / len(features) + l2 / 2 * float((weights**2).sum())


def logistic_minimum(features, target, l2):
    """The least loss, by a general minimiser with numerical gradients."""
    size, labels = features.shape[1], target.shape[1]

    def loss(packed):
        return logistic_loss(
            packed[: size * labels].reshape(size, labels), packed[size * labels :], features, target, l2
        )

    return minimize(loss, np.zeros((size + 1) * labels), method="BFGS", options={"gtol": 1e-7}).fun
