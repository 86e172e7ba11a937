import base64
import math

import pytest

from tests.test_records import exchange
from tutelage.config import TaskTable
from tutelage.errors import SignalError
from tutelage.records import Exchange, Message, Position, TokenLogprob
from tutelage.tasks import FLOOR_NATS, literal_label, read_answer, read_label, student_messages, teacher_messages

TASK = TaskTable(
    labels=("negative", "positive", "neutral"),
    instruction="Judge.",
    question="Text: {text}",
    examples=({"text": "fine", "label": "positive"},),
)


def said(answer: str, *candidates: tuple[bytes, float]) -> Exchange:
    top = tuple(TokenLogprob(base64.b64encode(text).decode(), -1, round(1e6 * math.log(p))) for text, p in candidates)
    positions = (Position(top[0], top),) if top else ()
    return Exchange.from_json(
        {**exchange().to_json(), "answer": answer, "logprobs": [position.to_json() for position in positions]}
    )


def test_the_teacher_sees_the_prompt_and_the_student_the_question_alone() -> None:
    assert teacher_messages(TASK, "x {y}") == (
        Message("system", "Judge."),
        Message("user", "Text: fine"),
        Message("assistant", "positive"),
        Message("user", "Text: x {y}"),
    )
    assert student_messages(TASK, "x {y}") == (Message("user", "Text: x {y}"),)


def test_labels_are_read_from_the_longest_token_that_begins_them_alone() -> None:
    found = read_label(TASK, said("positive", (b"positive", 0.6), (b" pos", 0.1), (b"ne", 0.1), (b"neg", 0.15)))
    assert [round(math.exp(value), 3) for value in found.logp_L] == [0.15, 0.6, 0.0]
    assert found.logp_L[2] == FLOOR_NATS
    assert found.mass == pytest.approx(0.75, abs=1e-5)
    assert found.literal == 1


@pytest.mark.parametrize(
    ("answer", "label"),
    [(" Positive.", 1), ("NEGATIVE", 0), ("pos", 1), ("ne", -1), ("neu", 2), ("", -1), ("positively", -1), ("the", -1)],
)
def test_literal_labels(answer: str, label: int) -> None:
    assert literal_label(TASK, answer) == label


def test_missing_logprobs_are_an_error_unless_text_is_the_signal() -> None:
    with pytest.raises(SignalError, match="no log-probabilities"):
        read_answer(TASK, said("positive"), "top-logprobs")
    found = read_answer(TASK, said("positive"), "text")
    assert found.logp_L == (FLOOR_NATS, 0.0, FLOOR_NATS)
    assert read_answer(TASK, said("who knows"), "text").mass == 0
