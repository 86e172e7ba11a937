"""One judge's figures: how often it keeps its word when the answers change places, what it leans to, whether people agree.

Shape legend: N items.
"""

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError
from tutelage.prove.judges.agreement import Agreement, agreement
from tutelage.prove.judges.calls import Call, Calls, Items, JudgeCalls
from tutelage.stats.exact import clopper_pearson
from tutelage.stats.paired import PairedTable

_LOST, _TIED, _WON = 0, 1, 2  # a call plus one
_EVEN = 0.5


class Tally(NamedTuple):
    """N items by what the judge made of them. A judge that says the same of both orders is of one mind (`student`,
    `teacher`, `tie`); `opposed_first` and `opposed_last` say both times whichever stood first, or last; `half` names a
    model once and ties once. `unreadable` lacks a reading in either order; `identical` answers were not judged."""

    student: int
    teacher: int
    tie: int
    opposed_first: int
    opposed_last: int
    half: int
    unreadable: int
    identical: int

    @property
    def same(self) -> int:
        """Items on which both orders named one model."""
        return self.student + self.teacher

    @property
    def opposed(self) -> int:
        return self.opposed_first + self.opposed_last

    @property
    def inconsistent(self) -> int:
        """Items on which a model was named once, and not again."""
        return self.opposed + self.half

    @property
    def named(self) -> int:
        return self.same + self.inconsistent

    @property
    def read(self) -> int:
        """Items judged and read in both orders."""
        return self.named + self.tie

    @property
    def n(self) -> int:
        return sum(self)


class Sides(NamedTuple):
    """Items on which both orders named the one side of an attribute (the longer answer), its other side (the shorter), and
    those among the same items on which a model was named only once."""

    one: int
    other: int
    inconsistent: int


def tally(items: Items, judge: JudgeCalls) -> Tally:
    """Counts a judge's items. Raises `DataError` when judge and items are not of one length."""
    _check(items, judge)
    read = _read(items, judge)
    pair_N = 3 * (judge.student_first_N[read] + 1) + judge.teacher_first_N[read] + 1  # 0..8: both calls in base three
    table = np.bincount(pair_N, minlength=9).reshape(3, 3).tolist()  # row: the student shown first; column: the teacher
    identical = int(np.count_nonzero(items.identical_N))
    return Tally(
        student=table[_WON][_WON],
        teacher=table[_LOST][_LOST],
        tie=table[_TIED][_TIED],
        opposed_first=table[_WON][_LOST],
        opposed_last=table[_LOST][_WON],
        half=table[_TIED][_WON] + table[_TIED][_LOST] + table[_WON][_TIED] + table[_LOST][_TIED],
        unreadable=items.n - identical - int(np.count_nonzero(read)),
        identical=identical,
    )


def outcomes(items: Items, judge: JudgeCalls, unreadable: float) -> NDArray[np.float64]:
    """Each item's outcome, (N,): the student wins 1, the teacher 0, a tie or two calls that do not agree ½.

    `unreadable` is the value of an item without a reading in both orders: 0 and 1 bound what it may have been. Raises as
    `tally`.
    """
    _check(items, judge)
    settled = settled_calls(items, judge)
    known = np.where(settled == Call.UNREADABLE, 0, settled).astype(np.float64) / 2 + _EVEN
    return np.where(settled == Call.UNREADABLE, unreadable, known)


def settled_calls(items: Items, judge: JudgeCalls) -> Calls:
    """Each item's call once both orders are heard, (N,): the model both name, else a tie; UNREADABLE as it is."""
    one, two = judge.student_first_N, judge.teacher_first_N
    settled = np.where(one == two, one, Call.TIE)
    settled = np.where(_read(items, judge) | items.identical_N, settled, Call.UNREADABLE)
    return np.where(items.identical_N, Call.TIE, settled).astype(np.int8)


def length_sides(items: Items, judge: JudgeCalls, equally_long: Call = Call.TIE) -> Sides:
    """The judge's items with answers of different lengths, by whether it named the longer.

    Where the answers are equally long, `equally_long` passes for the longer one; TIE leaves these items out.
    """
    one, two = judge.student_first_N, judge.teacher_first_N
    longer_N = np.where(items.longer_N == Call.TIE, equally_long, items.longer_N)
    is_named = _read(items, judge) & (longer_N != Call.TIE) & ~((one == Call.TIE) & (two == Call.TIE))
    is_same = is_named & (one == two)
    settled, longer = int(np.count_nonzero(is_same)), int(np.count_nonzero(is_same & (one == longer_N)))
    return Sides(longer, settled - longer, int(np.count_nonzero(is_named)) - settled)


def gold_agreement(items: Items, judge: JudgeCalls, level: float = 0.95) -> Agreement | None:
    """Agreement of judge and gold on the items where both name a model; None where there is no such item."""
    settled, gold = settled_calls(items, judge), items.gold_N
    both = np.isin(settled, (Call.STUDENT, Call.TEACHER)) & np.isin(gold, (Call.STUDENT, Call.TEACHER))
    if not both.any():
        return None
    table = PairedTable.from_correct(settled[both] == Call.STUDENT, gold[both] == Call.STUDENT)
    return agreement(table, level)


def figures(items: Items, judge: JudgeCalls, level: float) -> dict[str, Any]:
    """What the page shows of a judge: shares with exact intervals at `level`; None where nothing can be counted."""
    counts, sides = tally(items, judge), length_sides(items, judge)
    people = gold_agreement(items, judge, level)
    return {
        "outcomes": counts._asdict() | {"inconsistent": counts.inconsistent},
        "swap_consistency": share(counts.same, counts.named, level) if judge.is_swapped else None,
        "first_shown": share(counts.opposed_first, counts.opposed, level) if judge.is_swapped else None,
        "longer_preferred": share(sides.one, sides.one + sides.other, level),
        "gold_agreement": None if people is None else asdict(people),
        "gold_items": int(np.count_nonzero(items.gold_N != Call.UNREADABLE)),
    }


def share(part: int, whole: int, level: float) -> dict[str, Any] | None:
    """A share with its Clopper-Pearson interval, as the page takes it; None of nothing."""
    if whole == 0:
        return None
    found = clopper_pearson(part, whole, level)
    return {"share": part / whole, "low": found.low, "high": found.high, "n": whole, "level": level}


def _read(items: Items, judge: JudgeCalls) -> NDArray[np.bool_]:
    is_read = (judge.student_first_N != Call.UNREADABLE) & (judge.teacher_first_N != Call.UNREADABLE)
    return is_read & ~items.identical_N


def _check(items: Items, judge: JudgeCalls) -> None:
    if judge.student_first_N.shape != (items.n,):
        raise DataError(
            f"judge {judge.name!r} has calls on {judge.student_first_N.size} items of {items.n}",
            fix="give a call on every item; where the judge gave none, UNREADABLE",
        )
