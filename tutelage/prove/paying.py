"""What a question costs of each model: in which unit two are compared, who is better or cheaper, and when a student has paid for
itself. Quality is better the higher it is, a price the lower."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Unit(NamedTuple):
    """In what a question is paid: a key of a system's row, a word for it, and what an axis says."""

    key: str
    words: str
    axis: str


MONEY = Unit("usd_per_1000", "money", "US dollars per 1,000 questions")
CPU = Unit("cpu_s_per_query", "CPU-seconds", "CPU-seconds per question")
WAITED = Unit("latency_s", "seconds waited", "seconds waited per question: no price, but nothing else is known of both")
UNITS = (MONEY, CPU, WAITED)


def unit_of(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> Unit | None:
    """The first unit in which both have a price above 0; None where there is none."""
    return next((unit for unit in UNITS if teacher[unit.key] and student[unit.key]), None)


def queries_to_pay(once: float | None, teacher: float | None, student: float | None) -> int | None:
    """After how many queries what the student took to make (`once`) is saved, at what a query costs of either, all in one unit;
    None where a part is not known, or the student saves nothing."""
    if once is None or teacher is None or student is None or teacher <= student:
        return None
    return math.ceil(once / (teacher - student))


def front(prices: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """The places of those than whom nobody is both at least as good and at least as cheap, and one of the two strictly: the
    Pareto front, from the cheapest on. By the values alone, whatever their intervals."""
    points = list(zip(prices, qualities, strict=True))
    kept = [
        at
        for at, (price, quality) in enumerate(points)
        if not any(p <= price and q >= quality and (p < price or q > quality) for p, q in points)
    ]
    return sorted(kept, key=lambda at: points[at])
