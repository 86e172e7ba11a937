"""Means of items that come in sessions: items of one conversation or document are not independent of each other."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tutelage.errors import ConfigError, DataError
from tutelage.stats.columns import Floats, finite_column, paired_columns
from tutelage.stats.effective import Limits, Spread, far_from_ends, pair_limits, share_limits
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

    That t interval is for scores far from their ends. Right or wrong answers (all values 0 or 1), and values near the least
    or greatest possible value that `bounds` gives, are lopsided: with 10 sessions, 80 % right and a correlation of 0.4 it
    covers 89 % instead of 95. They get limits made for shares (module `effective`), chosen by how many independent items
    the sessions are worth: Wilson's, Clopper-Pearson's, or Hoeffding's over sessions, which hold with few sessions too.
    Scores that are lopsided away from their ends (nearly all alike, a few far off) need many sessions with each.

    With fewer than 10 sessions, or under 4 degrees (one session holds most of the items), the standard error says little:
    known bounds give Hoeffding's limits, wide, and valid for any such values in independent sessions; without, the interval
    is refused.

    `values_N`: a finite number an item; `session_N`: strings or whole numbers. Raises `DataError` when there is no item
    or a value is not finite or outside `bounds`, with fewer than two sessions, and without bounds when the
    sessions are too few or nothing varies; `ConfigError` for a wrong level or bounds.
    """
    check_level(level)
    values = finite_column(values_N, "values", least=2)
    _check_bounds(values, bounds)
    if bounds is None and _binary(values, (0.0, 1.0)):
        bounds = (0.0, 1.0)
    found = _found(values, session_N)
    if bounds is None:
        return found.result(_t_interval(found, level))
    low, reach, binary = bounds[0], bounds[1] - bounds[0], _binary(values, bounds)
    share, spread = min(1.0, max(0.0, (found.mean - low) / reach)), found.spread(1.0 / reach)
    if not binary and far_from_ends(share, spread, level):
        return found.result(_t_interval(found, level))
    return found.result(_interval(found, share_limits(share, spread, level, binary), low, reach, level))


def clustered_difference(
    first_N: ArrayLike,
    second_N: ArrayLike,
    session_N: ArrayLike,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> ClusteredMean:
    """Mean of first − second on the same items in sessions: `clustered_mean` of the differences.

    Two columns of right and wrong answers (all values 0 or 1) get limits made for pairs instead: Tango's, simultaneous
    Clopper-Pearson's or simultaneous Hoeffding's over sessions, by how many independent discordant items the sessions are
    worth (module `effective`). `bounds` are those of the two columns; the differences lie in ±(high − low). Raises as
    `clustered_mean`, and `DataError` when the columns have not the same items.
    """
    check_level(level)
    first, second = paired_columns(first_N, second_N, least=2)
    for values in (first, second):
        _check_bounds(values, bounds)
    low, high = bounds or (0.0, 1.0)
    if not (_binary(first, (low, high)) and _binary(second, (low, high))):
        return clustered_mean(first - second, session_N, level, bounds and (low - high, high - low))
    found = _found(first - second, session_N)
    only_first, only_second = float((first > second).mean()), float((second > first).mean())
    limits = pair_limits(only_first, only_second, found.spread(1.0 / (high - low)), level)
    return found.result(_interval(found, limits, 0.0, high - low, level))


def session_sums(values_NK: Floats, session_N: ArrayLike) -> Floats:
    """Sums (G, K) of N items' K values in each of G sessions, in the order of the sessions' names: the rows to resample where
    sessions are independent and their items are not. Raises `DataError` when not every item has its session."""
    session = np.asarray(session_N)
    if session.shape != values_NK.shape[:1]:
        raise DataError(
            f"sessions of shape {session.shape} for {len(values_NK)} items", fix="name every item's session"
        )
    names, index_N = np.unique(session, return_inverse=True)
    sums_GK = np.zeros((names.size, values_NK.shape[1]))
    np.add.at(sums_GK, index_N, values_NK)
    return sums_GK


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything but the interval."""

    mean: float
    error: float
    degrees: float
    correlation: float
    effect: float
    share_G: Floats
    items: int

    @property
    def known(self) -> bool:
        return self.share_G.size >= FEWEST_SESSIONS and self.degrees >= FEWEST_DEGREES and self.error > 0.0

    def spread(self, unit: float) -> Spread:
        """`unit`: what one unit of the values is among those brought to [0, 1]."""
        return Spread(self.error * unit, self.degrees, self.items, self.share_G, self.known)

    def result(self, interval: Interval) -> ClusteredMean:
        sessions = self.share_G.size
        return ClusteredMean(self.mean, self.error, self.degrees, sessions, self.correlation, self.effect, interval)


def _found(values: Floats, session_N: ArrayLike) -> _Found:
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
    independent = float(values.var(ddof=1)) / items
    effect = error * error / independent if independent > 0.0 else 1.0
    return _Found(mean, error, degrees, correlation, effect, share_G, items)


def _t_interval(found: _Found, level: float) -> Interval:
    from scipy.special import stdtrit

    sessions = found.share_G.size
    if not found.known:
        raise DataError(
            f"{sessions} sessions give {found.degrees:.1f} degrees of freedom and standard error {found.error!r}",
            fix="add sessions, or give the least and greatest value possible as bounds for a wide interval that holds",
        )
    half = float(stdtrit(found.degrees, (1.0 + level) / 2.0)) * found.error
    method = f"cluster-robust t (CR2), {sessions} sessions, {found.degrees:.1f} degrees"
    return Interval(found.mean - half, found.mean + half, level, method, found.items)


def _interval(found: _Found, limits: Limits, start: float, unit: float, level: float) -> Interval:
    """Limits of values brought to [0, 1] (start 0 and unit 1 there) in the values' own units, never short of the mean."""
    low, high = start + unit * limits.low, start + unit * limits.high
    sessions = f" of {found.share_G.size} sessions" if "effective" in limits.method else ""
    return Interval(min(low, found.mean), max(high, found.mean), level, limits.method + sessions, found.items)


def _binary(values: Floats, ends: tuple[float, float]) -> bool:
    return bool(((values == ends[0]) | (values == ends[1])).all())


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
