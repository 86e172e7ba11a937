"""Whatever a model writes: a number between 0 and 1, no exception, and soon; what is read agrees with itself."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.prove.tasks.base import Answer, Task
from tutelage.prove.tasks.catalogue import task_of

TASKS = {
    "exact": {},
    "labels": {"labels": ["yes", "no"]},
    "number": {},
    "maths": {},
    "json": {},
    "tool_calls": {},
    "rouge_l": {},
    "chrf": {},
}
HOSTILE = {
    "braces": "{" * 100_000,
    "brackets": "[" * 100_000,
    "pairs": "[]" * 50_000,
    "keys": '{"a":' * 20_000,
    "parentheses": "(" * 100_000,
    "boxes": r"\boxed{" * 15_000,
    "fractions": r"\frac{" * 15_000,
    "dollars": "$" * 100_000,
    "display": r"\(" * 50_000,
    "digits": "9" * 100_000,
    "groups": "1,111," * 16_000,
    "tower": r"\boxed{9^{9^{9^{9^9}}}}",
    "factorial": r"\boxed{500!^{500!}}",
    "huge": '{"a": ' + "9" * 50_000 + "}",
    "exponent": '{"a": 1e999999999}',
    "nan": '{"a": NaN}',
    "infinity": "[Infinity, -Infinity]",
    "surrogate": '{"a": "\\ud800"}',
    "lone": "\ud800",
    "fences": "```json\n" * 10_000,
    "calls": "f(" * 3000,
    "python": "f(x=" + "(" * 3000,
    "quotes": '{"' * 50_000,
    "list": json.dumps(list(range(20_000))),
    "same": "a " * 30_000,
    "minus": "-" * 100_000,
    "nul": "\0" * 1000,
    "tags": "<tool_call>" * 9000,
    "product": r"\boxed{" + "(x+1)^{1000}" * 30 + "}",
    "roots": r"\boxed{" + r"\sqrt" * 90 + "2}",
    "spaces": "1 1/" * 25_000,
    "wide": json.dumps({str(at): at for at in range(5000)}),
    "marks": "####" * 25_000,
    "escape": "\x1b[2J" * 10,
}


def check(task: Task, text: str, other: str) -> None:
    found = task.score(Answer(text), other)
    assert 0 <= found.value <= 1
    assert found.read.isprintable()
    assert len(found.read) <= 200
    found.read.encode()
    json.dumps(dict(found.parts), allow_nan=False)
    try:
        task.require_reference(text)
    except DataError as error:
        str(error).encode()
    else:
        if task.score(Answer(text), text).is_read:
            assert task.score(Answer(text), text).value == 1


@pytest.mark.parametrize("kind", TASKS)
def test_hostile_text_is_scored_soon(kind: str) -> None:
    task = task_of(kind, TASKS[kind])
    for name, text in HOSTILE.items():
        # Counting n-grams takes 0.4 s of 100 kB whatever they are: once will do.
        whole = text if kind != "chrf" or name == "digits" else text[:5000]
        began = time.process_time()
        assert 0 <= task.score(Answer(whole), whole).value <= 1
        assert time.process_time() - began < 5, name
        check(task, text[:2000], text[:2000])


@pytest.mark.parametrize("kind", TASKS)
@settings(derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=60) | st.text(r"0123456789.,-/\{}()[]^+$ax:\" ", max_size=30), other=st.text(max_size=20))
def test_any_text(kind: str, text: str, other: str) -> None:
    check(task_of(kind, TASKS[kind]), text, other)
    check(task_of(kind, TASKS[kind]), other, text)
