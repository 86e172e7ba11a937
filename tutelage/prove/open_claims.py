"""Claims of an open task: said before any answer is seen, with the power they have and what more would cost."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tutelage.canon import decimals, digest_of
from tutelage.errors import ConfigError
from tutelage.proof_config import ProofClaimTable, ProofConfig
from tutelage.prove.simulated_power import Expected, enough, formula_holds, session_size, simulated_power
from tutelage.prove.tasks.base import Task
from tutelage.prove.teacher_text import FEWEST_TEXTS, metric_of
from tutelage.records import Claim
from tutelage.stats.clusters import FEWEST_SESSIONS
from tutelage.stats.power import items_needed, non_inferiority_power, smallest
from tutelage.stats.power_means import clustered_power, clustered_sessions_needed, design_effect

WANTED = 0.8
TEXT = "teacher-text"
_OUT_OF_REACH = ("not within the margin", "not above minus the margin", "needs more than")
COMPARISONS = {
    "gold": "student minus teacher, both against the gold of held-out items",
    "teacher": "student's agreement with the teacher minus the teacher's own with itself when asked again",
    "judge": "a judge's preference for the student over the teacher, less one half",
    "teacher-text": "student minus teacher, in the log-probability of what the teacher answers",
}


class Planned(NamedTuple):
    """A claim, the chance that it is shown if its expectations hold, and the items that a chance of 80 % needs at most (0: no
    number is enough)."""

    claim: Claim
    power: float
    needed: int


def namespace_of(claims: Iterable[Mapping[str, Any]]) -> str:
    """The purpose under which a proof's answers are asked, from its claims as plain values: answers to other comparisons, or of a
    training, are never taken for these. Another margin, or more gold, is another claim on the same answers."""
    return digest_of([[claim["metric"], claim["comparison"], claim["decision_rule"]] for claim in claims])


def planned_items(claim: ProofClaimTable, items: int, with_gold: int, again: int) -> int:
    """How many items a claim rests on."""
    return {"gold": with_gold, "teacher": min(again, items)}.get(claim.comparison, items)


def declare(
    config: ProofConfig, task: Task, claim: ProofClaimTable, n: int, declared_on: str, sessions: int = 0
) -> Planned:
    """The claim as it goes into the log, with its power beside the others; its items are of so many `sessions`, 0 where they name
    none. Raises `ConfigError` for
    one without an item, with an expected correlation and no sessions, or with expectations that no two models meet."""
    if n < 1:
        raise ConfigError(f"a claim of kind {claim.comparison!r} rests on no item", fix="add items, or gold for them")
    if claim.expected_correlation is not None and not sessions:
        raise ConfigError(
            f"expected_correlation = {claim.expected_correlation:g} of a claim, and no item names a session",
            fix="leave it out, or name the session of every item (column session or group)",
        )
    sessions = min(sessions, n)  # of a claim on some of the items
    size = session_size(n, sessions)
    said = {"task": config.task.model_dump(mode="json"), "judge": claim.judge or ""}
    if claim.comparison == TEXT and config.teacher_text is not None:
        said["teacher_text"] = config.teacher_text.model_dump(mode="json")
    rule = digest_of(decimals(said))
    record = Claim(
        metric=_metric(config, task, claim),
        comparison=COMPARISONS[claim.comparison],
        margin_ppm=round(1e6 * claim.margin),
        level_ppm=round(1e6 * claim.level),
        test="two-sided interval inclusion; the interval by what the scores are and how many",
        planned_n=n,
        decision_rule=rule,
        declared_on=declared_on,
    )
    claim = beside(claim, len(config.claims))
    try:
        needed = max(_needed(task, claim, size), _fewest(claim, size, sessions))
    except ConfigError as error:
        if not any(words in error.message for words in _OUT_OF_REACH):
            raise
        needed = 0
    power = power_of(task, claim, n, size, sessions)
    if needed and not _by_formula(task, claim, n, sessions):
        needed = n if power >= WANTED else max(needed, math.ceil(round(enough(_expected(task, claim, n, sessions)), 6)))
    return Planned(record, power, needed)


def _metric(config: ProofConfig, task: Task, claim: ProofClaimTable) -> str:
    if claim.comparison == TEXT and config.teacher_text is not None:
        return metric_of(config.teacher_text.per)
    return task.metric if claim.comparison != "judge" else "win rate"


def _is_of_pairs(task: Task, claim: ProofClaimTable) -> bool:
    """Whether each item is right or wrong on both sides."""
    return task.is_binary and claim.comparison not in ("judge", TEXT)


def beside(claim: ProofClaimTable, claims: int) -> ProofClaimTable:
    """The claim at the level of Holm's first step among so many: what it is shown at whatever becomes of the others."""
    return claim if claims == 1 else claim.model_copy(update={"level": 1.0 - (1.0 - claim.level) / claims})


