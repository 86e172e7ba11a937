import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import DataError
from tutelage.schema import MAX_LINE, compile_schema, one_line, tool_arguments_problem, tools_problem, unsatisfiable

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
NODE = {"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/n"}}}
LEFT, RIGHT = (
    {"type": "object", "required": [key], "properties": {key: {"$ref": f"#/$defs/{key}"}}} for key in ("right", "left")
)
NOTHING = {
    "false": False,
    "empty enum": {"enum": []},
    "const of another type": {"const": 1, "type": "string"},
    "enum that breaks the rest": {"enum": ["x", "y"], "pattern": "^z"},
    "range": {"type": "integer", "minimum": 5, "maximum": 3},
    "exclusive range": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "no multiple": {"type": "number", "multipleOf": 10, "minimum": 1, "maximum": 9},
    "length": {"type": "string", "minLength": 3, "maxLength": 2},
    "items": {"type": "array", "minItems": 3, "maxItems": 2},
    "properties": {"type": "object", "minProperties": 3, "maxProperties": 2},
    "required and impossible": {"type": "object", "required": ["a"], "properties": {"a": {"enum": []}}},
    "required and forbidden": {"type": "object", "required": ["a"], "additionalProperties": False},
    "required and misnamed": {"type": "object", "required": ["abc"], "propertyNames": {"maxLength": 2}},
    "disjoint types": {"allOf": [{"type": "string"}, {"type": "number"}]},
    "disjoint ranges": {"type": "number", "allOf": [{"minimum": 5}, {"maximum": 4}]},
    "no alternative": {"anyOf": [False, {"enum": ["x"], "type": "integer"}]},
    "never exactly one": {"oneOf": [{"type": "integer"}, {"type": "integer"}]},
    "items impossible": {"type": "array", "minItems": 1, "items": {"minimum": 2, "maximum": 1, "type": "number"}},
    "too few to be unique": {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}, "minItems": 3},
    "not anything": {"not": {}},
    "not true": {"not": True},
    "local reference": {"$defs": {"s": {"type": "string"}}, "const": 1, "$ref": "#/$defs/s"},
    "reference to false": {"definitions": {"s": False}, "$ref": "#/definitions/s"},
    "holds itself": {"$defs": {"n": NODE}, "$ref": "#/$defs/n"},
    "list of itself": {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
    "hold each other": {"$defs": {"left": LEFT, "right": RIGHT}, "$ref": "#/$defs/left"},
    "deep inside": {"type": "object", "required": ["a"], "properties": {"a": {**OBJECT, "maxProperties": 0}}},
}
SOMETHING = {
    "true": True,
    "range for numbers alone": {"minimum": 5, "maximum": 3},  # a text satisfies it
    "list of nothing": {"type": "array", "items": False},
    "forbidden but not required": {"type": "object", "properties": {"a": False}},
    "tree": {"type": ["object", "null"], "required": ["n"], "properties": {"n": {"$ref": "#"}}},
    "refers to itself alone": {"$ref": "#"},
    "paradox": {"$defs": {"e": {"not": {"$ref": "#/$defs/e"}, "$ref": "#/$defs/e"}}, "$ref": "#/$defs/e"},
    # the proof would run for ever on this one:
    "unevaluated": {
        "oneOf": [{"additionalProperties": {"$ref": "#", "unevaluatedItems": {}}}, {"unevaluatedItems": {}}]
    },
}


@pytest.mark.parametrize("schema", NOTHING.values(), ids=NOTHING)
def test_what_nothing_satisfies_is_told(schema: Any) -> None:
    assert unsatisfiable(schema)
    with pytest.raises(DataError, match="nothing can satisfy the schema"):
        compile_schema(json.dumps(schema))


@pytest.mark.parametrize("schema", SOMETHING.values(), ids=SOMETHING)
def test_what_something_may_satisfy_is_left_alone(schema: Any) -> None:
    assert unsatisfiable(schema) == ""
    compile_schema(json.dumps(schema))


