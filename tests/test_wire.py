"""The chat wire format against well-formed and hostile bodies."""

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.canon import canonical
from tutelage.records import Message, Position, TokenLogprob, Usage
from tutelage.wire.answers import parse_chat_response, parse_completion
from tutelage.wire.bodies import DONE, ResponseHead, chat_chunk, chat_response, error_body, models_body, usage_chunk
from tutelage.wire.requests import parse_chat_request
from tutelage.wire.values import WireError

HEAD = ResponseHead("chatcmpl-1", 1_700_000_000, "student", "fp_1")


def token(data: bytes, token_id: int, unats: int) -> TokenLogprob:
    return TokenLogprob(base64.b64encode(data).decode(), token_id, unats)


def answer(**choice: object) -> bytes:
    message = {"role": "assistant", "content": "good"}
    return json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop", **choice}]}).encode()


def with_entry(**entry: object) -> bytes:
    return answer(logprobs={"content": [{"token": "a", "logprob": -0.5, **entry}]})


def request(**more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def test_round_trip_is_exact():
    positions = (
        Position(token(b" po", 7, -123_457), (token(b" po", 7, -123_457), token(b"\xff", 9, -2_000_001))),
        Position(token("é".encode(), 8, 0), ()),
    )
    parsed = parse_chat_response(chat_response(HEAD, "poé", "stop", positions, Usage(5, 0, 2)))
    assert parsed.positions == positions
    assert (parsed.text, parsed.finish_reason, parsed.usage, parsed.usage_reported) == (
        "poé",
        "stop",
        Usage(5, 0, 2),
        True,
    )
    assert (parsed.model, parsed.fingerprint) == ("student", "fp_1")


def test_other_providers_spellings():
    body = json.loads(answer(logprobs=None))
    body["choices"][0]["message"] |= {
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}, "score": 0.5}],
    }
    body["usage"] = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
    parsed = parse_chat_response(json.dumps(body).encode())
    assert (parsed.text, parsed.reasoning, parsed.usage) == ("", "hm", Usage(3, 2, 1))
    assert parsed.tool_calls == ({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},)


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": [" good"], "token_logprobs": [-0.5], "top_logprobs": [{" good": -0.5, " bad": -1.0}]},
        {"content": [{"token": " good", "logprob": -0.5, "top_logprobs": [
            {"token": " good", "logprob": -0.5}, {"token": " bad", "bytes": [32, 98, 97, 100], "logprob": -1.0}]}]},
    ],
)  # fmt: skip
def test_completions_in_both_forms_of_log_probabilities(logprobs):
    choice = {"text": " good", "index": 0, "finish_reason": "length", "logprobs": logprobs}
    usage = {"prompt_tokens": 9, "completion_tokens": 1}
    found = parse_completion(json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())
    assert (found.text, found.finish_reason, found.usage) == (" good", "length", Usage(9, 0, 1))
    assert [(top.token_bytes, top.logprob_unats) for top in found.positions[0].top] == [
        (b" good", -500_000), (b" bad", -1_000_000),
    ]  # fmt: skip


def test_ragged_lists_of_log_probabilities_are_named():
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [-1.0], "top_logprobs": None}
    with pytest.raises(WireError, match="2 tokens, 1 of their"):
        parse_completion(json.dumps({"choices": [{"text": "a", "logprobs": logprobs}]}).encode())


def test_missing_usage_is_said():
    parsed = parse_chat_response(answer())
    assert parsed.usage == Usage(0, 0, 0)
    assert not parsed.usage_reported


def test_trap_d12_placeholders_are_filtered_and_missing_bytes_come_from_the_text():
    tops = [{"token": "b", "logprob": -0.25}, {"token": "x", "logprob": -9999.0}]
    (position,) = parse_chat_response(with_entry(token="é", bytes=None, top_logprobs=tops)).positions
    assert position.chosen == token("é".encode(), -1, -500_000)
    assert position.top == (token(b"b", -1, -250_000),)


def test_rounding_above_zero_becomes_zero():
    assert parse_chat_response(with_entry(logprob=5e-7)).positions[0].chosen.logprob_unats == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}", "'choices' is missing"),
        (b'{"choices": []}', "choices is empty"),
        (b'{"choices": [3]}', r"choices\[0\] is 3"),
        (b'{"error": {"message": "overloaded"}}', "overloaded"),
        (answer(message={"content": 5}), "content is 5"),
        (answer(message={"content": "\ud800"}), "not Unicode"),
        (answer(finish_reason=1), "finish_reason"),
        (with_entry(logprob=0.5), "not above 0"),
        (with_entry(logprob=float("nan")), "finite"),
        (with_entry(logprob=float("-inf")), "finite"),
        (with_entry(logprob="-1"), "expected a number"),
        (with_entry(logprob=None), "expected a number"),
        (with_entry(bytes=[256]), "0 to 255"),
        (with_entry(id=-5), "token id"),
        (answer(error={"code": 502}), "inside a choice"),
    ],
)
def test_bad_answers_are_named(body, says):
    with pytest.raises(WireError, match=says):
        parse_chat_response(body)