def _effect(claim: ProofClaimTable, size: float) -> float:
    return design_effect(size, claim.expected_correlation or 0.0)


def power_of(task: Task, claim: ProofClaimTable, n: int, size: float = 1.0, sessions: int = 0) -> float:
    """The chance that a claim on `n` items, `size` in each of so many `sessions` (0: they name none), is shown if its
    expectations hold."""
    if claim.comparison == TEXT and (sessions < FEWEST_SESSIONS if sessions else n < FEWEST_TEXTS):
        return 0.0  # no interval is made of so few
    planned = _power(task, claim, n, size)  # raises for expectations that no two models meet
    if _by_formula(task, claim, n, sessions):
        return planned
    return simulated_power(_expected(task, claim, n, sessions), claim.margin, claim.level)


def _by_formula(task: Task, claim: ProofClaimTable, n: int, sessions: int) -> bool:
    """Judged claims and texts have intervals of their own, which the formulas come near to."""
    return claim.comparison in ("judge", TEXT) or formula_holds(_expected(task, claim, n, sessions))


def _expected(task: Task, claim: ProofClaimTable, n: int, sessions: int) -> Expected:
    return Expected(
        n,
        claim.expected_difference,
        claim.expected_discordance,
        task.is_binary,
        sessions,
        claim.expected_correlation or 0.0,
    )


def _fewest(claim: ProofClaimTable, size: float, sessions: int) -> int:
    """Items from which there is an interval at all."""
    if claim.comparison != TEXT:
        return 0
    return math.ceil(round(FEWEST_SESSIONS * size, 6)) if sessions else FEWEST_TEXTS


def _power(task: Task, claim: ProofClaimTable, n: int, size: float = 1.0) -> float:
    if _effect(claim, size) > 1.0:
        sessions = round(n / size)
        if sessions < 2:
            return 0.0
        return clustered_power(
            sessions, n / sessions, claim.expected_difference, _deviation(claim), claim.expected_correlation or 0.0,
            claim.margin, claim.level,
        )  # fmt: skip
    if _is_of_pairs(task, claim):
        return non_inferiority_power(
            n, claim.margin, claim.expected_difference, claim.expected_discordance, claim.level
        )
    if n < 2:
        return 0.0
    return clustered_power(n, 1.0, claim.expected_difference, _deviation(claim), 0.0, claim.margin, claim.level)


def _needed(task: Task, claim: ProofClaimTable, size: float) -> int:
    if _effect(claim, size) > 1.0:
        return math.ceil(
            size
            * clustered_sessions_needed(
                WANTED, size, claim.expected_difference, _deviation(claim), claim.expected_correlation or 0.0,
                claim.margin, claim.level,
            )
        )  # fmt: skip
    if _is_of_pairs(task, claim):
        return items_needed(WANTED, claim.margin, claim.expected_difference, claim.expected_discordance, claim.level)
    return smallest(lambda n: _power(task, claim, n), WANTED, start=2)


def _deviation(claim: ProofClaimTable) -> float:
    """Of one item's difference: two answers of which a share p differ by 1 have variance p less the mean's square."""
    if claim.comparison == TEXT:
        return claim.expected_deviation
    return max(1e-6, claim.expected_discordance - claim.expected_difference**2) ** 0.5


def furthest_shown(task: Task, claim: ProofClaimTable, n: int, sessions: int = 0) -> float | None:
    """The least true difference, student minus teacher, at which the claim is shown with a chance of 80 %; None where there is
    none below the discordance (the margin is too narrow, or the items of so many `sessions` are too few)."""
    most = 1.0 if claim.comparison == TEXT else claim.expected_discordance
    size = session_size(n, sessions)
    low, high = -min(claim.margin, 0.999 * most), 0.999 * most

    def chance(difference: float) -> float:
        return power_of(task, claim.model_copy(update={"expected_difference": difference}), n, size, sessions)

    if chance(high) < WANTED:
        return None
    for _ in range(40 if _by_formula(task, claim, n, sessions) else 12):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < WANTED else (low, middle)
    return high


def assumption(claim: ProofClaimTable, n: int = 0, sessions: int = 0, claims: int = 1) -> str:
    """What the power was planned with, in words; `claims` are declared in all."""
    spread = (
        f"deviation {claim.expected_deviation:g}"
        if claim.comparison == TEXT
        else f"discordance {claim.expected_discordance}"
    )
    said = f"true difference {claim.expected_difference:+.3f}, {spread}"
    if claims > 1:
        said += f", at {beside(claim, claims).level:.4g}, the level of Holm's first step among {claims} claims"
    if not sessions:
        return said
    if claim.expected_correlation is None:
        return f"{said}, if items of a session were independent"
    size = session_size(n, sessions)
    return (
        f"{said}, correlation {claim.expected_correlation:g} within sessions of {size:.3g} items "
        f"(design effect {_effect(claim, size):.3g})"
    )
