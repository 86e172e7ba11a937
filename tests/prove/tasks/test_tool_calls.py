"""Calls by name and value, wherever and in whatever dialect they were written."""

import json
from typing import Any

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.prove.tasks.base import Answer, Score
from tutelage.prove.tasks.catalogue import task_of

GOLD = '[{"name": "book", "arguments": {"city": "Oslo", "seats": 2}}]'
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "book",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "seats": {"type": "integer", "default": 2}},
                },
            },
        }
    ]
)


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def score(text: str, *calls: dict[str, Any], gold: str = GOLD, **options: Any) -> Score:
    return task_of("tool_calls", options).score(Answer(text, calls), gold)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "book", "arguments": {"seats": 2.0, "city": "Oslo"}}\n</tool_call>',
        'I will.\n```json\n[{"name": "book", "parameters": {"city": "Oslo", "seats": 2}}]\n```',
        '[book(city="Oslo", seats=2)]',
        "book(seats=2, city='Oslo')",
        json.dumps(call("book", '{"city": "Oslo", "seats": 2}')),
    ],
)
def test_calls_in_text(text: str) -> None:
    assert score(text).value == 1


@pytest.mark.parametrize(
    ("name", "arguments", "is_right"),
    [
        ("book", '{"seats": 2, "city": "Oslo"}', 1),
        ("book", '{"seats": 3, "city": "Oslo"}', 0),
        ("book", '{"city": "Oslo"}', 0),
        ("book", '{"seats": "2", "city": "Oslo"}', 0),
        ("book", '{"seats": true, "city": "Oslo"}', 0),
        ("Book", '{"seats": 2, "city": "Oslo"}', 0),
        ("book", '{"seats": 2, "city": "oslo"}', 0),
        ("book", '{"seats": 2, "city": "Oslo", "x": null}', 0),
    ],
)
def test_one_call(name: str, arguments: str, is_right: int) -> None:
    found = score("", call(name, arguments))
    assert (found.value, found.is_read, found.parts["names"]) == (is_right, True, float(name == "book"))


def test_defaults_order_and_number_of_calls() -> None:
    assert score("", call("book", '{"city": "Oslo"}'), tools=TOOLS).value == 1
    assert score("", call("book", '{"city": "Oslo", "seats": 3}'), tools=TOOLS).value == 0
    two = '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]'
    assert score("", call("b", "{}"), call("a", ""), gold=two).value == 1
    assert score("", call("b", "{}"), call("a", "{}"), gold=two, order=True).value == 0
    assert score("", call("a", "{}"), call("a", "{}"), gold=two).value == 0
    assert score("", call("a", "{}"), gold=two).parts == {"names": 2 / 3, "calls": 2 / 3}
    assert score("", call("book", '{"city": " oslo", "seats": 2}'), texts_exact=False).value == 1


def test_no_call_is_an_answer_and_broken_arguments_are_none() -> None:
    assert score("It is sunny in [Oslo] (2 degrees).", gold="[]").value == 1
    assert (score("It is sunny.").value, score("It is sunny.").is_read) == (0, True)
    assert score("", call("book", "{}"), gold="[]").value == 0
    for arguments in ("{", "[1]", '{"a": NaN}', "[" * 100_000):
        assert not score("", call("book", arguments)).is_read


def test_another_model_s_answer_as_reference() -> None:
    task: Any = task_of("tool_calls", {})
    for answer in (
        Answer("", (call("f", '{"x": 0.1, "y": [1e20, "é"]}'),)),
        Answer("f(x=0.1)"),
        Answer("no tool needed"),
    ):
        reference = task.reference_of(answer)
        task.require_reference(reference)
        assert task.score(answer, reference).value == 1


@pytest.mark.parametrize(
    "gold", ["book", "", "[1]", '[{"arguments": {}}]', '{"name": "f", "arguments": "{"}', '[{"name": "pay"}]']
)
def test_gold_that_is_no_list_of_calls_is_refused(gold: str) -> None:
    with pytest.raises(DataError, match="gold"):
        task_of("tool_calls", {"tools": TOOLS}).require_reference(gold)


@pytest.mark.parametrize("tools", ["{", "[1]", '[{"type": "function", "function": {"name": "a b"}}]'])
def test_tools_that_are_none_are_refused(tools: str) -> None:
    with pytest.raises(ConfigError, match="tool_calls"):
        task_of("tool_calls", {"tools": tools})


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"book","arguments":{"city":"Oslo"}</tool_call>',
        'book("Oslo")',
        '```python\n[book("Oslo")]\n```',
        '{"name":"f","arguments":{"a":1,"a":2}}',
    ],
)
def test_a_broken_call_is_not_read_as_none(text: str) -> None:
    found = score(text, gold="[]")
    assert (found.value, found.is_read) == (0.0, False)
    assert task_of("tool_calls", {}).reference_of(Answer(text)) == ""


WORDS = [
    "No tool is needed.",
    "Hello (world)",
    "f(x) is a function",
    "I use {name}.",
    "",
    "O(n)",
    "Paris(France)",
    "Sure(ish)",
]
DEGENERATE = ["\n" * 30_000 + "x", "f()" + " " * 30_000 + "x"]


@pytest.mark.parametrize("text", [*WORDS, *DEGENERATE], ids=range(len(WORDS) + len(DEGENERATE)))
def test_plain_words_are_no_call(text: str) -> None:
    assert score(text, gold="[]").value == 1.0
