"""Claims of an open task: said before any answer is seen, with the power they have and what more would cost."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tutelage.canon import decimals, digest_of
from tutelage.errors import ConfigError
from tutelage.proof_config import ProofClaimTable, ProofConfig
from tutelage.prove.tasks.base import Task
from tutelage.records import Claim
from tutelage.stats.power import items_needed, non_inferiority_power, smallest
from tutelage.stats.power_means import clustered_power

WANTED = 0.8
COMPARISONS = {
    "gold": "student minus teacher, both against the gold of held-out items",
    "teacher": "student's agreement with the teacher minus the teacher's own with itself when asked again",
    "judge": "a judge's preference for the student over the teacher, less one half",
}


class Planned(NamedTuple):
    """A claim, the chance that it is shown if its expectations hold, and the items that a chance of 80 % needs (0: no number
    is enough)."""

    claim: Claim
    power: float
    needed: int


def namespace_of(claims: Iterable[Mapping[str, Any]]) -> str:
    """The purpose under which a proof's answers are asked, from its claims as plain values: answers to other comparisons, or of a
    training, are never taken for these. Another margin, or more gold, is another claim on the same answers."""
    return digest_of([[claim["metric"], claim["comparison"], claim["decision_rule"]] for claim in claims])


def planned_items(claim: ProofClaimTable, items: int, with_gold: int, again: int) -> int:
    """How many items a claim rests on."""
    return {"gold": with_gold, "teacher": min(again, items), "judge": items}[claim.comparison]


def declare(config: ProofConfig, task: Task, claim: ProofClaimTable, n: int, declared_on: str) -> Planned:
    """The claim as it goes into the log. Raises `ConfigError` for one without an item, or with expectations that no two models
    meet."""
    if n < 1:
        raise ConfigError(f"a claim of kind {claim.comparison!r} rests on no item", fix="add items, or gold for them")
    rule = digest_of(decimals({"task": config.task.model_dump(mode="json"), "judge": claim.judge or ""}))
    record = Claim(
        metric=task.metric if claim.comparison != "judge" else "win rate",
        comparison=COMPARISONS[claim.comparison],
        margin_ppm=round(1e6 * claim.margin),
        level_ppm=round(1e6 * claim.level),
        test="two-sided interval inclusion; the interval by what the scores are and how many",
        planned_n=n,
        decision_rule=rule,
        declared_on=declared_on,
    )
    try:
        needed = _needed(task, claim)
    except ConfigError as error:
        if "not within the margin" not in error.message and "needs more than" not in error.message:
            raise
        needed = 0
    return Planned(record, _power(task, claim, n), needed)


def _power(task: Task, claim: ProofClaimTable, n: int) -> float:
    if task.is_binary and claim.comparison != "judge":
        return non_inferiority_power(
            n, claim.margin, claim.expected_difference, claim.expected_discordance, claim.level
        )
    if n < 2:
        return 0.0
    return clustered_power(n, 1.0, claim.expected_difference, _deviation(claim), 0.0, claim.margin, claim.level)


def _needed(task: Task, claim: ProofClaimTable) -> int:
    if task.is_binary and claim.comparison != "judge":
        return items_needed(WANTED, claim.margin, claim.expected_difference, claim.expected_discordance, claim.level)
    return smallest(lambda n: _power(task, claim, n), WANTED, start=2)


def _deviation(claim: ProofClaimTable) -> float:
    """Of one item's difference: two answers of which a share p differ by 1 have variance p less the mean's square."""
    return max(1e-6, claim.expected_discordance - claim.expected_difference**2) ** 0.5
