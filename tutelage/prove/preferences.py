"""People's preferences between teacher and student, held against the answers that a proof got: a decision on other answers, or a
sample of other items, is no gold of this proof."""

import math
from collections.abc import Mapping, Sequence

from tutelage.errors import DataError
from tutelage.prove.gold import Gold
from tutelage.prove.gold_file import Row, Unit, draw
from tutelage.prove.shown import BUTTONS_OF_PAIRS, Shown, turns_of, with_calls
from tutelage.prove.tasks.base import Answer
from tutelage.records import Question

Answers = Mapping[str, Sequence[Answer | None]]  # by system, an entry a question; None where it refused
_AGAIN = "label the answers of this run (tutelage label RUN --pairs, into a new file)"


def require_possible(gold: Gold, items: Sequence[str]) -> None:
    """What can be known before anybody is asked: pairs are of items that both systems answered, so of all of them or of fewer.

    Raises `DataError` as `Gold.require_drawn_from` for a sample of all items, and for decided items that are not among these.
    """
    known = set(items)
    if gold.header.items >= len(known) or any(unit.item not in known for unit in gold.decided):
        gold.require_drawn_from(items)


def preferences_of(gold: Gold, questions: Sequence[Question], answers: Answers) -> dict[str, float]:
    """How far people prefer the student's answer, 0 to 1, by item.

    The sample is of all items, or of those that both answered. In the second case items that the student alone refused go to
    the teacher, as many of them (drawn by the sample's own seed, rounded up) as the others have decisions: so what is known
    stays a random sample of the items that the teacher answered, and refusing gains nothing.

    Raises `DataError` for decisions made on other answers than these (how many, the first item), and as
    `Gold.require_drawn_from` for a sample of other items.
    """
    said = {
        name: {one.prompt_id: answer for one, answer in zip(questions, found, strict=True) if answer is not None}
        for name, found in answers.items()
    }
    by_id = {one.prompt_id: one for one in questions}
    both = [item for item in by_id if item in said["teacher"] and item in said["student"]]
    of_all = gold.header.items == len(by_id)
    try:
        gold.require_drawn_from(list(by_id) if of_all else both)
    except DataError as error:
        raise DataError(f"{error.message}; {len(both)} were answered by both teacher and student", fix=_AGAIN) from None
    if other := [unit.item for unit, rows in gold.decided.items() if not _is_of(gold, by_id[unit.item], rows, said)]:
        raise DataError(
            f"{len(other)} of {len(gold.decided)} preferences were made on other answers than this run's, the first on item "
            f"{min(other)}",
            fix=_AGAIN,
        )
    refused = [item for item in by_id if item in said["teacher"] and item not in said["student"]]
    lost = [] if of_all else draw(refused, math.ceil(len(refused) * len(gold.decided) / len(both)), gold.header.seed)
    return gold.preferences("student") | dict.fromkeys(lost, 0.0)


def _is_of(gold: Gold, question: Question, rows: Mapping[str, Row], said: Mapping[str, Mapping[str, Answer]]) -> bool:
    """Whether every person was shown this question with these answers."""
    item = question.prompt_id
    if any(item not in found for found in said.values()):
        return False
    for row in rows.values():
        texts = tuple(with_calls(said[name][item].text, said[name][item].tool_calls) for name in row.order)
        page = Shown(Unit(item), turns_of(question), texts, row.order)
        if page.digest(gold.header.asked, BUTTONS_OF_PAIRS) != row.shown:
            return False
    return True
