import base64
import math

import pytest

from tests.test_records import exchange
from tutelage.config import TaskTable, TeacherTable
from tutelage.errors import SignalError
from tutelage.models.questions import label_params
from tutelage.records import RAW, Exchange, Message, Position, TokenLogprob
from tutelage.signals.labels import label_distribution
from tutelage.tasks import (
    FLOOR_NATS,
    label_logprobs,
    literal_label,
    read_answer,
    read_label,
    student_messages,
    teacher_messages,
)

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


def test_a_label_with_and_without_its_space_counts_twice_everywhere() -> None:
    position = said("good", (b" good", 0.5), (b"good", 0.1), (b"go", 0.1), (b" bad", 0.2)).logprobs[0]
    assert [round(math.exp(value), 3) for value in label_logprobs(("bad", "good"), position)] == [0.2, 0.6]
    found = label_distribution(position, ("bad", "good"), (7, 8), {b"go": 3})
    assert {token: round(math.exp(value), 3) for token, value in found.items()} == {8: 0.6, 7: 0.2, 3: 0.1}


def test_a_completion_ends_where_the_label_goes() -> None:
    task = TASK.model_copy(
        update={"completion": "Q: {text}\nA: {label}\n---\n", "instruction": "Judge.", "question": "{text}"}
    )
    assert teacher_messages(task, "x {label} {text}") == (
        Message(RAW, "Judge.\n\nQ: fine\nA: positive\n---\nQ: x {label} {text}\nA:"),
    )
    assert student_messages(task, "x") == (Message("user", "x"),)
    assert label_params(TeacherTable(url="http://a/v1", signal="text"), task)["stop"] == ["\n"]


@pytest.mark.parametrize(
    "wrong", ["{text}", "{label} {text}", "{text} {label} {label}", "{text}{label}{text}", "{label}"]
)
def test_a_completion_needs_its_text_and_then_its_label(wrong: str) -> None:
    with pytest.raises(ValueError, match="must contain"):
        TaskTable(labels=("a", "b"), completion=wrong)


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
