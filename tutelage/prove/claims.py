"""Claims: said before any held-out answer is seen, with the power they have; and their verdict afterwards."""

from typing import Any

from tutelage.config import RunConfig
from tutelage.records import Claim
from tutelage.stats import equivalence
from tutelage.stats.interval import Interval
from tutelage.stats.power import non_inferiority_power

TEST = (
    "paired difference, by inclusion of its interval (Tango's score interval from 20 discordant items, exact below): "
    "EQUIVALENT inside plus and minus the margin, NON-INFERIOR above minus the margin, INFERIOR below it"
)


def declare(config: RunConfig, declared_on: str) -> Claim:
    """The claim of a run, from its run file."""
    rule = "label shares as declared, offsets fixed on training items"
    return Claim(
        metric=config.claim.metric,
        comparison="student minus teacher, both against the human labels of held-out items",
        margin_ppm=round(1e6 * config.claim.margin),
        level_ppm=round(1e6 * config.claim.level),
        test=TEST,
        planned_n=config.data.held_out,
        decision_rule=rule if config.task.decision == "balanced" else "the most probable label",
        declared_on=declared_on,
    )


def power(config: RunConfig) -> float:
    """Chance of NON-INFERIOR or EQUIVALENT if the expectations in the run file hold."""
    claim = config.claim
    return non_inferiority_power(
        config.data.held_out, claim.margin, claim.expected_difference, claim.expected_discordance, claim.level
    )


def verdict(interval: Interval, margin: float) -> dict[str, Any]:
    """The interval of student − teacher and the strongest verdict that it shows at the margin. Raises `ConfigError` for a
    margin that is no proportion above 0: of the wrong sign, NaN, or in points."""
    return {
        "ci_low": interval.low,
        "ci_high": interval.high,
        "level": interval.level,
        "method": interval.method,
        "n": interval.n,
        "margin": margin,
        "verdict": str(equivalence.verdict(interval, margin)),
    }
