"""From a judge's calls to evidence: the student's win rate with its interval, and what it means at the margin.

Shape legend: N items.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError, DataError
from tutelage.prove.judges.calls import Call, Items, JudgeCalls, majority
from tutelage.prove.judges.family import Kin
from tutelage.prove.judges.gate import LEVEL, Gate, is_usable
from tutelage.prove.judges.panel import Tally, figures, outcomes, tally
from tutelage.records import Decision
from tutelage.stats.clusters import clustered_mean
from tutelage.stats.equivalence import check_margin, verdict
from tutelage.stats.exact import exact_paired
from tutelage.stats.interval import Interval, check_level
from tutelage.stats.multiple import holm
from tutelage.stats.outcomes import EVEN, judged_win_rate, win_rate
from tutelage.stats.paired import PairedTable

_FARTHEST = 0.5  # a win rate less one half
_HALVINGS = 40
IntervalAt = Callable[[float], Interval]


class Claimed(NamedTuple):
    """One judge's verdict, and the interval it rests on at any level (None: no verdict is possible)."""

    evidence: dict[str, Any]
    interval_at: IntervalAt | None


def panel_evidence(
    items: Items, judges: Sequence[JudgeCalls], margin: float, level: float, kin: Mapping[str, Kin] | None = None
) -> dict[str, Any]:
    """Evidence of every judge alone, and of the majority where there are two or more, as plain JSON values.

    `kin`, by the name of the judge, is what is known of its model's kinship with those compared; the majority warns of every
    judge's. With several claims each carries `together`: what is left of its verdict after Holm's correction over all of
    them, each side's claims (no worse than the margin, and worse than it) corrected among themselves. Whoever reads one
    claim alone must have named it before looking. Raises `ConfigError` for a wrong margin or level or two judges of one
    name, `DataError` when judges and items do not fit or there is no judge.
    """
    names = [judge.name for judge in judges]
    if not judges:
        raise DataError("no judge", fix="name at least one judge model")
    if len(set(names)) != len(names):
        raise ConfigError(f"judges {names!r}", fix="name each judge once")
    claims = [claim_of(items, judge, margin, level) for judge in judges]
    for judge, claim in zip(judges, claims, strict=True):
        own = (kin or {}).get(judge.name, Kin(frozenset(), ()))
        claim.evidence["families"] = sorted(own.families)
        claim.evidence["self_preference"] = list(own.warnings)
    if len(judges) > 1:
        together = claim_of(items, majority(judges), margin, level)
        warned = [f"{one.evidence['judge']}: {words}" for one in claims for words in one.evidence["self_preference"]]
        together.evidence["self_preference"] = warned
        claims.append(together)
        _correct_together(claims, margin, level)
    alone = [claim.evidence for claim in claims]
    return {"judges": alone[: len(judges)], "majority": alone[-1] if len(judges) > 1 else None}


def judge_evidence(items: Items, judge: JudgeCalls, margin: float, level: float) -> dict[str, Any]:
    """Evidence of one judge, as plain JSON values: figures, gate, win rate, interval, verdict. Raises as `panel_evidence`."""
    return claim_of(items, judge, margin, level).evidence


def claim_of(items: Items, judge: JudgeCalls, margin: float, level: float) -> Claimed:
    """`judge_evidence`, with the interval at any level for corrections."""
    check_margin(margin)
    check_level(level)
    counts, gate = tally(items, judge), is_usable(items, judge)
    interval_at, found = None, None
    reasons = list(gate.reasons)
    if gate.is_usable:
        interval_at = _interval_at(items, judge, gate)
        try:
            found = interval_at(level)
        except DataError as error:  # too few sessions, or gold that does not vary: said in words
            interval_at = None
            reasons.append(f"no interval: {error.message}")
    decision = Decision.INCONCLUSIVE if found is None else verdict(found, margin)
    evidence: dict[str, Any] = {
        "judge": judge.name,
        "n": items.n,
        **figures(items, judge, level),
        "gate": {"is_usable": gate.is_usable, "ground": gate.ground},
        "reasons": reasons,
        "estimand": _ESTIMAND[gate.ground],
        "win_rate": _win_rate(counts),
        "claimed_rate": _gold_rate(items) if gate.ground == "gold" else _win_rate(counts),
        "difference": "win rate of the student less one half",
        "ci_low": None if found is None else found.low,
        "ci_high": None if found is None else found.high,
        "level": level,
        "method": None if found is None else found.method,
        "margin": margin,
        "verdict": str(decision),
    }
    return Claimed(evidence, interval_at)


_ESTIMAND = {
    "swap": "which answer the judge prefers, its own wavering and unread answers allowed for; not which one people prefer",
    "gold": "which answer the gold preferences prefer, over all items",
}


def _win_rate(counts: Tally) -> float | None:
    """As the judge called it, ties and inconsistent calls one half, over the items that were read or alike."""
    known = counts.n - counts.unreadable
    if known == 0 or (counts.unreadable and not counts.read):
        return None  # answers that are alike were not judged: alone they are no judgement
    return (counts.student + EVEN * (known - counts.same)) / known


