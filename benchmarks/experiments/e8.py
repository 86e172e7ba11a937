"""E8: with a target that moves from the student to the teacher, a larger teacher is never a worse one.

Shing et al. 2025 (TAID, arXiv 2501.16937, fig. 3): students of forward KL get worse as the teacher outgrows them, those of TAID
do not. Teachers of three sizes learn a language whose distribution is known; one small student learns from each, and is judged
against the language itself.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.experiments.oracle import (
    Criterion,
    Setting,
    Taught,
    copy,
    divergence,
    fit,
    table,
    tiny,
    zipf,
)
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.train.offpolicy import DataSource
from tutelage.train.teaching import LiveTeacher, MovingTeacher

VOCABULARY, TOKENS, BATCH = 128, 24, 16
WIDTHS = (16, 32, 64)  # of the teachers
STUDENT = 16
TOLERANCE = 0.005  # nats: less is no difference


class Size(NamedTuple):
    """Steps of the teachers and of the student."""

    teacher: int
    student: int


SETTING = Setting(Size(150, 80), Size(2000, 1000))


class AtTheEnd(MovingTeacher):
    """TAID whose target is the teacher's from the start: t = 1."""

    def __init__(self, teacher: Causal) -> None:
        super().__init__(teacher, replace(make("taid"), name="taid"), None, 1.0)


def run(seed: int, size: str) -> dict[str, Any]:
    """Forward KL from the language to each teacher, and to its student by loss."""
    own: Size = SETTING.of(size)
    oracle = zipf(VOCABULARY, seed, 3.0)
    held, blank = oracle.texts(64, TOKENS, seed + 2), tiny(VOCABULARY, seed + 7, STUDENT, 1)
    found: dict[str, Any] = {"teachers": [], "forward-kl": [], "taid": [], "t = 1": []}
    for width in WIDTHS:
        teacher = tiny(VOCABULARY, seed, width)
        texts = oracle.texts(own.teacher * BATCH, TOKENS, seed + 1)
        settings = table(own.teacher, BATCH, len(texts))
        fit(teacher, DataSource(texts, Taught(oracle, make("forward-kl")), settings, seed), settings, seed)
        found["teachers"].append(divergence(teacher, oracle, held))
        arms = {
            "forward-kl": LiveTeacher(teacher, make("forward-kl")), "taid": MovingTeacher(teacher, make("taid")),
            "t = 1": AtTheEnd(teacher),
        }  # fmt: skip
        for name, teaching in arms.items():
            student, lesson = copy(blank), table(own.student, BATCH, own.student * BATCH)
            given = oracle.texts(own.student * BATCH, TOKENS, seed + 3)
            fit(student, DataSource(given, teaching, lesson, seed), lesson, seed)
            found[name].append(divergence(student, oracle, held))
    return found


def judge(found: dict[str, Any]) -> list[Criterion]:
    def falls(values: list[float]) -> bool:
        return all(after <= before + TOLERANCE for before, after in pairwise(values))

    def words(name: str) -> str:
        return " ".join(f"{value:.3f}" for value in found[name])

    sizes = f"from teachers of width {', '.join(map(str, WIDTHS))} ({words('teachers')} nats off the language)"
    return [
        Criterion(
            "TAID's student gets no worse as its teacher grows",
            falls(found["taid"]),
            f"forward KL of the students {sizes}: {words('taid')}",
        ),
        Criterion(
            "forward KL's student does",
            not falls(found["forward-kl"]),
            f"forward KL of the students {sizes}: {words('forward-kl')}",
        ),
        Criterion(
            "with t = 1 it is forward KL",
            _apart(found) < 1e-5,
            f"largest difference {_apart(found):.2g} nats",
        ),
    ]


def _apart(found: dict[str, Any]) -> float:
    return max(abs(one - other) for one, other in zip(found["t = 1"], found["forward-kl"], strict=True))
