import json
import sys
import uuid
from collections import OrderedDict
from dataclasses import fields, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import canon_naive
from tests.test_records import REQUEST, exchange
from tutelage.canon import canonical, decimals, digest_of
from tutelage.records import Message, Position, Record, Role, TokenLogprob, Usage

texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = st.text(st.characters(max_codepoint=127, exclude_categories=["Cs"]), max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_round_trip_and_key_order_does_not_matter(value: object) -> None:
    encoded = canonical(value)
    assert json.loads(encoded) == value
    if isinstance(value, dict):
        assert canonical(dict(reversed(list(value.items())))) == encoded


def test_rfc_8785_by_hand() -> None:
    # RFC 8785 section 3.2.2 and 3.2.3: shortest escapes, sorted keys, no white space, UTF-8.
    value = {"b": '€$\u000f\nA\'B"\\\\"/', "a": [True, None, 10]}
    assert canonical(value) == '{"a":[true,null,10],"b":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()


@pytest.mark.parametrize("wrong", [1.5, {"a": [0.1]}, 2**53, {"ä": 1}, {1: 2}, "\ud800", b"x", {"a": {3}}])
def test_refuses_what_records_may_not_hold(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        canonical(wrong)


def test_digest_is_tagged_sha256() -> None:
    assert digest_of({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_decimals_are_exact() -> None:
    assert decimals({"a": [0.1, 1, True], "b": (6e-4,)}) == {"a": ["0.1", 1, True], "b": ["0.0006"]}


@given(values)
def test_the_fast_encoder_writes_the_same_bytes(value: object) -> None:
    """Records of examples are written by orjson; the verifier reads them back as canonical JSON."""
    assert orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == canonical(value)


wrong = st.floats() | st.integers() | st.text() | st.binary() | st.uuids() | st.datetimes() | st.sampled_from(Role)
anything = st.recursive(
    st.none() | st.booleans() | wrong | texts,
    lambda inner: (
        st.lists(inner, max_size=7)
        | st.lists(st.dictionaries(st.text(max_size=3), inner, max_size=2), max_size=7)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3) | st.sampled_from(Role), inner, max_size=4)
    ),
    max_leaves=20,
)


def same_as_the_slow_twin(value: Any) -> None:
    try:
        wanted = canon_naive.canonical(value)
    except ValueError:
        with pytest.raises(ValueError, match=r"\$"):
            canonical(value)
    else:
        assert canonical(value) == wanted


@given(anything)
def test_writes_what_the_standard_library_writes_and_refuses_the_rest(value: object) -> None:
    same_as_the_slow_twin(value)


class Two(NamedTuple):
    a: int
    b: Any


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        Role.JUDGE, {Role.JUDGE: Role.RATER}, Two(1, "x"), Number.ONE, {"a": Number.ONE}, OrderedDict(b=1, a=2), (1, ()),
        -0.0, [{"a": 1}] * 9, [{"a": 1}] * 9 + [{"a": 1.0}], [{"a": 1}] * 9 + [{"\u00e4": 1}], [{"a": [1]}] * 9,
        [{"a": 1}] * 9 + [{"a": float("nan")}], [{"a": 1}] * 9 + [{"a": uuid.UUID(int=0)}], [{"a": "\ud800"}] * 9,
        {"a": {"b": float("inf")}}, [datetime(2026, 1, 1, tzinfo=UTC)], REQUEST, 2**53 - 1, -(2**53), 2**64, {None: 1},
        [[]] * 9, [{}] * 9, {"a": {"\u00e4": 1}}, {"\ud800": 1}, orjson.Fragment(b"1.5"), [1, [2, [3, {"a": b""}]]],
    ],
    ids=lambda value: type(value).__name__,  # a repr may hold an address, which two processes never share
)  # fmt: skip
def test_what_the_fast_encoder_would_take_differently(value: object) -> None:
    same_as_the_slow_twin(value)


def test_every_character_is_written_as_the_standard_library_writes_it() -> None:
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
    same_as_the_slow_twin(everything)
    same_as_the_slow_twin(dict.fromkeys(map(chr, range(128)), 1))


def test_depth() -> None:
    deep: Any = {}
    for _ in range(400):  # deeper than orjson goes
        deep = {"a": [deep]}
    same_as_the_slow_twin(deep)
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="too deeply"):
        canonical(deep)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="too deeply"):
        canonical(circle)


def naive_form(value: Any) -> Any:
    """A record as plain values, field by field: the slow twin of `Record.to_json`."""
    if isinstance(value, Record):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            field.name: naive_form(named[field.name]) for field in fields(value) if named[field.name] != field.default
        }
    if isinstance(value, list | tuple):
        return [naive_form(item) for item in value]
    if isinstance(value, dict):
        return {key: naive_form(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value


tokens = st.builds(TokenLogprob, st.text(max_size=8), st.integers(-1, 9), st.integers(-9, 0))


@given(st.lists(st.builds(Position, tokens, st.lists(tokens, max_size=3).map(tuple)), max_size=3), st.integers(0, 3))
def test_records_take_the_form_their_fields_say_and_come_back(positions: list[Position], count: int) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = Usage(count, 0, 0, reasoning_tokens=count)
    one = replace(exchange(), logprobs=tuple(positions), usage=usage, tool_calls=(call,) * count, twin="x" * count)
    assert one.to_json() == naive_form(one)
    assert type(one.to_json()["role"]) is str
    assert type(one).from_json(one.to_json()) == one
    message = Message("assistant", "", (call,) * count, "x" * count)
    assert message.to_json() == naive_form(message)
    assert ("tool_calls" in message.to_json()) == (count > 0)
    assert Message.from_json(message.to_json()) == message
