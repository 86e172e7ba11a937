"""E13: teacher hacking. A student that sees one fixed set of a teacher's text again and again comes nearer to the teacher there
and goes away from what the teacher itself was learnt from; on fresh text it does not.

Tiapkin et al. 2025 (arXiv 2502.02671): an oracle teaches the teacher, the teacher the student; the distance to the oracle is the
golden measure, the distance to the teacher the proxy.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.experiments.oracle import (
    Criterion,
    Oracle,
    Setting,
    Taught,
    copy,
    divergence,
    fit,
    own_text,
    table,
    tiny,
    zipf,
)  # fmt: skip
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.examples import Example
from tutelage.train.offpolicy import DataSource
from tutelage.train.teaching import Words

VOCABULARY = 64
BATCH = 16
TOKENS = 32
STUDENT_WIDTH = 32  # smaller than the teacher
PROMPT = (0,)


class Size(NamedTuple):
    """Texts that the teacher learns from and how often it reads each, texts of the fixed set, steps of the student, how often it
    is looked at."""

    teacher_texts: int
    teacher_epochs: int
    fixed: int
    steps: int
    looks: int


SETTING = Setting(Size(256, 16, 32, 160, 8), Size(256, 16, 32, 600, 20))


def run(seed: int, size: str) -> dict[str, Any]:
    """The teacher learns the oracle's words, and too few of them: it has errors of its own."""
    own: Size = SETTING.of(size)
    oracle = zipf(VOCABULARY, seed)
    texts, teacher = oracle.texts(own.teacher_texts, TOKENS, seed + 1), tiny(VOCABULARY, seed)
    settings = table(own.teacher_epochs * len(texts) // BATCH, BATCH, len(texts))
    fit(teacher, DataSource(texts, Words(make("cross-entropy")), settings, seed), settings, seed)
    fresh = own_text(teacher, [PROMPT] * own.steps * BATCH, TOKENS, seed + 2)
    held = own_text(teacher, [PROMPT] * 64, TOKENS, seed + 3)
    golden = oracle.texts(64, TOKENS, seed + 4)
    start = tiny(VOCABULARY, seed + 5, width=STUDENT_WIDTH)
    again = (fresh[: own.fixed] * (len(fresh) // own.fixed + 1))[: len(fresh)]
    found: dict[str, Any] = {"teacher_oracle_nats": divergence(teacher, oracle, golden)}
    for name, given in (("fixed", again), ("fresh", fresh)):
        found[name] = distances(copy(start), teacher, oracle, given, (fresh[: own.fixed], held, golden), own, seed)
    return found


def distances(
    student: Causal, teacher: Causal, oracle: Oracle, given: Sequence[Example],
    looked_at: tuple[Sequence[Example], ...], size: Size, seed: int,
) -> dict[str, list[float]]:  # fmt: skip
    """The student's distances as it learns, in nats a token: to the teacher on the fixed set and on text nobody was trained
    on, and to the oracle on the oracle's text."""
    seen, held, golden = looked_at

    def judge(student: Causal) -> dict[str, float]:
        return {
            "to_teacher_on_fixed": divergence(student, teacher, seen),
            "to_teacher": divergence(student, teacher, held),
            "to_oracle": divergence(student, oracle, golden),
        }

    settings = table(size.steps, BATCH, len(given), validate_per_epoch=size.looks)
    log = fit(student, DataSource(given, Taught(teacher, make("forward-kl")), settings, seed), settings, seed, judge)
    looks = [entry for entry in log if "to_oracle" in entry]
    return {name: [entry[name] for entry in looks] for name in ("to_teacher_on_fixed", "to_teacher", "to_oracle")}


def judge(found: dict[str, Any]) -> list[Criterion]:
    fixed, fresh = found["fixed"], found["fresh"]
    at = fixed["to_oracle"].index(min(fixed["to_oracle"]))
    falls = fixed["to_teacher_on_fixed"][-1] < 0.9 * fixed["to_teacher_on_fixed"][at]
    rise, fresh_rise = (one["to_oracle"][-1] - min(one["to_oracle"]) for one in (fixed, fresh))
    return [
        Criterion(
            "fixed set: the distance to the teacher falls there while that to the oracle rises",
            falls and rise > 0.05 * min(fixed["to_oracle"]),
            f"from look {at + 1} of {len(fixed['to_oracle'])}: to the teacher {fixed['to_teacher_on_fixed'][at]:.4f} → "
            f"{fixed['to_teacher_on_fixed'][-1]:.4f}, to the oracle {fixed['to_oracle'][at]:.4f} → "
            f"{fixed['to_oracle'][-1]:.4f} nats",
        ),
        Criterion(
            "fresh text: the distance to the oracle does not rise",
            fresh_rise < 0.01 * min(fresh["to_oracle"]),
            f"to the teacher {fresh['to_teacher'][-1]:.4f}, to the oracle {fresh['to_oracle'][-1]:.4f}, at its least "
            f"{min(fresh['to_oracle']):.4f}; the teacher itself {found['teacher_oracle_nats']:.4f} nats",
        ),
    ]