def test_request_fields():
    parsed = parse_chat_request(
        request(
            max_completion_tokens=4,
            temperature=0,
            top_p=0.5,
            seed=-3,
            stop="\n",
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
            top_logprobs=20,
            n=1,
            tools=[],
            response_format={"type": "text"},
            user="u",
            zebra=None,
        )
    )
    assert parsed.messages == (Message("user", "hi"),)
    assert (parsed.max_tokens, parsed.temperature, parsed.top_p, parsed.seed) == (4, 0.0, 0.5, -3)
    assert (parsed.stop, parsed.stream, parsed.include_usage, parsed.top_logprobs) == (("\n",), True, True, 20)
    assert parsed.ignored == ("user",)


def test_request_defaults_and_text_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    parsed = parse_chat_request(request(messages=[{"role": "developer", "content": parts}]))
    assert parsed.messages == (Message("system", "ab"),)
    assert (parsed.max_tokens, parsed.temperature, parsed.logprobs, parsed.ignored) == (None, 1.0, False, ())


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"audio": {}}, "audio"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": "1"}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"stream": 1}, "stream"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ],
)
def test_unusable_requests_name_the_field(more, param):
    with pytest.raises(WireError) as caught:
        parse_chat_request(request(**more))
    assert caught.value.param == param


def test_written_bodies_have_the_protocols_shape():
    chunk = chat_chunk(HEAD, {"content": "x"}, None, None, include_usage=True)
    assert chunk.startswith(b"data: ")
    assert chunk.endswith(b"\n\n")
    assert json.loads(chunk[6:])["usage"] is None
    assert "usage" not in json.loads(chat_chunk(HEAD, {}, None, "stop", include_usage=False)[6:])
    last = json.loads(usage_chunk(HEAD, Usage(2, 0, 3))[6:])
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
    assert json.loads(error_body("m", "t", None, "c"))["error"] == {
        "message": "m",
        "type": "t",
        "param": None,
        "code": "c",
    }
    assert [item["id"] for item in json.loads(models_body(("a", "b"), 1))["data"]] == ["a", "b"]
    assert DONE == b"data: [DONE]\n\n"


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def mutated(names: tuple[str, ...]) -> st.SearchStrategy:
    """Objects with the protocol's own field names and arbitrary values: gets past the first checks."""
    return st.dictionaries(st.sampled_from(names), JSON, max_size=6)


ENTRY = mutated(("token", "logprob", "bytes", "id", "top_logprobs"))
MESSAGE = mutated(("content", "reasoning", "tool_calls", "role"))
LISTS = mutated(("tokens", "token_logprobs", "top_logprobs"))
LOGPROBS = st.fixed_dictionaries({"content": st.lists(ENTRY, max_size=2) | JSON}) | LISTS
CHOICE = st.fixed_dictionaries({"message": MESSAGE | JSON, "text": JSON, "logprobs": LOGPROBS})
RESPONSE = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE | JSON, max_size=2)},
    optional={"usage": mutated(("prompt_tokens", "completion_tokens", "prompt_tokens_details")) | JSON, "model": JSON},
)
FIELDS = ("max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "logprobs", "top_logprobs")
REQUEST = st.tuples(mutated(FIELDS), st.lists(mutated(("role", "content")) | JSON, max_size=2) | JSON, JSON)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | JSON | RESPONSE, st.sampled_from([parse_chat_response, parse_completion]))
def test_only_wire_errors_leave_the_readers_of_answers(value, parse):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    try:
        parsed = parse(body)
    except WireError:
        return
    canonical([position.to_json() for position in parsed.positions])
    canonical([parsed.text, parsed.reasoning, parsed.model, list(parsed.tool_calls), parsed.usage.to_json()])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | JSON | REQUEST)
def test_only_wire_errors_leave_parse_chat_request(value):
    if isinstance(value, tuple):
        value = {**value[0], "messages": value[1], "model": "m", "extra": value[2]}
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    with contextlib.suppress(WireError):
        parse_chat_request(body)


@pytest.mark.parametrize(
    "usage", [b"{}", b'{"prompt_tokens": -1}', b"[]", b'{"prompt_tokens": 1.5, "completion_tokens": 1}']
)
def test_an_answer_with_usage_that_cannot_be_read_is_an_answer_still(usage: bytes) -> None:
    parsed = parse_chat_response(answer()[:-1] + b', "usage": ' + usage + b"}")
    assert (parsed.usage_reported, parsed.usage) == (False, Usage(0, 0, 0))


def test_reasoning_that_stands_beside_the_completion_is_counted() -> None:
    usage = {"prompt_tokens": 37, "completion_tokens": 5, "total_tokens": 275}
    body = answer()[:-1] + b', "usage": ' + json.dumps(usage).encode() + b"}"
    assert parse_chat_response(body).usage == Usage(37, 0, 238)
