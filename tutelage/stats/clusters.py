"""Means of items that come in sessions: items of one conversation or document are not independent of each other."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError
from tutelage.stats.columns import Floats, finite_column, paired_columns
from tutelage.stats.interval import Interval, check_level

FEWEST_SESSIONS = 10
FEWEST_DEGREES = 4.0
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    """A mean over items in sessions.

    `standard_error` is robust to dependence within a session, on `degrees` of freedom; `correlation` is the estimated
    share of the variance that lies between sessions, 0 to 1; `design_effect` is the variance over that of as many
    independent items: the items are worth n / design_effect. `interval` says by which method it was made.
    """

    mean: float
    standard_error: float
    degrees: float
    sessions: int
    correlation: float
    design_effect: float
    interval: Interval


def clustered_mean(
    values_N: ArrayLike, session_N: ArrayLike, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> ClusteredMean:
    """The mean of `values_N` with an interval that knows items of one session to be alike; sessions are independent.

    Cluster-robust standard error (Miller 2024, arXiv:2411.00640, section 2.2, for evaluations) with the CR2 correction
    for few sessions: √(Σ_g s_g² / (1 − n_g/N)) / N, s_g the sum of the residuals of session g with n_g items; Bell &
    McCaffrey (2002), Surv. Methodol. 28:169. Its t interval has Satterthwaite degrees of freedom under the estimated
    correlation within sessions: Imbens & Kolesár (2016), Rev. Econ. Stat. 98:701, section 3.3. With sessions of one size
    that is CR1 with sessions − 1 degrees.

    With fewer than 10 sessions, or under 4 degrees (one session holds most of the items), t intervals of lopsided outcomes
    cover far less than they say (84 % instead of 95 with five sessions). Then, if `bounds` holds the least and the greatest
    value possible, the interval is Hoeffding's over sessions, mean ± (high − low) √(ln(2/(1 − level)) Σ_g (n_g/N)² / 2):
    Hoeffding (1963), JASA 58:13, theorem 2; wide, and valid for any such values in independent sessions. Without `bounds`
    it is refused. Between 10 and 20 sessions, strong dependence (correlation 0.4) of 0/1 outcomes still costs some points.

    `values_N`: a finite number an item; `session_N`: strings or whole numbers. Raises `DataError` when there is no item
    or a value is not finite or outside `bounds`, with fewer than two sessions, and without bounds when the
    sessions are too few or nothing varies; `ConfigError` for a wrong level or bounds.
    """
    check_level(level)
    values = finite_column(values_N, "values", least=2)
    _check_bounds(values, bounds)
    size_G, sum_G, within = _sessions(values, session_N)
    mean, items = float(values.mean()), values.size
    share_G, residual_G = size_G / items, sum_G - size_G * mean
    # A residual that is rounding only is none: a session of equal values at the mean, or sums that cancel.
    noise = _ROUNDING * float(np.abs(values).sum())
    error = math.sqrt(float((residual_G**2 / (1.0 - share_G)).sum())) / items
    if float(np.abs(residual_G).max()) <= noise:
        error = 0.0
    correlation = _correlation(size_G, sum_G, within, mean)
    degrees = _degrees(size_G, share_G, correlation)
    interval = _interval(mean, error, degrees, share_G, items, level, bounds)
    independent = float(values.var(ddof=1)) / items
    effect = error * error / independent if independent > 0.0 else 1.0
    return ClusteredMean(mean, error, degrees, size_G.size, correlation, effect, interval)


def clustered_difference(
    first_N: ArrayLike,
    second_N: ArrayLike,
    session_N: ArrayLike,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> ClusteredMean:
    """Mean of first − second on the same items in sessions: `clustered_mean` of the differences.

    `bounds` are those of the two columns; the differences lie in ±(high − low). Raises as `clustered_mean`, and
    `DataError` when the columns have not the same items.
    """
    first, second = paired_columns(first_N, second_N, least=2)
    reach = None
    if bounds is not None:
        _check_bounds(first, bounds)
        _check_bounds(second, bounds)
        reach = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return clustered_mean(first - second, session_N, level, reach)


def _interval(
    mean: float,
    error: float,
    degrees: float,
    share_G: Floats,
    items: int,
    level: float,
    bounds: tuple[float, float] | None,
) -> Interval:
    from scipy.special import stdtrit

    sessions = share_G.size
    if sessions >= FEWEST_SESSIONS and degrees >= FEWEST_DEGREES and error > 0.0:
        half = float(stdtrit(degrees, (1.0 + level) / 2.0)) * error
        method = f"cluster-robust t (CR2), {sessions} sessions, {degrees:.1f} degrees"
        return Interval(mean - half, mean + half, level, method, items)
    if bounds is None:
        raise DataError(
            f"{sessions} sessions give {degrees:.1f} degrees of freedom and standard error {error!r}",
            fix="add sessions, or give the least and greatest value possible as bounds for a wide interval that holds",
        )
    half = (bounds[1] - bounds[0]) * math.sqrt(math.log(2.0 / (1.0 - level)) * float((share_G**2).sum()) / 2.0)
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Interval(low, high, level, f"Hoeffding over {sessions} sessions", items)


class _Sessions(NamedTuple):
    size_G: Floats
    sum_G: Floats
    within: float  # sum of squares about the sessions' means


def _sessions(values: Floats, session_N: ArrayLike) -> _Sessions:
    session = np.asarray(session_N)
    if session.shape != values.shape or session.dtype.kind not in "iuUS":
        raise DataError(
            f"sessions of shape {session.shape} and type {session.dtype} for {values.size} items",
            fix="name every item's session by a string or a whole number",
        )
    names, index_N = np.unique(session, return_inverse=True)
    if names.size < 2:
        raise DataError(
            f"all {values.size} items are of one session {names[0].item()!r}",
            fix="within one session nothing says how sessions differ: add sessions",
        )
    size_G = np.bincount(index_N).astype(np.float64)
    sum_G = np.bincount(index_N, weights=values).astype(np.float64)
    within = float(((values - (sum_G / size_G)[index_N]) ** 2).sum())
    return _Sessions(size_G, sum_G, within)


def _correlation(size_G: Floats, sum_G: Floats, within: float, mean: float) -> float:
    """Share of variance between sessions by analysis of variance: Donner (1986), Int. Stat. Rev. 54:67; 0 at least."""
    sessions, items = size_G.size, float(size_G.sum())
    if items == sessions:
        return 0.0  # one item a session: nothing to see, and no difference to the interval
    typical = (items - float((size_G**2).sum()) / items) / (sessions - 1)
    between = float((size_G * (sum_G / size_G - mean) ** 2).sum()) / (sessions - 1)
    inside = within / (items - sessions)
    over = max(0.0, (between - inside) / typical)
    return over / (over + inside) if over + inside > 0.0 else 0.0


def _degrees(size_G: Floats, share_G: Floats, correlation: float) -> float:
    """(tr C)² / ‖C‖², C the covariance of the corrected residual sums under equal correlation within sessions.

    C_gk = √(w_g w_k) (v_g [g = k] − h_g v_k − v_g h_k + V h_g h_k), with h the shares, w = 1/(1 − h), v_g the variance of
    the sum of session g and V their total; the sums over g, k are expanded so that nothing of size sessions² is made.
    """
    h, w = share_G, 1.0 / (1.0 - share_G)
    v = size_G * (1.0 + correlation * (size_G - 1.0))
    total = float(v.sum())
    off = total * h * h - 2.0 * h * v  # the diagonal of what is taken off
    hh, vv, hv = float((w * h * h).sum()), float((w * v * v).sum()), float((w * h * v).sum())
    squares = float((w * w * ((v + off) ** 2 - off * off)).sum())
    squares += 2.0 * hh * vv + 2.0 * hv * hv + total * total * hh * hh - 4.0 * total * hh * hv
    return float((w * (v + off)).sum()) ** 2 / squares


def _check_bounds(values: Floats, bounds: tuple[float, float] | None) -> None:
    if bounds is None:
        return
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"bounds {bounds!r}", fix="give the least and the greatest value possible, such as (0, 1)")
    if (wrong := values[(values < low) | (values > high)]).size:
        raise DataError(
            f"value {float(wrong[0])!r} is outside the bounds {bounds!r}", fix="mend the bounds or the value"
        )
