"""What a system said to the items of a proof, and what its answers are worth.

Shape legend: N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import DataError, TutelageError
from tutelage.prove.tasks.base import Answer, Score, Task

NOTHING = Score(0.0, False, "")


@dataclass(frozen=True, slots=True)
class Answered:
    """One system's answers, an entry an item; None for an item that it refused, which is worth nothing.

    Tokens, money (nano-USD), seconds a question (`latency_s`, wall), where the server is ours CPU-seconds, and joules of the
    machine's counters where it has such; `ended` is the share of answers that ended by themselves instead of at the limit.
    """

    role: str
    label: str
    answers: tuple[Answer | None, ...]
    prompt_tokens: float
    completion_tokens: float
    cost_nusd: float
    latency_s: float
    cpu_s: float | None
    ended: float
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of one system's answers against one reference an item."""

    scores: tuple[Score, ...]

    @property
    def value_N(self) -> NDArray[np.float64]:
        return np.array([score.value for score in self.scores])

    @property
    def unread(self) -> int:
        return sum(not score.is_read for score in self.scores)

    def parts(self) -> dict[str, float]:
        """Means of the parts, over the items that have them."""
        found: dict[str, list[float]] = {}
        for score in self.scores:
            for name, value in score.parts.items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in sorted(found.items())}


def scored(task: Task, answers: Sequence[Answer | None], references: Sequence[str | None]) -> Scored:
    """Every answer against its reference; a missing answer, or reference, is worth 0. Raises `DataError` for unequal lengths
    and for a plug-in's mistakes: a score that is no number from 0 to 1, or neither where the task says that all are, an
    exception."""
    if len(answers) != len(references):
        raise DataError(f"{len(answers)} answers for {len(references)} items", fix="score the same items")
    found = []
    for at, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        found.append(NOTHING if answer is None or reference is None else _scored(task, at, answer, reference))
    return Scored(tuple(found))


def _scored(task: Task, at: int, answer: Answer, reference: str) -> Score:
    where = f"task {task.name}: item {at + 1}"
    try:
        score = task.score(answer, reference)
        is_share = 0.0 <= score.value <= 1.0
    except TutelageError:
        raise
    except Exception as error:  # a plug-in's may be any
        raise _plugin_error(where, error) from error
    if not is_share:
        raise DataError(f"{where} scores {score.value!r}", fix="a score is a number from 0 to 1; mend the task")
    if task.is_binary and score.value not in (0.0, 1.0):
        raise DataError(
            f"{where} scores {score.value!r}, and the task says that every score is 0 or 1",
            fix="set its is_binary to False, or score 0 or 1",
        )
    return score


def _plugin_error(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: {type(error).__name__}: {error}", fix="mend the task; answers are kept")


def asked_twice(task: Task, wanted: int, items: int) -> int:
    """How many of the items the teacher is asked again: none where one answer says nothing of another."""
    return min(wanted, items) if answers_are_references(task) else 0


def answers_are_references(task: Task) -> bool:
    """Whether one model's answer can stand as the reference of another's."""
    return bool(getattr(task, "answers_are_references", True))


def as_references(task: Task, answers: Sequence[Answer | None]) -> list[str | None]:
    """Another model's answers as references; None where there is none, or the task cannot read it. A task whose
    references are not words says itself what an answer is as one (`reference_of`); one whose references are no answers at
    all (tests of code) has none (`answers_are_references`). Raises `DataError` for a plug-in's exceptions."""
    if not answers_are_references(task):
        return [None] * len(answers)
    return [None if answer is None else _reference(task, at, answer) for at, answer in enumerate(answers)]


def _reference(task: Task, at: int, answer: Answer) -> str | None:
    try:
        text = task.reference_of(answer) if hasattr(task, "reference_of") else answer.text
        task.require_reference(text)
    except DataError:
        return None
    except TutelageError:
        raise
    except Exception as error:  # a plug-in's may be any
        raise _plugin_error(f"task {task.name}: item {at + 1}", error) from error
    return text
