"""Naive float64 twins of the intervals, tests and plans in `tutelage.stats`: enumeration, loops, whole matrices."""

import itertools
import math
from fractions import Fraction

import numpy as np
from scipy import stats


def binomial(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def clopper_pearson_limits(x, n, level):
    """The p at which the tail of the binomial sum is (1 − level)/2, by bisection."""
    tail = (1 - level) / 2

    def solve(too_small):
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if too_small(middle) else (low, middle)
        return (low + high) / 2

    low = solve(lambda p: math.fsum(binomial(k, n, p) for k in range(x, n + 1)) < tail) if x else 0.0
    high = solve(lambda p: math.fsum(binomial(k, n, p) for k in range(x + 1)) > tail) if x < n else 1.0
    return low, high


def sign_flip_p(differences):
    """All sign patterns of whole numbers, as a whole fraction."""
    reached = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    hits = sum(
        abs(sum(sign * one for sign, one in zip(pattern, differences, strict=True))) >= reached for pattern in patterns
    )
    return float(Fraction(hits, len(patterns)))


def adjusted(p, step):
    """Holm's ("holm") or Benjamini and Hochberg's adjusted p: the least level at which the procedure rejects each claim."""
    m, result = len(p), []
    for one in p:
        candidates = [Fraction(q) * factor for q in p for factor in range(1, m + 1)]
        candidates += [Fraction(q) * Fraction(m, factor) for q in p for factor in range(1, m + 1)] + [Fraction(1)]
        result.append(float(min(level for level in candidates if level == 1 or one in rejected(p, level, step))))
    return result


def rejected(p, level, step):
    order, m = sorted(p), len(p)
    if step == "holm":
        count = 0
        while count < m and Fraction(order[count]) * (m - count) <= level:
            count += 1
    else:
        count = max((k for k in range(1, m + 1) if Fraction(order[k - 1]) * m <= level * k), default=0)
    return order[:count]


def clustered(values, sessions, correlation):
    """CR2 standard error and Satterthwaite degrees from whole matrices: residual maker, blocks' inverse square roots."""
    values, sessions = np.asarray(values, dtype=float), np.asarray(sessions)
    n, names = len(values), np.unique(sessions)
    maker = np.eye(n) - np.ones((n, n)) / n
    working = np.where(sessions[:, None] == sessions[None, :], correlation, 0.0) + (1 - correlation) * np.eye(n)
    residual, columns = maker @ values, []
    for name in names:
        own = np.flatnonzero(sessions == name)
        vectors, roots = np.linalg.eigh(maker[np.ix_(own, own)])[::-1]
        inverse_root = vectors @ np.diag(1 / np.sqrt(roots)) @ vectors.T
        columns.append(maker[:, own] @ inverse_root @ np.ones(len(own)) / n)
    g = np.stack(columns, axis=1)
    error = math.sqrt(sum(float(column @ values) ** 2 for column in columns))
    assert abs(residual.sum()) < 1e-9
    spread = np.linalg.eigvalsh(g.T @ working @ g)
    return error, spread.sum() ** 2 / (spread**2).sum()


def intraclass(values, sessions):
    """Analysis of variance with one factor, a session at a time."""
    groups = [[v for v, s in zip(values, sessions, strict=True) if s == name] for name in sorted(set(sessions))]
    n, k, mean = len(values), len(groups), sum(values) / len(values)
    if n == k:
        return 0.0
    inside = sum(sum((v - sum(g) / len(g)) ** 2 for v in g) for g in groups) / (n - k)
    between = sum(len(g) * (sum(g) / len(g) - mean) ** 2 for g in groups) / (k - 1)
    typical = (n - sum(len(g) ** 2 for g in groups) / n) / (k - 1)
    over = max(0.0, (between - inside) / typical)
    return over / (over + inside) if over + inside else 0.0


def empirical_bernstein(values, level):
    """Waudby-Smith & Ramdas (2024), theorem 2, an item at a time on values in [0, 1]; the running intersection."""
    cost = math.log(2 / (1 - level))
    seen, mean, variance = [], 0.5, 0.25
    stakes = weighted = paid = 0.0
    low, high, limits = 0.0, 1.0, []
    squares = 0.25
    for t, x in enumerate(values, start=1):
        bet = min(0.5, math.sqrt(2 * cost / (variance * t * math.log(1 + t))))
        paid += 4 * (x - mean) ** 2 * (-math.log(1 - bet) - bet) / 4
        stakes += bet
        weighted += bet * x
        seen.append(x)
        mean = (0.5 + math.fsum(seen)) / (t + 1)
        squares += (x - mean) ** 2
        variance = squares / (t + 1)
        half = (cost + paid) / stakes
        low, high = max(low, weighted / stakes - half), min(high, weighted / stakes + half)
        limits.append((low, high))
    return limits


def mcnemar_power(n, difference, discordance, level):
    """Every number of discordant items, every split of it, the exact test on each."""
    total = 0.0
    for m in range(n + 1):
        for k in range(m + 1):
            tail = sum(math.comb(m, i) for i in range(min(k, m - k) + 1))
            if m and Fraction(2 * tail, 2**m) <= 1 - Fraction(level).limit_denominator(1000):
                total += binomial(m, n, discordance) * binomial(k, m, (1 + difference / discordance) / 2)
    return total


def t_power(distance, error, degrees, level):
    return float(stats.nct.sf(stats.t.ppf((1 + level) / 2, degrees), degrees, distance / error))


def relative_entropy(p, q):
    """KL of two Bernoulli variables, in nats."""
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)
