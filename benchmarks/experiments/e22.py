"""E22: new facts cost an old skill, and the student as it was before gives it back. Trained on the facts' text alone a student
counts worse; from its own counting, scored by its old self, it counts again and keeps the facts.

Continual learning by on-policy distillation (Thinking Machines, On-Policy Distillation, 2025). The facts are answers to pairs of
numbers that counting never shows. Shape legend: N positions, V vocabulary.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.experiments.counting import NUMBERS, STEPS, all_prompts, answered, counting, rightness
from benchmarks.experiments.oracle import BEGIN, Criterion, Setting, Taught, copy, fit, logp_of, roller, table, tiny
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource, passage_of
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.routing import Routed
from tutelage.train.teaching import LiveTeacher, Words

BATCH = 16
TOKENS = 16  # of an answer
FACTS = 24
RATE = 2e-3


class Size(NamedTuple):
    """Steps in which the skill is learnt, then the facts, and in which the old self teaches."""

    skill: int
    facts: int
    restored: int


SETTING = Setting(Size(150, 40, 70), Size(600, 80, 300))


def facts_of(seed: int) -> list[Example]:
    """Two numbers whose step counting never takes, and the numbers that answer them."""
    draw = random.Random(f"facts {seed}")
    pairs = [
        (first, other) for first in range(1, NUMBERS + 1) for other in range(1, NUMBERS + 1)
        if (other - first) % NUMBERS not in STEPS
    ]  # fmt: skip
    return [
        Example(
            (BEGIN, *pair, *(draw.randint(1, NUMBERS) for _ in range(TOKENS))), tuple(range(3, 3 + TOKENS)), "facts"
        )
        for pair in draw.sample(pairs, FACTS)
    ]


def known(student: Causal, facts: Sequence[Example]) -> float:
    """Share of the facts' tokens that the student finds likeliest."""
    passage = passage_of(facts)
    logp_NV = logp_of(student, passage)[passage.positions_N]
    return float((logp_NV.argmax(-1) == passage.target_ids_N).float().mean())


def run(seed: int, size: str) -> dict[str, Any]:
    """Skill (share of right tokens in the student's own counting) and knowledge of the facts at each stage.

    `replay` takes as many steps on the old text by cross-entropy instead. `both` has as many rows of facts beside, taught by the
    student that knows them, and so twice the steps.
    """
    own: Size = SETTING.of(size)
    oracle, prompts, facts = counting(), all_prompts(seed), facts_of(seed)
    texts = answered(oracle, prompts, own.skill * BATCH, TOKENS, seed + 1)
    before = tiny(oracle.vocabulary, seed)
    settings = table(own.skill, BATCH, len(texts))
    fit(before, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
    learnt, words = copy(before), Words(make("cross-entropy"))
    rows = facts * (own.facts * BATCH // FACTS)
    settings = table(own.facts, BATCH, len(rows), RATE)
    fit(learnt, DataSource(rows, words, settings, seed), settings, seed)
    again = texts[: own.restored * BATCH]
    settings = table(own.restored, BATCH, len(again), RATE)
    old, new = (LiveTeacher(copy(model), make("reverse-kl")) for model in (before, learnt))
    students = {name: copy(learnt) for name in ("old self", "replay", "both")}
    fit(students["replay"], DataSource(again, words, settings, seed), settings, seed)
    mixed = [*again, *(facts * len(again))[: len(again)]]
    routed = Routed({"old": old, "new": new}, {"oracle": "old", "facts": "new"})
    for name, source, teaching in (("old self", again, old), ("both", mixed, routed)):
        student, settings = students[name], table(len(source) // BATCH, BATCH, len(source), RATE)
        rolled = RolloutSource(source, student, roller(student), teaching, settings, seed, max_new_tokens=TOKENS)
        fit(student, rolled, settings, seed)
    stages = {"before": before, "facts": learnt, **students}
    return {
        name: {"skill": rightness(student, prompts, (TOKENS,), seed + 2)[0].share, "known": known(student, facts)}
        for name, student in stages.items()
    }


def judge(found: dict[str, Any]) -> list[Criterion]:
    before, learnt = found["before"], found["facts"]

    def words(measure: str) -> str:
        return ", ".join(f"{name} {one[measure]:.3f}" for name, one in found.items())

    return [
        Criterion(
            "the facts cost the skill a tenth at least",
            learnt["skill"] < 0.9 * before["skill"] and learnt["known"] > 0.9,
            f"right tokens {before['skill']:.3f} → {learnt['skill']:.3f}, facts {before['known']:.3f} → {learnt['known']:.3f}",
        ),
        Criterion(
            "the old self gives the skill back: 90 % of it at least",
            found["old self"]["skill"] >= 0.9 * before["skill"],
            words("skill"),
        ),
        Criterion(
            "and the facts stay: 90 % of them at least",
            found["old self"]["known"] >= 0.9 * learnt["known"],
            words("known"),
        ),
        Criterion(
            "with the facts' rows beside it, taught by the student that knows them, both stay: 90 % at least",
            found["both"]["skill"] >= 0.9 * before["skill"] and found["both"]["known"] >= 0.9 * learnt["known"],
            f"skill {found['both']['skill']:.3f}, facts {found['both']['known']:.3f}",
        ),
    ]
