"""How many sessions or gold labels a claim on a mean difference needs, said before looking.

Both tests ask whether the lower limit of a Student t interval for student − teacher lies above −margin (a margin of 0
asks whether the student is better). With standard error e and f degrees of freedom, T' noncentral t with f degrees and
noncentrality (δ + margin)/e, and t the (1 + level)/2 quantile, the power is P(T' > t).
"""

import math

from tutelage.errors import ConfigError
from tutelage.stats.interval import check_level
from tutelage.stats.power import smallest
from tutelage.stats.ppi import FEWEST_GOLD


def design_effect(per_session: float, correlation: float) -> float:
    """How many times the variance of as many independent items their mean has, in sessions of `per_session` items that are
    alike by `correlation` (0 to 1): Kish (1965), Survey Sampling, section 5.4."""
    return 1.0 + (per_session - 1.0) * correlation


def clustered_power(
    sessions: int,
    per_session: float,
    true_difference: float,
    deviation: float,
    correlation: float,
    margin: float = 0.0,
    level: float = 0.95,
) -> float:
    """Probability that `clustered_difference` on `sessions` of `per_session` items each gives low > −margin.

    Variance of the mean: deviation² · `design_effect` / items; sessions − 1 degrees. Sessions are of one size; uneven ones
    need about 1 + (deviation of the size / mean size)² times as many. `deviation`: standard deviation of one item's difference;
    `correlation` of differences within a session, 0 to 1. Raises `ConfigError` with fewer than two sessions or one item
    a session, and for a deviation, correlation, margin or level out of its range.
    """
    if not 2 <= sessions < math.inf or not 1.0 <= per_session < math.inf:
        raise ConfigError(
            f"{sessions!r} sessions of {per_session!r} items", fix="plan two sessions or more, of one item"
        )
    if not 0.0 <= correlation <= 1.0:
        raise ConfigError(f"correlation {correlation!r} within sessions", fix="give a share from 0 to 1, such as 0.1")
    effect = design_effect(per_session, correlation)
    error = _deviation(deviation) * math.sqrt(effect / (sessions * per_session))
    return _power(true_difference, margin, error, sessions - 1, level)


def clustered_sessions_needed(
    power: float,
    per_session: float,
    true_difference: float,
    deviation: float,
    correlation: float,
    margin: float = 0.0,
    level: float = 0.95,
) -> int:
    """Smallest number of sessions whose `clustered_power` is at least `power`. Raises as it, and when out of reach."""
    _check_reach(true_difference, margin)
    return smallest(
        lambda n: clustered_power(n, per_session, true_difference, deviation, correlation, margin, level),
        power,
        start=2,
    )


def sign_flip_power(items: int, true_difference: float, deviation: float, level: float = 0.95) -> float:
    """Probability that `paired_permutation` on `items` differences gives p <= 1 − level, on either side.

    Flipping signs has the power of Student's two-sided t test where the differences are many or near normal (Hoeffding
    (1952), Ann. Math. Stat. 23:169): noncentral t with items − 1 degrees. For right and wrong answers use `mcnemar_power`,
    which is exact; for sessions give their number, and difference and deviation of the sessions' sums. Raises
    `ConfigError` with fewer than six items (no pattern of five can give p <= 0.05), and as `clustered_power`.
    """
    if not 6 <= items < math.inf:
        raise ConfigError(f"{items!r} items", fix="plan six differences or more")
    error = _deviation(deviation) / math.sqrt(items)
    sides = (_power(sign * true_difference, 0.0, error, items - 1, level) for sign in (1.0, -1.0))
    return min(1.0, sum(sides))


def sign_flip_items_needed(power: float, true_difference: float, deviation: float, level: float = 0.95) -> int:
    """Smallest number of items whose `sign_flip_power` is at least `power`. Raises as it, and when the difference is 0."""
    if true_difference == 0.0:
        raise ConfigError("a true difference of 0 is never found", fix="plan for a difference, or test equivalence")
    return smallest(lambda n: sign_flip_power(n, true_difference, deviation, level), power, start=6)


def ppi_power(
    gold: int,
    cheap: int,
    true_difference: float,
    deviation: float,
    correlation: float,
    margin: float = 0.0,
    level: float = 0.95,
) -> float:
    """Probability that `ppi.ppi_mean` of differences with `gold` labels and `cheap` other items gives low > −margin.

    Variance of the mean: deviation² (1 − correlation² cheap/(gold + cheap)) / gold: Angelopoulos, Duchi & Zrnic (2023),
    example 6.1 at its best weight; gold − 2 degrees. `deviation` of one item's gold difference, `correlation` of gold and
    cheap differences (a negative one counts as 0: its weight is 0). Raises `ConfigError` with fewer than 30 gold or 2
    cheap labels, and for a deviation, correlation, margin or level out of its range.
    """
    if not (FEWEST_GOLD <= gold < math.inf and 2 <= cheap < math.inf):
        raise ConfigError(
            f"{gold!r} gold and {cheap!r} cheap labels", fix=f"plan at least {FEWEST_GOLD} gold labels and 2 cheap ones"
        )
    if not -1.0 <= correlation <= 1.0:
        raise ConfigError(
            f"correlation {correlation!r} of gold and cheap", fix="give a number from -1 to 1, such as 0.8"
        )
    rest = 1.0 - max(0.0, correlation) ** 2 * cheap / (gold + cheap)
    return _power(true_difference, margin, _deviation(deviation) * math.sqrt(rest / gold), gold - 2, level)


def ppi_gold_needed(
    power: float,
    cheap: int,
    true_difference: float,
    deviation: float,
    correlation: float,
    margin: float = 0.0,
    level: float = 0.95,
) -> int:
    """Smallest number of gold labels whose `ppi_power` is at least `power`. Raises as it, and when out of reach."""
    _check_reach(true_difference, margin)
    return smallest(
        lambda n: ppi_power(n, cheap, true_difference, deviation, correlation, margin, level), power, start=FEWEST_GOLD
    )


def _power(true_difference: float, margin: float, error: float, degrees: int, level: float) -> float:
    from scipy.special import nctdtr, stdtrit

    check_level(level)
    _check_margin(margin)
    if not math.isfinite(true_difference):
        raise ConfigError(f"a true difference of {true_difference!r}", fix="give a finite number")
    critical = stdtrit(degrees, (1.0 + level) / 2.0)
    return 1.0 - float(nctdtr(degrees, (true_difference + margin) / error, critical))


def _check_margin(margin: float) -> None:
    if not 0.0 <= margin < math.inf:
        raise ConfigError(
            f"margin {margin!r} is below 0 or not finite",
            fix="give the largest acceptable loss as a positive number (0.03, not -0.03), or 0 to show an advantage",
        )


def _check_reach(true_difference: float, margin: float) -> None:
    _check_margin(margin)
    if true_difference <= -margin:
        raise ConfigError(
            f"a true difference of {true_difference!r} is not above minus the margin {margin!r}",
            fix="expect a smaller loss or declare a larger margin",
        )


def _deviation(deviation: float) -> float:
    if not 0.0 < deviation < math.inf:
        raise ConfigError(f"standard deviation {deviation!r}", fix="give a finite number above 0, in the score's units")
    return deviation