def test_the_reason_names_keywords_and_place() -> None:
    assert unsatisfiable(NOTHING["range"]) == "minimum, maximum"
    reason = unsatisfiable(NOTHING["deep inside"])
    assert "nothing fits /properties/a (" in reason
    assert "maxProperties" in reason


VALUES = (
    None, True, False, -1, 0, 1, 2, 3, 0.5, 1.5, "", "a", "b", "ab", "abc", "é😀", [], [1], [1, 1], ["a"], [[]], [1, "a"],
    [None, None, None], {}, {"a": 1}, {"b": "x"}, {"a": 1, "b": 2}, {"a": {"a": 1}}, {"a": None, "ab": []}, [{"a": 1}],
)  # fmt: skip
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
NAMES = ("a", "b", "ab")


def drawn(chance: random.Random, depth: int) -> Any:
    """A schema of every keyword that the proof knows, from a small grammar."""
    if depth == 0:
        return chance.choice([True, False, {"type": chance.choice(TYPES)}, {"$ref": "#"}, {"$ref": "#/$defs/d"}])

    def inner() -> Any:
        return drawn(chance, depth - 1)

    def few(choices: Sequence[Any]) -> list[Any]:
        return chance.sample(choices, chance.randint(1, 2))

    table: dict[str, Callable[[], Any]] = {
        "type": lambda: chance.choice([chance.choice(TYPES), few(TYPES)]),
        "const": lambda: chance.choice(VALUES),
        "enum": lambda: [chance.choice(VALUES) for _ in range(chance.randint(0, 3))],
        "multipleOf": lambda: chance.choice([0.5, 1, 2, 3]),
        "pattern": lambda: chance.choice(["^a", "b$", "^.$", "^$"]),
        "uniqueItems": lambda: True,
        "required": lambda: few(NAMES),
        "patternProperties": lambda: {chance.choice(["^a", "b$"]): inner()},
        "dependentRequired": lambda: {"a": ["b"]},
        "$ref": lambda: chance.choice(["#", "#/$defs/d", "#/$defs/e"]),
        **dict.fromkeys(("properties", "dependentSchemas"), lambda: {name: inner() for name in few(NAMES)}),
        **dict.fromkeys(
            ("allOf", "anyOf", "oneOf", "prefixItems"), lambda: [inner() for _ in range(chance.randint(1, 3))]
        ),
        **dict.fromkeys(("not", "if", "then", "else", "items", "contains", "propertyNames"), inner),
        **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "unevaluatedItems"), inner),
        **dict.fromkeys(
            (f"{side}{what}" for side in ("min", "max") for what in ("Length", "Items", "Contains", "Properties")),
            lambda: chance.randint(0, 3),
        ),
        **dict.fromkeys(
            ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
            lambda: chance.choice([-1, 0, 1, 2, 0.5, 1.5]),
        ),
    }
    return {key: table[key]() for key in chance.sample(sorted(table), chance.randint(0, 4))}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_what_satisfies_a_schema_is_never_said_not_to_exist(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        schema = {**drawn(chance, 1 + chance.randrange(3)), "$defs": {"d": drawn(chance, 2), "e": drawn(chance, 1)}}
        validator = jsonschema_rs.validator_for(schema, offline=True)
        if any(validator.is_valid(value) for value in VALUES):
            assert unsatisfiable(schema) == "", schema


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('{"a": 1}', ""),
        (' {"a": 10000000000000000000000} ', ""),
        ('{"a": "1"}', 'at /a: "1" is not of type "integer"'),
        ("{}", '"a" is a required property'),
        ('```json\n{"a": 1}\n```', "not JSON"),
        ('{"a": 1} and more', "not JSON"),
        ("", "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": 1e999}', "not JSON"),
        ('{"a": "\ud800"}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": "' + "x" * 1000 + '"}', 'is not of type "integer"'),
        ('{"a": "\\u001b[31m\\n"}', 'is not of type "integer"'),
    ],
)
def test_an_answer_is_json_that_satisfies_or_its_problem_is_one_line(answer: str, problem: str) -> None:
    said = compile_schema(json.dumps(OBJECT)).problem(answer)
    assert problem in said if problem else said == ""
    assert len(said) <= MAX_LINE
    assert said.isprintable()