def _gold_rate(items: Items) -> float:
    """As people prefer, on the items that they judged. Where PPI++ makes the interval, it need not be its middle."""
    gold_N = items.gold_N[items.gold_N != Call.UNREADABLE]
    return float(gold_N.astype(np.float64).mean() / 2 + EVEN)


def _interval_at(items: Items, judge: JudgeCalls, gate: Gate) -> IntervalAt:
    if gate.ground == "gold":
        return _gold_interval(items, judge)
    return _judged_interval(items, judge)


def _judged_interval(items: Items, judge: JudgeCalls) -> IntervalAt:
    """Win rate less one half as the judge would have it without its own noise.

    A call x in {−1, 0, 1} that is right only so often has mean λθ with λ < 1: noise pulls the rate to one half and lets a
    worse student pass. If the noise of the two orders is independent, E[x1 x2] = λ² E[θ²] less the square of the position
    bias, and θ² <= 1. So λ² >= P(same) − P(opposed); its exact lower limit at 99.99 % is taken, and the limits are divided
    by λ where that makes them wider (attenuation: Spearman (1904), Am. J. Psychol. 15:72). Errors that both orders share
    stay hidden: what is measured is the judge's preference, right or wrong. Items without a reading count for the teacher
    in the lower limit, for the student in the upper one.
    """
    counts = tally(items, judge)
    rest = counts.read - counts.same - counts.opposed
    kept = exact_paired(PairedTable(rest, counts.same, counts.opposed, 0), LEVEL).low if counts.read else 0.0
    factor = max(0.0, kept) ** 0.5

    def at(level: float) -> Interval:
        low = _mean_interval(outcomes(items, judge, 0.0), items, level)
        high = low if not counts.unreadable else _mean_interval(outcomes(items, judge, 1.0), items, level)
        method = f"{low.method}; divided by {factor:.3f} for the judge's wavering"
        if counts.unreadable:
            method += f"; {counts.unreadable} unreadable items against either side"
        return Interval(_widened(low.low, factor), -_widened(-high.high, factor), level, method, items.n)

    return at


def _widened(limit: float, factor: float) -> float:
    """A lower limit below nought, farther from it; one above stays, which is the cautious reading."""
    if limit >= 0.0:
        return limit
    return -_FARTHEST if factor <= 0.0 else max(-_FARTHEST, limit / factor)


def _gold_interval(items: Items, judge: JudgeCalls) -> IntervalAt:
    """Win rate by gold, less one half; other items' calls narrow it where gold shows how the judge errs
    (`stats.outcomes.judged_win_rate`).

    Items in sessions: the gold items alone, cluster-robust, since PPI++ takes items to be independent; the judge is then
    heard and not counted. The gold items must be a random sample of all items.
    """
    has_gold = items.gold_N != Call.UNREADABLE
    gold = items.gold_N[has_gold].astype(np.float64) / 2 + EVEN
    judged = outcomes(items, judge, EVEN)

    def at(level: float) -> Interval:
        if items.session_N is not None:
            return _in_sessions(gold, items.session_N[has_gold], level)
        return judged_win_rate(gold, judged[has_gold], judged[~has_gold], level)

    return at


def _mean_interval(outcome_N: NDArray[np.float64], items: Items, level: float) -> Interval:
    """Interval for the mean of outcomes 0, ½, 1, less one half; items of one session are not independent."""
    return win_rate(outcome_N, level) if items.session_N is None else _in_sessions(outcome_N, items.session_N, level)


def _in_sessions(outcome_N: NDArray[np.float64], session_N: NDArray[np.int64], level: float) -> Interval:
    found = clustered_mean(outcome_N, session_N, level, (0.0, 1.0)).interval
    return Interval(found.low - EVEN, found.high - EVEN, level, found.method, found.n)


def _correct_together(claims: list[Claimed], margin: float, level: float) -> None:
    """Adds `together` and the adjusted p of both sides to every claim: Holm over the judges and their majority."""
    alpha = (1.0 - level) / 2.0
    no_worse = holm([_p_of(claim, lambda found: found.low > -margin) for claim in claims])
    worse = holm([_p_of(claim, lambda found: found.high < -margin) for claim in claims])
    for claim, p_no_worse, p_worse in zip(claims, no_worse, worse, strict=True):
        decision = Decision.INCONCLUSIVE
        if p_no_worse <= alpha:
            decision = Decision.NON_INFERIOR
        elif p_worse <= alpha:
            decision = Decision.INFERIOR
        claim.evidence["holm"] = {"p_no_worse": float(p_no_worse), "p_worse": float(p_worse), "claims": len(claims)}
        claim.evidence["together"] = str(decision)


def _p_of(claim: Claimed, shows: Callable[[Interval], bool]) -> float:
    """One-sided p: the least (1 − level)/2 at which the interval shows it, to 2^−40; 1 where none does or there is none."""
    if claim.interval_at is None:
        return 1.0
    low, high = 0.0, 0.5  # shown at no p of `low`, at every p of `high`
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        try:
            is_shown = shows(claim.interval_at(1.0 - 2.0 * p))
        except DataError:
            return 1.0
        low, high = (low, p) if is_shown else (p, high)
    return high if high < 0.5 else 1.0
