"""How many held-out items a claim on two models' paired 0/1 answers needs, said before looking.

Non-inferiority. Power of the paired score test (Tango 1998; the same test and this normal approximation: Nam (1997),
Biometrics 53:1422) that the lower limit of a two-sided `level` interval for p_first − p_second lies above −margin:

    power = Φ( (√n (δ + margin) − z σ0) / σ1 )
    σ1² = ψ − δ²                       variance of one item's difference in truth
    σ0² = 2q − margin (1 + margin)     the same as the test estimates it, at the limit of the constrained estimate q

with δ the true difference, ψ the discordance P(just one of the two is right), and z the (1 + level)/2 quantile.
Equivalence is that on both sides at once; McNemar's exact test is counted exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from tutelage.errors import ConfigError
from tutelage.stats.equivalence import check_margin
from tutelage.stats.interval import check_level, two_sided_z
from tutelage.stats.paired import constrained_share

MOST_ITEMS = 10**9


def non_inferiority_power(
    n: int, margin: float, true_difference: float, discordance: float, level: float = 0.95
) -> float:
    """Probability that `n` paired items give low > −margin. All arguments but `n` are proportions.

    It is Tango's interval that is planned for: with fewer than 20 discordant items `paired_difference` takes a wider one,
    and the power is less.

    Raises `ConfigError` when n < 1, the margin or level is outside (0, 1), or no such pair of models exists
    (discordance must lie between |true_difference| and 1, and above 0).
    """
    if not 1 <= n < math.inf:
        raise ConfigError(f"{n!r} items", fix="ask for the power of at least one item")
    spread = _spread(margin, true_difference, discordance)
    shift = math.sqrt(n) * (true_difference + margin)
    return NormalDist().cdf((shift - two_sided_z(level) * spread.tested) / spread.true)


def items_needed(power: float, margin: float, true_difference: float, discordance: float, level: float = 0.95) -> int:
    """Smallest number of paired items whose `non_inferiority_power` is at least `power`.

    Nam (1997): n = ((z σ0 + z_power σ1) / (δ + margin))², rounded up. Raises `ConfigError` as
    `non_inferiority_power`, when `power` is outside (0, 1), and when true_difference <= −margin: then the student *is*
    inferior and no number of items may show otherwise.
    """
    if not 0.0 < power < 1.0:
        raise ConfigError(f"power {power!r} is not between 0 and 1", fix="give a share such as 0.9")
    spread = _spread(margin, true_difference, discordance)
    if true_difference <= -margin:
        raise _out_of_reach(true_difference, margin)
    width = two_sided_z(level) * spread.tested + NormalDist().inv_cdf(power) * spread.true
    items = max(1, math.ceil((max(0.0, width) / (true_difference + margin)) ** 2))
    # The formula and the power round differently; step to the exact boundary.
    while non_inferiority_power(items, margin, true_difference, discordance, level) < power:
        items += 1
    while items > 1 and non_inferiority_power(items - 1, margin, true_difference, discordance, level) >= power:
        items -= 1
    return items


def equivalence_power(n: int, margin: float, true_difference: float, discordance: float, level: float = 0.90) -> float:
    """Probability that `n` paired items give −margin < low and high < margin: Tango's interval at `level`, both sides.

    The two one-sided tests of Schuirmann (1987) fail on disjoint events, so the power is that of one side plus that of
    the other less 1, and 0 at least. A 90 % interval tests each side at 5 %. Raises as `non_inferiority_power`.
    """
    sides = (non_inferiority_power(n, margin, sign * true_difference, discordance, level) for sign in (1, -1))
    return max(0.0, sum(sides) - 1.0)


def equivalence_items_needed(
    power: float, margin: float, true_difference: float, discordance: float, level: float = 0.90
) -> int:
    """Smallest number of paired items whose `equivalence_power` is at least `power`.

    Raises `ConfigError` as `equivalence_power`, when `power` is outside (0, 1), and when |true_difference| >= margin.
    """
    if abs(true_difference) >= margin:
        raise _out_of_reach(true_difference, margin)
    return smallest(lambda n: equivalence_power(n, margin, true_difference, discordance, level), power)


def mcnemar_power(n: int, true_difference: float, discordance: float, level: float = 0.95) -> float:
    """Probability that `mcnemar_exact` on `n` paired items gives p <= 1 − level, by the distribution itself.

    Over the number m of discordant items, Binomial(n, discordance), times the chance that Binomial(m, (1 + δ/ψ)/2)
    falls in the test's two tails: the unconditional exact power of Duffy (1984), Biometrics 40:1005. Numbers m more than
    8 standard deviations and 10 away are left out. Raises `ConfigError` when n < 1, the level is outside (0, 1) or no two
    models differ so.
    """
    from scipy.special import bdtr, bdtrc, bdtrik, gammaln, xlog1py, xlogy

    check_level(level)
    if not 1 <= n < math.inf:
        raise ConfigError(f"{n!r} items", fix="ask for the power of at least one item")
    _check_pair(true_difference, discordance)
    reach = 8.0 * math.sqrt(n * discordance * (1.0 - discordance)) + 10.0
    m = np.arange(max(1, int(n * discordance - reach)), min(n, int(n * discordance + reach)) + 1)
    chance = np.exp(
        gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, discordance) + xlog1py(n - m, -discordance)
    )
    tail = (1.0 - level) / 2.0
    k = np.floor(bdtrik(tail, m, 0.5)) + 1.0  # one too many at most; brought back to the last k with P(X <= k) <= tail
    for _ in range(2):
        k = np.where((k >= 0) & (bdtr(np.maximum(k, 0.0), m, 0.5) > tail), k - 1.0, k)
    up = (1.0 + true_difference / discordance) / 2.0
    beyond = bdtr(np.maximum(k, 0.0), m, up) + bdtrc(m - np.maximum(k, 0.0) - 1.0, m, up)
    return float((chance * np.where(k >= 0, beyond, 0.0)).sum())


def mcnemar_items_needed(power: float, true_difference: float, discordance: float, level: float = 0.95) -> int:
    """A number of paired items whose `mcnemar_power` is at least `power`, and that of one item fewer is not.

    The power of a discrete test does not rise at every step: some larger number may fall short by a hair. Raises
    `ConfigError` as `mcnemar_power`, when `power` is outside (0, 1), and when the true difference is 0.
    """
    if true_difference == 0.0:
        raise ConfigError("a true difference of 0 is never found", fix="plan for a difference, or test equivalence")
    return smallest(lambda n: mcnemar_power(n, true_difference, discordance, level), power)


def smallest(power_at: Callable[[int], float], power: float, start: int = 1) -> int:
    """The n >= start with power_at(n) >= power > power_at(n − 1), found by doubling and halving.

    Raises `ConfigError` when `power` is outside (0, 1) or no n up to a thousand million is enough.
    """
    if not 0.0 < power < 1.0:
        raise ConfigError(f"power {power!r} is not between 0 and 1", fix="give a share such as 0.9")
    low, high = start - 1, start
    while power_at(high) < power:
        low, high = high, 2 * high
        if high > MOST_ITEMS:
            raise ConfigError(
                f"power {power!r} needs more than {MOST_ITEMS} items",
                fix="expect a smaller loss or declare a larger margin",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_at(middle) < power else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class _Spread:
    tested: float
    true: float


def _spread(margin: float, true_difference: float, discordance: float) -> _Spread:
    check_margin(margin)
    _check_pair(true_difference, discordance)
    only_first = (discordance + true_difference) / 2
    only_second = (discordance - true_difference) / 2
    # Swapped, so that the difference put to the test, −margin, is positive as `constrained_share` wants it.
    share = constrained_share(only_second, only_first, 1.0, margin)
    tested = 2 * share + margin * (1 - margin)
    return _Spread(math.sqrt(tested), math.sqrt(discordance - true_difference**2))


def _out_of_reach(true_difference: float, margin: float) -> ConfigError:
    return ConfigError(
        f"a true difference of {true_difference!r} is not within the margin {margin!r}",
        fix="expect a smaller loss or declare a larger margin",
    )


def _check_pair(true_difference: float, discordance: float) -> None:
    if not (abs(true_difference) <= discordance <= 1.0 and discordance > true_difference**2):
        raise ConfigError(
            f"no two models differ by {true_difference!r} while disagreeing on a share {discordance!r} of the items",
            fix="discordance is P(just one is right): above 0, at least |true_difference|, at most 1",
        )
