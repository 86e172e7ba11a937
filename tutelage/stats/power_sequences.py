"""How many items a claim that is looked at after every item needs, said before looking."""

import math

import numpy as np

from tutelage.errors import ConfigError
from tutelage.stats.columns import Floats
from tutelage.stats.interval import check_level
from tutelage.stats.power import smallest
from tutelage.stats.sequences import MOST_BET

MOST_NODES = 300  # looks at which the chance of a first success is worked out; between them it is smooth
MOST_ITEMS = 2_000_000
OVERSHOOT = (
    0.5826  # how far a walk of normal steps is beyond a limit when it crosses it, on average, in deviations of a step
)


def sequence_power(
    items: int,
    true_difference: float,
    deviation: float,
    margin: float = 0.0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Probability that `difference_sequence` has shown low > −margin after some look at `items` items or fewer.

    `deviation`: standard deviation of one item's difference (of right and wrong answers √(ψ − δ²), ψ the discordance);
    `bounds`: those of the two columns, whose differences lie in ±(high − low). The bets are replaced by what they are on
    average; then the lower limit rises above −margin when a sum of independent terms crosses a curve, and the chance that
    it has done so by `items` is the first-passage probability of Brownian motion: the integral equation of Buonocore,
    Nobile & Ricciardi (1987), Adv. Appl. Probab. 19:784, solved by the trapezoidal rule, good to a hundredth. The curve is
    raised by 0.5826 standard deviations of a step, since one looks after whole items only: Siegmund (1985), Sequential
    Analysis, chapter X.

    Raises `ConfigError` when items are not in 2 to 2,000,000, or the difference, deviation, margin, level or bounds out of
    their range.
    """
    check_level(level)
    if not 2 <= items <= MOST_ITEMS:
        raise ConfigError(f"{items!r} items", fix=f"plan 2 to {MOST_ITEMS} items")
    reach = bounds[1] - bounds[0]
    if not 0.0 < reach < math.inf:
        raise ConfigError(f"bounds {bounds!r}", fix="give the least and the greatest value possible, such as (0, 1)")
    if not abs(true_difference) < reach or not 0.0 < deviation <= math.sqrt(reach**2 - true_difference**2):
        raise ConfigError(
            f"a true difference of {true_difference!r} with deviation {deviation!r} within ±{reach!r}",
            fix="give what one item's difference may have: |difference| below the reach, difference² + deviation² within it",
        )
    if not 0.0 <= margin < reach:
        raise ConfigError(
            f"margin {margin!r} is not in [0, {reach!r})",
            fix="give the largest acceptable loss as a positive number (0.03, not -0.03), or 0 to show an advantage",
        )
    mean, spread = (true_difference / reach + 1.0) / 2.0, deviation / reach / 2.0
    target = (1.0 - margin / reach) / 2.0
    time_T, curve_T = _average_path(items, mean, spread, target, level)
    node_K = np.unique(np.geomspace(1, items, min(items, MOST_NODES)).round().astype(np.int64)) - 1
    return _first_passage(time_T[node_K], curve_T[node_K])


def sequence_items_needed(
    power: float,
    true_difference: float,
    deviation: float,
    margin: float = 0.0,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> int:
    """Smallest number of items whose `sequence_power` is at least `power`. Raises as it, and when out of reach."""
    if true_difference <= -margin:
        raise ConfigError(
            f"a true difference of {true_difference!r} is not above minus the margin {margin!r}",
            fix="expect a smaller loss or declare a larger margin",
        )
    if sequence_power(MOST_ITEMS, true_difference, deviation, margin, level, bounds) < power:
        raise ConfigError(
            f"power {power!r} needs more than {MOST_ITEMS} items",
            fix="expect a smaller loss or declare a larger margin",
        )
    return smallest(
        lambda n: sequence_power(min(n, MOST_ITEMS), true_difference, deviation, margin, level, bounds), power, start=2
    )


def _average_path(items: int, mean: float, spread: float, target: float, level: float) -> tuple[Floats, Floats]:
    """Variance of Σ λ_i (x_i − mean) after each item, and what the sum must exceed for the lower limit to pass `target`.

    With the bets of `confidence_sequence` at the expected running mean and variance, on values in [0, 1].
    """
    item_T = np.arange(1, items + 1, dtype=np.float64)
    cost = math.log(2.0 / (1.0 - level))
    after_T = (0.5 + item_T * mean) / (item_T + 1.0)  # running mean, this item included
    share_T = item_T / (item_T + 1.0)
    away_T = spread**2 * (share_T**2 + share_T / (item_T + 1.0)) + (mean - after_T) ** 2
    variance_T = (0.25 + np.cumsum(away_T)) / (item_T + 1.0)
    before_T, spread_T = np.append(0.5, after_T[:-1]), np.append(0.25, variance_T[:-1])
    bet_T = np.minimum(MOST_BET, np.sqrt(2.0 * cost / (spread_T * item_T * np.log1p(item_T))))
    squares_T = spread**2 * (1.0 + (item_T - 1.0) / item_T**2) + (mean - before_T) ** 2
    paid_T = np.cumsum(squares_T * (-np.log1p(-bet_T) - bet_T))
    curve_T = cost + paid_T + (target - mean) * np.cumsum(bet_T) + OVERSHOOT * spread * bet_T
    return spread**2 * np.cumsum(bet_T**2), curve_T


def _first_passage(time_K: Floats, curve_K: Floats) -> float:
    """P(Brownian motion from 0 crosses the curve from below by the last time), the curve starting above 0."""
    if curve_K[0] <= 0.0:
        return 1.0
    slope_K = np.gradient(curve_K, time_K) if time_K.size > 1 else np.zeros(1)
    width_K = np.diff(time_K, prepend=0.0)
    weight_K = (width_K + np.append(width_K[1:], 0.0)) / 2.0
    density_K = np.zeros(time_K.size)
    for at, (time, curve, slope) in enumerate(zip(time_K, curve_K, slope_K, strict=True)):
        direct = _density(curve, time) * (curve / time - slope)
        gone, rise = time - time_K[:at], curve - curve_K[:at]
        again = (weight_K[:at] * density_K[:at] * _density(rise, gone) * (slope - rise / gone)).sum()
        density_K[at] = max(0.0, direct + again)
    return min(1.0, float((weight_K * density_K).sum()))


def _density(distance: Floats | float, variance: Floats | float) -> Floats:
    return np.exp(-np.square(distance) / (2.0 * variance)) / np.sqrt(2.0 * math.pi * variance)
