"""May a judge be believed? Without that there is no verdict, whatever it says.

Noise pulls every win rate to one half, and one half passes for "no worse": a proof of non-inferiority needs a judge that
would have seen a difference (assay sensitivity: ICH E10 (2000)). Judges prefer what stands first, and the longer answer:
Zheng et al. (2023), arXiv:2306.05685, section 3.3; Wang et al. (2023), arXiv:2305.17926.

What is asked, each by the lower Clopper-Pearson limit at 99.99 %, so that a judge on the border passes once in 20,000 times
at any number of items:

1. Swap consistency. Of the items on which it named a model, both orders named the same one in more than 60 %, from 30 items
   on. A call that names a model once and ties once counts against it. Chance: a judge that does not look at the answers
   says A, B or a tie with probabilities a, b, t in either order, alike; it then names one model twice with 2ab, and is
   inconsistent with a² + b² + 2(a + b)t >= 2ab: at most one half.
2. It names a model on more than half of the items. One that nearly always ties would call everything equal.
3. It is not led by one property alone. A judge that goes by an attribute of the answers (their length, whose they are),
   however noisily, leans to one side of it on every item. If it names that side with p1, p2 in the two orders and the other
   with q1 + q2 <= p1 + p2, it names the other side twice with q1 q2, and is inconsistent at least twice as often: with
   x = q1 + q2 <= 1, inconsistency is at least x − 2 q1 q2 >= 2 q1 q2, as 4 q1 q2 <= x² <= x. So of the other side's items
   and the inconsistent ones together the former are at most one third. More than a third is asked of either side: of longer
   and shorter, of student and teacher; equally long answers, on which length says nothing, count as if the student's were
   longer. (Heterogeneous items only thin the tail: Hoeffding (1956), Ann. Math. Stat. 27:713.)

Gold, where 30 items or more have it, is the stronger witness: then agreement beyond chance is asked instead of 3 (Fisher's
exact p below 1/20,000, and the lower 95 % limit of kappa above 0.2, the border of "fair": Landis & Koch (1977),
Biometrics 33:159), and a judge that fails it is not believed, however consistent. Only gold can clear a judge that prefers
the longer answer, one that always names the same model, and a rubric judge, whose answers have no order to change.

What none of this sees: a judge led consistently by a property that nobody counted, such as its layout. Only gold does.
"""

from dataclasses import dataclass

import numpy as np

from tutelage.prove.judges.calls import Call, Items, JudgeCalls
from tutelage.prove.judges.panel import Tally, gold_agreement, length_sides, tally
from tutelage.stats.exact import clopper_pearson
from tutelage.stats.ppi import FEWEST_GOLD

LEVEL = 0.9999
LEAST_CONSISTENCY = 0.6
FEWEST_NAMED = 30
LEAST_NAMED = 0.5
LEAST_OTHER_SIDE = 1 / 3
LEAST_KAPPA = 0.2
MOST_GOLD_P = (1.0 - LEVEL) / 2.0
_NO_GOLD = "only gold preferences can clear this"


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a judge may be believed, on what ground, and why not, in words (empty when it may)."""

    is_usable: bool
    ground: str  # "swap" | "gold"
    reasons: tuple[str, ...]


def is_usable(items: Items, judge: JudgeCalls) -> Gate:
    """Applies the module's rules to one judge. Raises `DataError` when judge and items are not of one length."""
    counts = tally(items, judge)
    gold_items = int(np.count_nonzero(items.gold_N != Call.UNREADABLE))
    has_gold = gold_items >= FEWEST_GOLD
    reasons = _says_something(counts, judge)
    if has_gold:
        reasons += _against_gold(items, judge)
    elif not judge.is_swapped:
        reasons.append(
            f"it saw each answer alone, so no change of order can test it, and {gold_items} items have gold: {_NO_GOLD} "
            f"({FEWEST_GOLD} items or more)"
        )
    elif not reasons:
        reasons += _one_sided(items, judge, counts)
    return Gate(not reasons, "gold" if has_gold else "swap", tuple(reasons))


def _says_something(counts: Tally, judge: JudgeCalls) -> list[str]:
    if counts.named < FEWEST_NAMED:
        return [
            f"it named a model on {counts.named} of {counts.n} items ({counts.tie} ties, {counts.unreadable} unreadable, "
            f"{counts.identical} identical answers); {FEWEST_NAMED} is the least"
        ]
    reasons = []
    low = _low(counts.same, counts.named)
    if judge.is_swapped and not low > LEAST_CONSISTENCY:
        reasons.append(
            f"it keeps its word on {counts.same / counts.named:.1%} of {counts.named} items when the answers change "
            f"places; the lower {LEVEL:.2%} limit {low:.1%} is not above {LEAST_CONSISTENCY:.0%} (a coin: 50%)"
        )
    low = _low(counts.named, counts.read)
    if not low > LEAST_NAMED:
        reasons.append(
            f"it ties on {counts.tie} of {counts.read} items; the lower {LEVEL:.2%} limit of what it tells apart, {low:.1%}, "
            f"is not above {LEAST_NAMED:.0%}"
        )
    return reasons


def _against_gold(items: Items, judge: JudgeCalls) -> list[str]:
    found = gold_agreement(items, judge)
    if found is None or found.kappa is None:
        return ["where gold names a model, the judge names none, or both say one thing throughout: nothing shows skill"]
    reasons = []
    if found.p >= MOST_GOLD_P:
        reasons.append(
            f"it agrees with gold on {found.share:.1%} of {found.n} items (kappa {found.kappa:.2f}); chance does as well "
            f"with probability {found.p:.2g}, and {MOST_GOLD_P:.0e} is the most"
        )
    if found.low is None:
        reasons.append(f"kappa with gold is {found.kappa:.2f} on {found.n} items, {found.method}: nothing shows skill")
    elif not found.low > LEAST_KAPPA:
        reasons.append(
            f"kappa with gold is {found.kappa:.2f} on {found.n} items; its lower {found.level:.0%} limit {found.low:.2f} "
            f"is not above {LEAST_KAPPA}"
        )
    return reasons


def _one_sided(items: Items, judge: JudgeCalls, counts: Tally) -> list[str]:
    longer = length_sides(items, judge, Call.STUDENT)
    sides = (
        ("the shorter answer", "the longer", longer.other, longer.inconsistent),
        ("the longer answer", "the shorter", longer.one, longer.inconsistent),
        ("the student", "the teacher", counts.student, counts.inconsistent),
        ("the teacher", "the student", counts.teacher, counts.inconsistent),
    )
    reasons = []
    for side, other, settled, inconsistent in sides:
        among = settled + inconsistent
        low = _low(settled, among) if among else 0.0
        if not low > LEAST_OTHER_SIDE:
            reasons.append(
                f"it settled on {side} on {settled} items and contradicted itself on {inconsistent}: that could be a "
                f"preference for {other} with some noise, whatever the answers say; {_NO_GOLD}"
            )
    return reasons


def _low(part: int, whole: int) -> float:
    return clopper_pearson(part, whole, LEVEL).low
