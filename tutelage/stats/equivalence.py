"""Decisions by interval inclusion. The difference is always student − teacher, in proportions."""

from tutelage.errors import ConfigError
from tutelage.records import Decision
from tutelage.stats.interval import Interval


def non_inferiority(interval: Interval, margin: float) -> Decision:
    """Is the student worse by less than `margin`? Read from an interval for student − teacher.

    NON-INFERIOR when low > −margin, INFERIOR when high < −margin, else INCONCLUSIVE: Piaggio et al. (2012), JAMA
    308:2594, figure 1. A two-sided `level` interval tests one-sided at (1 − level) / 2. `margin` is a positive
    proportion (0.03 for three points); raises `ConfigError` otherwise.
    """
    check_margin(margin)
    if interval.low > -margin:
        return Decision.NON_INFERIOR
    if interval.high < -margin:
        return Decision.INFERIOR
    return Decision.INCONCLUSIVE


def equivalence(interval: Interval, margin: float) -> Decision:
    """Do student and teacher differ by less than `margin`, either way? Read from an interval for student − teacher.

    EQUIVALENT when −margin < low and high < margin: the two one-sided tests of Schuirmann (1987), J. Pharmacokinet.
    Biopharm. 15:657, each at (1 − level) / 2 (a 90 % interval tests at 5 %). INFERIOR when high < −margin. An interval
    wholly above +margin is NON-INFERIOR: better, and so not equivalent. Else INCONCLUSIVE. Raises `ConfigError` unless
    0 < margin < 1.
    """
    check_margin(margin)
    if -margin < interval.low and interval.high < margin:
        return Decision.EQUIVALENT
    if interval.high < -margin:
        return Decision.INFERIOR
    if interval.low > margin:
        return Decision.NON_INFERIOR
    return Decision.INCONCLUSIVE


def verdict(interval: Interval, margin: float) -> Decision:
    """The strongest of the four that an interval for student − teacher shows.

    EQUIVALENT when it lies within ±margin, else NON-INFERIOR when low > −margin, INFERIOR when high < −margin, else
    INCONCLUSIVE. All are read from one interval, so choosing the strongest costs nothing: when the interval holds the
    truth, whichever is said is true. Raises `ConfigError` unless 0 < margin < 1.
    """
    decision = equivalence(interval, margin)
    return non_inferiority(interval, margin) if decision is Decision.INCONCLUSIVE else decision


def check_margin(margin: float) -> None:
    """Raises `ConfigError` unless `margin` is a proportion strictly between 0 and 1."""
    if not 0.0 < margin < 1.0:
        raise ConfigError(
            f"margin {margin!r} is not between 0 and 1",
            fix="give the largest acceptable loss as a positive proportion: 0.03 for three points, not -0.03 and not 3",
        )
