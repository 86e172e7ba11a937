"""Right and wrong answers that come in sessions: how many independent items they are worth, and the interval for that many.

Three regimes, by the effective number of items on the rarer side (of pairs: of items on which just one is right):

- from 20: score limits (Wilson's, of pairs Tango's) of the effective counts, Rao & Scott (1992), Biometrics 48:577;
- from 8 to 20: Clopper-Pearson limits of the effective counts, Korn & Graubard (1998), Surv. Methodol. 24:193 (of pairs the
  simultaneous ones of `exact.exact_paired`): they cover 95 % or more in simulations, without a proof;
- below, or where the spread between sessions cannot be judged: Hoeffding's limits over sessions, wide, and proved for any
  values between 0 and 1 in independent sessions.
"""

import math
from typing import NamedTuple

from tutelage.stats.columns import Floats
from tutelage.stats.exact import ENOUGH_DISCORDANT, beta_limits
from tutelage.stats.interval import two_sided_z, wilson_limits
from tutelage.stats.paired import tango_limits

ENOUGH_EFFECTIVE = float(
    ENOUGH_DISCORDANT
)  # effective items on the rarer side, from which score limits keep their level
FEWEST_EFFECTIVE = 8.0  # below, the design effect itself is too uncertain to divide by
MOST_STEPS = 100
_NEARLY_EQUAL = 0.75


class Limits(NamedTuple):
    """`method` says in words what was done."""

    low: float
    high: float
    method: str


class Spread(NamedTuple):
    """What sessions say of the precision of a mean: its standard error on `degrees` of freedom, of how many items, and each
    session's share of them. `known`: the sessions are enough to trust the standard error."""

    error: float
    degrees: float
    items: int
    share_G: Floats
    known: bool


def effective_items(variance: float, spread: Spread, level: float, most: float = math.inf) -> float:
    """Independent items that give a mean the same standard error, `most` at most: variance / error² (z / t)².

    `variance`: of one item, in the units of error². The last factor, with the normal quantile z and Student's t of
    `spread.degrees`, is Korn & Graubard's (1998) for the degrees of freedom. 0 where nothing varies: nothing is known.
    """
    from scipy.special import stdtrit

    if not spread.known or spread.error <= 0.0:
        return 0.0
    ratio = two_sided_z(level) / float(stdtrit(spread.degrees, (1.0 + level) / 2.0))
    return min(most, variance / spread.error**2) * ratio * ratio


def far_from_ends(share: float, spread: Spread, level: float) -> bool:
    """Do values between 0 and 1 vary so much less than 0/1 ones of this mean that their ends do not matter?"""
    n = effective_items(share * (1.0 - share), spread, level)
    return n > spread.items and n * min(share, 1.0 - share) >= ENOUGH_EFFECTIVE


def share_limits(share: float, spread: Spread, level: float, binary: bool) -> Limits:
    """Limits for the mean `share` of values between 0 and 1 in sessions, by the regimes above.

    `binary`: the values are 0 or 1, and so worth as many independent ones as there are at most. Other values of the same
    mean vary less than 0/1 ones and are counted by how much less.
    """
    n = effective_items(share * (1.0 - share), spread, level, spread.items if binary else math.inf)
    rarer = n * min(share, 1.0 - share)
    if rarer >= ENOUGH_EFFECTIVE:
        return Limits(*wilson_limits(share, n, two_sided_z(level)), f"Wilson score, {n:.0f} effective items")
    if rarer >= FEWEST_EFFECTIVE:
        return Limits(*beta_limits(n * share, n, (1.0 - level) / 2.0), f"Clopper-Pearson, {n:.0f} effective items")
    return hoeffding_limits(share, spread.share_G, level)


def pair_limits(first: float, second: float, spread: Spread, level: float) -> Limits:
    """Limits for P(only the first is right) − P(only the second is), from their shares, by the regimes above.

    `spread` is that of the mean difference. The two lower regimes give each share limits that hold with (1 + level)/2, so
    that both hold with `level` (Bonferroni), and subtract them crosswise.
    """
    variance = first + second - (first - second) ** 2
    n = effective_items(variance, spread, level, spread.items)
    if n * (first + second) >= ENOUGH_EFFECTIVE:
        limits = tango_limits(n * first, n * second, n, two_sided_z(level))
        return Limits(*limits, f"Tango score, {n:.0f} effective items")
    apart = (1.0 + level) / 2.0
    if n * (first + second) >= FEWEST_EFFECTIVE:
        n, tail = effective_items(variance, spread, apart, spread.items), (1.0 - apart) / 2.0
        (low_1, high_1), (low_2, high_2) = beta_limits(n * first, n, tail), beta_limits(n * second, n, tail)
        return Limits(low_1 - high_2, high_1 - low_2, f"simultaneous Clopper-Pearson, {n:.0f} effective items")
    one, two = (hoeffding_limits(share, spread.share_G, apart) for share in (first, second))
    return Limits(one.low - two.high, one.high - two.low, f"{one.method}, simultaneous")


def hoeffding_limits(mean: float, share_G: Floats, level: float) -> Limits:
    """Limits that cover at least `level` for the mean of any values between 0 and 1 in independent sessions.

    Hoeffding (1963), JASA 58:13. With h_g the sessions' shares of the items and c = ln(2/(1 − level)): theorem 2 gives
    mean ± √(c Σ h_g² / 2); theorem 1 the means μ with KL(mean, μ) <= c max h_g, which is nearer at the ends (all right in
    G equal sessions: μ >= ((1 − level)/2)^(1/G)). Theorem 1 holds for unequal sessions since each one's log moment
    generating function is convex in its share and concave in its mean. It is taken where sessions are nearly of one size:
    a choice by the sizes alone, never by the outcome.
    """
    cost = math.log(2.0 / (1.0 - level))
    largest, squares = float(share_G.max()), float((share_G**2).sum())
    if squares < _NEARLY_EQUAL * largest:
        half = math.sqrt(cost * squares / 2.0)
        return Limits(max(0.0, mean - half), min(1.0, mean + half), f"Hoeffding over {share_G.size} sessions")
    low, high = _lower_mean(mean, cost * largest), 1.0 - _lower_mean(1.0 - mean, cost * largest)
    return Limits(low, max(high, mean), f"Hoeffding (relative entropy) over {share_G.size} sessions")


def _lower_mean(mean: float, most: float) -> float:
    """The least μ <= mean with KL(mean, μ) <= most, KL that of Bernoulli variables in nats.

    −h − mean·u − (1 − mean) ln(1 − e^u), with u = ln μ and h the entropy, is convex in u: Newton's steps from the point
    where its first two terms are `most` stay below the root, and come to it in a few.
    """
    if mean <= 0.0:
        return 0.0
    wrong = 1.0 - mean
    entropy = -mean * math.log(mean) - (wrong * math.log(wrong) if wrong > 0.0 else 0.0)
    at = -(most + entropy) / mean
    for _ in range(MOST_STEPS):
        share = math.exp(at)
        over = -entropy - mean * at - (wrong * math.log1p(-share) if wrong > 0.0 else 0.0) - most
        slope = wrong * share / (1.0 - share) - mean if wrong > 0.0 else -mean
        following = at - over / slope if slope < 0.0 else at
        if not following > at * (1.0 - 1e-15):
            break
        at = following
    return min(mean, math.exp(at))
