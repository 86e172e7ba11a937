"""How many held-out items a non-inferiority claim needs, said before looking.

Power of the paired score test (Tango 1998; the same test and this normal approximation: Nam (1997), Biometrics 53:1422)
that the lower limit of a two-sided `level` interval for p_first − p_second lies above −margin:

    power = Φ( (√n (δ + margin) − z σ0) / σ1 )
    σ1² = ψ − δ²                       variance of one item's difference in truth
    σ0² = 2q − margin (1 + margin)     the same as the test estimates it, at the limit of the constrained estimate q

with δ the true difference, ψ the discordance P(just one of the two is right), and z the (1 + level)/2 quantile.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from tutelage.errors import ConfigError
from tutelage.stats.equivalence import check_margin
from tutelage.stats.interval import two_sided_z
from tutelage.stats.paired import constrained_share


def non_inferiority_power(
    n: int, margin: float, true_difference: float, discordance: float, level: float = 0.95
) -> float:
    """Probability that `n` paired items give low > −margin. All arguments but `n` are proportions.

    Raises `ConfigError` when n < 1, the margin or level is outside (0, 1), or no such pair of models exists
    (discordance must lie between |true_difference| and 1, and above 0).
    """
    if n < 1:
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
        raise ConfigError(
            f"a true difference of {true_difference!r} is not within the margin {margin!r}",
            fix="expect a smaller loss or declare a larger margin",
        )
    width = two_sided_z(level) * spread.tested + NormalDist().inv_cdf(power) * spread.true
    items = max(1, math.ceil((max(0.0, width) / (true_difference + margin)) ** 2))
    # The formula and the power round differently; step to the exact boundary.
    while non_inferiority_power(items, margin, true_difference, discordance, level) < power:
        items += 1
    while items > 1 and non_inferiority_power(items - 1, margin, true_difference, discordance, level) >= power:
        items -= 1
    return items


@dataclass(frozen=True, slots=True)
class _Spread:
    tested: float
    true: float


def _spread(margin: float, true_difference: float, discordance: float) -> _Spread:
    check_margin(margin)
    if not (abs(true_difference) <= discordance <= 1.0 and discordance > true_difference**2):
        raise ConfigError(
            f"no two models differ by {true_difference!r} while disagreeing on a share {discordance!r} of the items",
            fix="discordance is P(just one is right): above 0, at least |true_difference|, at most 1",
        )
    only_first = (discordance + true_difference) / 2
    only_second = (discordance - true_difference) / 2
    # Swapped, so that the difference put to the test, −margin, is positive as `constrained_share` wants it.
    share = constrained_share(only_second, only_first, 1.0, margin)
    tested = 2 * share + margin * (1 - margin)
    return _Spread(math.sqrt(tested), math.sqrt(discordance - true_difference**2))