def test_a_deep_answer_is_checked_to_its_end() -> None:
    assert "cannot be checked" in compile_schema('{"type": "object"}').problem("[" * 900 + "]" * 900)
    nested = compile_schema('{"items": {"$ref": "#"}, "maxItems": 1}')
    assert nested.problem("[" * 900 + "]" * 900) == ""
    assert nested.problem("[" * 900 + "1,2" + "]" * 900)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"type": "text"}', "at /type"),
        ('{"pattern": "("}', "at /pattern"),
        ('{"minimum": NaN}', "not JSON"),
        ('{"$ref": "http://127.0.0.1:1/schema.json"}', "refers to 'http://127.0.0.1:1/schema.json', outside itself"),
        ('{"$ref": "file:///etc/hostname"}', "outside itself"),
        ('{"$ref": "#/$defs/none"}', "does not exist"),
        ('{"$schema": "http://127.0.0.1:1/own"}', "no JSON Schema"),
        ('{"not":' * 5000 + "{}" + "}" * 5000, "not JSON|too involved"),
        ('{"not":' * 150 + "{}" + "}" * 150, "too involved"),
    ],
)
def test_what_is_no_schema_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compile_schema(text)


def test_nothing_outside_is_read(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"type": "string"}')
    with pytest.raises(DataError, match="outside itself"):
        compile_schema(json.dumps({"$ref": (tmp_path / "other.json").as_uri()}))
    assert unsatisfiable({"$ref": (tmp_path / "other.json").as_uri(), "type": "integer"}) == ""


def test_long_chains_of_references_are_refused_before_they_overrun_the_stack() -> None:
    def chain(length: int) -> str:
        links = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}]} for at in range(length)}
        return json.dumps({"$defs": {**links, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"})

    with pytest.raises(DataError, match="too involved"):
        compile_schema(chain(20_000))
    longest = compile_schema(chain(198))
    assert longest.problem('"x"') == ""
    assert longest.problem("1")


TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": "look_up", "description": "d", "parameters": OBJECT}},
        {"type": "function", "function": {"name": "now"}},
    ]
)


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("look_up", '{"a": 1}', ""),
        ("now", "{}", ""),
        ("look-up", "{}", "calls 'look-up'; the tools are look_up, now"),
        ("look_up", '{"a": 1', "arguments of look_up are not JSON"),
        ("now", "[]", "no JSON object"),
        ("now", "", "not JSON"),
        ("look_up", '{"a": 1, "b": 2}', "arguments of look_up: .*'b'"),
        ("look_up", '{"a": "1"}', "arguments of look_up: at /a"),
    ],
)
def test_a_tool_call_fits_its_tool(name: str, arguments: str, problem: str) -> None:
    said = tool_arguments_problem(TOOLS, (call("now", "{}"), call(name, arguments)))
    assert re.search(problem, said) if problem else said == ""


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ("{", "not JSON"),
        ("{}", "not a list"),
        ('[{"name": "f", "parameters": {}}]', "no function tool"),
        ('[{"type": "custom", "custom": {"name": "f"}}]', "no function tool"),
        ('[{"type": "function", "function": {"name": "a b"}}]', "the name 'a b'"),
        ('[{"type": "function", "function": {}}]', "the name 'None'"),
        ('[{"type": "function", "function": {"name": "f", "description": 5}}]', "description is no text"),
        ('[{"type": "function", "function": {"name": "f", "parameters": {"type": 5}}}]', "parameters of tool f"),
        ('[{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]', "nothing can satisfy"),
        (json.dumps([{"type": "function", "function": {"name": "f"}}] * 2), "two tools"),
    ],
)
def test_tools_are_openai_function_tools(tools: str, problem: str) -> None:
    assert problem in tools_problem(tools)
    assert problem in tool_arguments_problem(tools, [call("f", "{}")])
    assert tools_problem(TOOLS) == ""


def test_one_line_keeps_both_ends() -> None:
    line = one_line("start\x1b" + "x" * 1000 + "end")
    assert line.startswith("start\\x1b")
    assert line.endswith("end")
    assert len(line) <= MAX_LINE
