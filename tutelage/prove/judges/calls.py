"""What judges called, item by item: verdicts in terms of student and teacher instead of A and B.

Shape legend: N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.prove.judges.prompts import PairPrompts
from tutelage.prove.judges.reading import Scores, Verdict, read_verdict

Calls = NDArray[np.int8]


class Call(IntEnum):
    """Who is better, by one reading. The first three may be added up; UNREADABLE may not."""

    TEACHER = -1
    TIE = 0
    STUDENT = 1
    UNREADABLE = 9


class Item(NamedTuple):
    """One question with two answers: their lengths in characters, whether they are one text, the item's session (empty:
    of its own), and who is better by gold preference or score (None: not known)."""

    item_id: str
    student_length: int
    teacher_length: int
    is_identical: bool = False
    session: str = ""
    gold: Call | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """N items as columns. `longer_N` is the model with the longer answer (TIE: equally long); `gold_N` is UNREADABLE
    where there is no gold; `session_N` numbers sessions, or is None when every item stands alone.

    Raises `DataError` when there is no item or the columns are not of one length.
    """

    longer_N: Calls
    identical_N: NDArray[np.bool_]
    gold_N: Calls
    session_N: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        columns = [self.longer_N, self.identical_N, self.gold_N]
        columns += [] if self.session_N is None else [self.session_N]
        if not self.longer_N.size or any(column.shape != (self.longer_N.size,) for column in columns):
            raise DataError(
                f"item columns of shapes {[column.shape for column in columns]}",
                fix="give one value an item in every column, at least one item",
            )

    @classmethod
    def of(cls, items: Sequence[Item]) -> Self:
        """Raises `DataError` when there is none, or one name stands for two items."""
        if not items or len({one.item_id for one in items}) != len(items):
            raise DataError(
                f"{len(items)} items of {len({one.item_id for one in items})} names",
                fix="give every item a name of its own, at least one item",
            )
        named = [one.session or f"\0{at}" for at, one in enumerate(items)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(named))}
        gold = [Call.UNREADABLE if one.gold is None else one.gold for one in items]
        return cls(
            np.array([np.sign(one.student_length - one.teacher_length) for one in items], dtype=np.int8),
            np.array([one.is_identical for one in items], dtype=np.bool_),
            np.array(gold, dtype=np.int8),
            np.array([numbers[name] for name in named]) if len(numbers) < len(items) else None,
        )

    @property
    def n(self) -> int:
        return self.longer_N.size


@dataclass(frozen=True, slots=True)
class JudgeCalls:
    """One judge's calls on N items, twice each: with the student's answer shown first, and with the teacher's.

    `is_swapped` is False for a rubric judge, which saw each answer alone and was only asked twice. What it says of identical
    answers is not looked at. Raises `DataError` for a value that is no call, or columns of different lengths.
    """

    name: str
    student_first_N: Calls
    teacher_first_N: Calls
    is_swapped: bool = True

    def __post_init__(self) -> None:
        one, two = self.student_first_N, self.teacher_first_N
        known = [int(call) for call in Call]
        if one.ndim != 1 or one.shape != two.shape or not (np.isin(one, known).all() and np.isin(two, known).all()):
            raise DataError(
                f"calls of {self.name!r} of shapes {one.shape} and {two.shape}",
                fix="give a Call for each item and order; where the judge gave none, UNREADABLE",
            )

    @classmethod
    def of(cls, name: str, calls: Sequence[tuple[Call, Call]], *, is_swapped: bool = True) -> Self:
        """From (student shown first, teacher shown first) for each item."""
        table = np.array(calls, dtype=np.int8).reshape(-1, 2)
        return cls(name, table[:, 0].copy(), table[:, 1].copy(), is_swapped)


class Said(NamedTuple):
    """What a judge answered, and why it ended (as `records.Exchange` has them)."""

    text: str
    finish_reason: str = "stop"


def read_pair(prompts: PairPrompts, student_first: Said | None, teacher_first: Said | None) -> tuple[Call, Call]:
    """A pairwise judge's calls in both orders, as `JudgeCalls.of` takes them; an order that got no answer is UNREADABLE."""
    calls = []
    for prompt, said, student_is_a in (
        (prompts.student_first, student_first, True),
        (prompts.teacher_first, teacher_first, False),
    ):
        verdict = Verdict.UNREADABLE if said is None else read_verdict(said.text, prompt.nonce, said.finish_reason)
        calls.append(call_of(verdict, student_is_a=student_is_a))
    return calls[0], calls[1]


def call_of(verdict: Verdict, *, student_is_a: bool) -> Call:
    """Who is better, by a verdict on A and B."""
    if verdict in (Verdict.UNREADABLE, Verdict.TIE):
        return Call[verdict.name]
    return Call.STUDENT if (verdict is Verdict.A) is student_is_a else Call.TEACHER


def call_of_scores(student: Scores | Verdict, teacher: Scores | Verdict) -> Call:
    """Who is better, by the sums of two rubric readings with the same criteria. Raises `DataError` when they differ."""
    if isinstance(student, Verdict) or isinstance(teacher, Verdict):
        return Call.UNREADABLE
    if len(student) != len(teacher):
        raise DataError(
            f"{len(student)} marks for the student, {len(teacher)} for the teacher",
            fix="mark both by the same criteria",
        )
    return Call(int(np.sign(sum(student) - sum(teacher))))


def gold_of(student: float, teacher: float) -> Call:
    """Who is better, by gold scores of both answers. Raises `DataError` for a score that is not a number."""
    if not (np.isfinite(student) and np.isfinite(teacher)):
        raise DataError(f"gold scores {student!r} and {teacher!r}", fix="score the item, or leave its gold out")
    return Call(int(np.sign(student - teacher)))


def majority(judges: Sequence[JudgeCalls], name: str = "majority") -> JudgeCalls:
    """The panel as one judge: in each order the side that more judges name; otherwise a tie.

    Unreadable calls abstain; where no judge is readable the panel is not. Raises `DataError` for fewer than two judges or
    different items.
    """
    if len(judges) < 2 or len({one.student_first_N.shape for one in judges}) != 1:
        raise DataError(f"a majority of {len(judges)} judges", fix="give two or more, all on the same items")
    sides = []
    for side_JN in (
        np.stack([one.student_first_N for one in judges]),
        np.stack([one.teacher_first_N for one in judges]),
    ):
        is_read_JN = side_JN != Call.UNREADABLE
        sign_N = np.sign(np.where(is_read_JN, side_JN, 0).sum(axis=0, dtype=np.int64))
        sides.append(np.where(is_read_JN.any(axis=0), sign_N, Call.UNREADABLE).astype(np.int8))
    return JudgeCalls(name, sides[0], sides[1], all(one.is_swapped for one in judges))
