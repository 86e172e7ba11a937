"""The nouns of a scoring task, and the interface that a task of one's own implements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tutelage.errors import DataError
from tutelage.schema import one_line

MAX_SHOWN = 80  # characters of an answer in an error or a reading


@dataclass(frozen=True, slots=True)
class Answer:
    """What a system said; `tool_calls` as in `records.Message`."""

    text: str
    tool_calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth, from 0 to 1; whether there was anything to score in it; `read` is what was read, for people;
    `parts` are numbers by name, whose means over items mean something."""

    value: float
    is_read: bool
    read: str
    parts: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A way to score. Pure: the same answer and reference give the same score, in any order and any process.

    `is_binary`: every value is 0 or 1. `metric` names the mean of the values ("accuracy", "ROUGE-L" …).
    """

    @property
    def name(self) -> str: ...
    @property
    def is_binary(self) -> bool: ...
    @property
    def metric(self) -> str: ...

    def require_reference(self, reference: str) -> None:
        """Raises `DataError`, with the value and the fix, for a gold that the task cannot read."""
        ...

    def score(self, answer: Answer, reference: str) -> Score:
        """`reference` is the gold, or another model's answer (agreement). Never raises for what a model wrote: an answer
        or a reference that cannot be read is worth 0."""
        ...


def shown(value: str) -> str:
    """A few characters of text from outside on one line, safe to print, to write and to quote."""
    cut = value[:MAX_SHOWN] + ("…" if len(value) > MAX_SHOWN else "")
    return one_line(cut)


def unreadable(kind: str, reference: str, why: str, fix: str) -> DataError:
    """The error for a gold that a task cannot read."""
    return DataError(f"task {kind}: gold {shown(reference)!r} {why}", fix=fix)
