"""What a proof says of one held-out item: a label that was decided, or scores. Two kinds of `prove/scores.jsonl` in one shape."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tutelage.report import words

WHOLE = 1_000_000  # parts per million
FIRST = ("teacher", "student", "before")  # of the systems of a proof, in this order; the others by name


class Outcome(NamedTuple):
    """One system on one item. `said` is what was read in its answer (a label, a number; empty where nothing was);
    scores against the gold and against the teacher's answer in parts per million, None without one."""

    who: str
    said: str
    gold_ppm: int | None
    teacher_ppm: int | None

    @property
    def mark(self) -> str:
        """`right`, `in part`, `wrong`; empty without gold."""
        return "" if self.gold_ppm is None else mark_of(self.gold_ppm)

    @property
    def likeness(self) -> str:
        """How far it says what the teacher says, in words; empty where nobody compared."""
        if self.teacher_ppm is None:
            return ""
        named = {0: "differs from the teacher", WHOLE: "agrees with the teacher"}
        return named.get(self.teacher_ppm) or f"agrees with the teacher by {words.percent(self.teacher_ppm / WHOLE)}"


class Scored(NamedTuple):
    """One item: its prompt, the gold (empty without), every system, and whether student and teacher differ."""

    prompt: str
    gold: str
    outcomes: tuple[Outcome, ...]
    differs: bool


def mark_of(gold_ppm: int) -> str:
    return "right" if gold_ppm >= WHOLE else "wrong" if gold_ppm <= 0 else "in part"


def scored(row: Mapping[str, Any]) -> Scored | None:
    """One line of the file; None for another kind of proof. Raises `KeyError`, `TypeError` or `ValueError` for another shape."""
    found = _labels(row) if "decided" in row else _open(row) if "scores" in row else None
    if found is None or not {"teacher", "student"} <= {one.who for one in found.outcomes}:
        return None
    order = in_order(one.who for one in found.outcomes)
    return found._replace(outcomes=tuple(sorted(found.outcomes, key=lambda one: order.index(one.who))))


def in_order(systems: Iterable[str]) -> list[str]:
    """Names of systems as pages show them, each once."""
    return sorted(set(systems), key=lambda who: (FIRST.index(who) if who in FIRST else len(FIRST), who))


def _labels(row: Mapping[str, Any]) -> Scored:
    gold, decided = str(row["gold"]), row["decided"]
    outcomes = tuple(Outcome(who, str(said), WHOLE * (said == gold), None) for who, said in decided.items())
    return Scored(str(row["prompt"]), gold, outcomes, decided.get("teacher") != decided.get("student"))


def _open(row: Mapping[str, Any]) -> Scored:
    """The student differs where it does not wholly agree with the teacher; where nobody compared them, by their gold scores."""
    outcomes = tuple(
        Outcome(who, str(one["read"] or ""), _ppm(one["gold_ppm"]), _ppm(one["teacher_ppm"]))
        for who, one in row["scores"].items()
    )
    found = Scored(str(row["item"]), str(row["gold"] or ""), outcomes, differs=False)
    by_name = {one.who: one for one in outcomes}
    if not {"teacher", "student"} <= by_name.keys():
        return found
    student, teacher = by_name["student"], by_name["teacher"]
    if student.teacher_ppm is not None:
        return found._replace(differs=student.teacher_ppm < WHOLE)
    return found._replace(
        differs=None not in (student.gold_ppm, teacher.gold_ppm) and student.gold_ppm != teacher.gold_ppm
    )


def _ppm(value: Any) -> int | None:
    return None if value is None else int(value)
