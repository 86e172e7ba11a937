"""Filters: an answer is kept, or dropped with a reason and what shows it. Pure."""

from collections.abc import Callable
from typing import NamedTuple

from tutelage.config import TaskTable
from tutelage.records import Exchange
from tutelage.tasks import literal_label, read_label

LEAST_LABEL_MASS = 0.01


class Reason(NamedTuple):
    """Why an answer is dropped: filter name and version, reason, and the span that shows it."""

    filter: str
    version: int
    reason: str
    evidence: str


Filter = Callable[[TaskTable, Exchange], Reason | None]


def finished(task: TaskTable, exchange: Exchange) -> Reason | None:
    """Drops an answer the provider's own filter cut."""
    if exchange.finish_reason not in ("content_filter", "refusal", "safety"):
        return None
    return Reason("finished", 1, f"finish_reason is {exchange.finish_reason!r}", exchange.answer[:80])


def names_a_label(task: TaskTable, exchange: Exchange) -> Reason | None:
    """Drops an answer that gives the labels next to no probability (or, as text, names none)."""
    if exchange.logprobs:
        mass = read_label(task, exchange).mass
        if mass >= LEAST_LABEL_MASS:
            return None
        return Reason("names-a-label", 1, f"all labels together have probability {mass:.6f}", exchange.answer[:80])
    if literal_label(task, exchange.answer) >= 0:
        return None
    return Reason("names-a-label", 1, "the answer is none of the labels", exchange.answer[:80])


FILTERS: tuple[Filter, ...] = (finished, names_a_label)
