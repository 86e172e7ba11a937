"""Anthropic's Messages: the same bodies as the official client sends, the same answers as it reads, and hostile ones."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback_vendors import KEY, Anthropic, anthropic_error, asked, serving
from tutelage.canon import MAX_INTEGER, canonical
from tutelage.errors import ConfigError, SignalError, TeacherError
from tutelage.models.anthropic import AnthropicDialect
from tutelage.models.base import AskAgain, Endpoint, Refused
from tutelage.records import RAW, Message, Request, Usage
from tutelage.wire.anthropic import parse_message, usage_in_message
from tutelage.wire.values import WireError

DIALECT = AnthropicDialect()
SCHEMA = {"type": "object", "properties": {"c": {"type": "number"}}, "required": ["c"], "additionalProperties": False}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "of a town", "parameters": SCHEMA, "strict": True},
    },
    {"type": "function", "function": {"name": "now"}},
]
THINKING = [
    {"type": "thinking", "thinking": "Ask.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "eHl6"},
]
ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-loopback-20260101",
    "content": [
        *THINKING,
        {"type": "text", "text": "I look "},
        {"type": "text", "text": "it up.", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Zürich", "days": [1, 2.5]}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use", "stop_sequence": None,
    "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 1000, "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20}, "service_tier": "standard",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def vendor() -> Iterator[Anthropic]:
    with serving(Anthropic(lambda body: ANSWER)) as started:
        yield started


def ask(*messages: Message, **changes: Any) -> Request:
    fields = {"params": {}, "model_asked": "claude-x", "route": "loopback", "purpose": "test", "draw": 0}
    return Request(messages or (Message("user", "hi"),), **{**fields, **changes})


def call(call_id: str, name: str, arguments: str, **more: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def body(request: Request) -> dict[str, Any]:
    return DIALECT.body(Endpoint("https://api.anthropic.com", "", "", "claude-x", ""), request)


def message(**changes: Any) -> bytes:
    return json.dumps({**ANSWER, **changes}).encode()


def test_a_whole_conversation_is_sent_as_the_official_client_sends_it(vendor: Anthropic) -> None:
    from anthropic import Anthropic as Client

    request = ask(
        Message("system", "Be brief."),
        Message("user", "Weather in Zürich, and the time?"),
        Message("developer", "Use tools."),
        Message("assistant", "", (call("t1", "weather", '{"town": "Zürich", "days": 2}'), call("t2", "now", "{}"))),
        Message("tool", "rain", (), "t1"),
        Message("tool", '{"at": "9:00"}', (), "t2"),
        Message("assistant", "Rain, 9:00."),
        Message("user", "And Bern?"),
        params={
            "max_tokens": 300, "temperature": "0.7", "top_p": "0.9", "stop": ["END"], "reasoning_effort": "low",
            "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False,
        },
        tools=json.dumps(TOOLS), schema=json.dumps(SCHEMA), extra='{"top_k": 5, "metadata": {"user_id": "u"}}',
    )  # fmt: skip
    asked(vendor, DIALECT, request)
    use = [
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Zürich", "days": 2}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "t2", "content": '{"at": "9:00"}'},
    ]
    version = {"anthropic-version": "2023-06-01"}  # the client's own, 2026-10-21, takes no temperature
    with Client(base_url=vendor.base_url, api_key=KEY, max_retries=0, default_headers=version) as client:
        client.messages.create(
            model="claude-x",
            max_tokens=300,
            system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Use tools."}],
            messages=[
                {"role": "user", "content": "Weather in Zürich, and the time?"},
                {"role": "assistant", "content": use},
                {"role": "user", "content": results},
                {"role": "assistant", "content": "Rain, 9:00."},
                {"role": "user", "content": "And Bern?"},
            ],
            stop_sequences=["END"],
            thinking={"type": "adaptive", "display": "summarized"},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
            tools=[
                {"name": "weather", "description": "of a town", "input_schema": SCHEMA, "strict": True},
                {"name": "now", "input_schema": {"type": "object", "properties": {}}},
            ],
            tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            metadata={"user_id": "u"},
            extra_body={"temperature": 0.7, "top_p": 0.9, "top_k": 5},  # the client has no words for these
        )
    ours, theirs = vendor.bodies[-2:]
    assert ours == theirs
    assert vendor.headers[-2]["anthropic-version"] == vendor.headers[-1]["anthropic-version"]
    assert vendor.headers[-2]["x-api-key"] == KEY
    assert vendor.paths[-2] == vendor.paths[-1]


def test_an_answer_is_read_as_the_official_client_reads_it(vendor: Anthropic) -> None:
    from anthropic import Anthropic as Client

    with Client(base_url=vendor.base_url, api_key=KEY, max_retries=0) as client:
        read = client.messages.create(model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    reply = asked(vendor, DIALECT, ask(params={"max_tokens": 9}))
    answer, blocks, usage = reply.answer, read.content, read.usage
    assert answer.text == "".join(block.text for block in blocks if block.type == "text") == "I look it up."
    assert answer.reasoning == next(block.thinking for block in blocks if block.type == "thinking") == "Ask."
    uses = [block for block in blocks if block.type == "tool_use"]
    assert [(made["id"], made["function"]["name"]) for made in answer.tool_calls] == [(u.id, u.name) for u in uses]
    assert [json.loads(made["function"]["arguments"]) for made in answer.tool_calls] == [use.input for use in uses]
    assert answer.tool_calls[0]["function"]["arguments"] == '{"town":"Zürich","days":[1,2.5]}'
    prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    thought = usage.output_tokens_details.thinking_tokens
    assert answer.usage == Usage(prompt, usage.cache_read_input_tokens, usage.output_tokens, thought, 1000)
    assert answer.usage == Usage(1110, 100, 50, 20, 1000)
    assert (answer.model, answer.finish_reason, answer.positions) == (read.model, "tool_calls", ())
    assert reply.request_id.startswith("req_")
    assert DIALECT.usage(reply.body) == answer.usage


def test_thinking_goes_back_unchanged_before_its_call() -> None:
    calls = parse_message(message()).tool_calls
    assert json.loads(calls[0]["thinking"]) == THINKING
    assert "thinking" not in calls[1]
    turn = Message("assistant", "I look it up.", calls)
    canonical(turn.to_json())
    sent = body(ask(Message("user", "?"), turn))["messages"][1]["content"]
    kinds = ["thinking", "redacted_thinking", "text", "tool_use", "tool_use"]
    assert [block["type"] for block in sent] == kinds
    assert sent[:2] == THINKING
    with pytest.raises(ConfigError, match="thinking"):
        body(ask(Message("assistant", "", (call("a", "f", "{}", thinking='"?"'),))))


def test_small_requests_say_no_more_than_they_must() -> None:
    assert body(ask()) == {
        "model": "claude-x", "max_tokens": 4096, "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip
    one = body(ask(Message("system", "s"), Message("user", "u"), params={"reasoning_effort": "none", "stop": "x"}))
    assert (one["system"], one["thinking"], one["stop_sequences"]) == ("s", {"type": "disabled"}, ["x"])
    assert "output_config" not in one
    for choice, kind in (("auto", "auto"), ("none", "none"), ("required", "any")):
        assert body(ask(params={"tool_choice": choice}))["tool_choice"] == {"type": kind}
    quiet = body(ask(params={"tool_choice": "none", "parallel_tool_calls": False}))
    assert quiet["tool_choice"] == {"type": "none"}
    joined = body(ask(schema='{"type": "object"}', extra='{"output_config": {"effort": "max"}}'))["output_config"]
    assert joined == {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "max"}


def test_numbers_are_sent_as_numbers() -> None:
    sent = body(ask(params={"temperature": "0", "top_p": "1"}))
    assert (sent["temperature"], sent["top_p"]) == (0.0, 1.0)


@pytest.mark.parametrize("depth", range(225, 260))
def test_what_is_taken_can_be_written(depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    tools = f'[{{"type": "function", "function": {{"name": "f", "parameters": {nested}}}}}]'
    turn = Message("assistant", "", (call("a", "f", nested),))
    for request in (ask(tools=tools), ask(schema=nested), ask(turn), ask(extra=nested)):
        with contextlib.suppress(ConfigError):
            orjson.dumps(body(request))


DEEP = "[" * 400 + "]" * 400


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ask(Message(RAW, "once")), "continues no text"),
        (ask(Message("narrator", "x")), r"messages\[0\] has role 'narrator'"),
        (ask(Message("user", "x", name="Ann")), "'Ann'"),
        (ask(params={"seed": 1}), "no 'seed'"),
        (ask(params={"presence_penalty": "1"}), "no 'presence_penalty'"),
        (ask(params={"temperature": "warm"}), "temperature is 'warm'"),
        (ask(params={"temperature": "nan"}), "temperature is 'nan'"),
        (ask(params={"reasoning_effort": "minimal"}), "reasoning_effort is 'minimal'"),
        (ask(params={"tool_choice": "weather"}), "tool_choice is 'weather'"),
        (ask(params={"tool_choice": {"type": "function"}}), "tool_choice"),
        (ask(tools="[1]"), r"tools\[0\] is 1"),
        (ask(tools="{}"), "not a list"),
        (ask(tools="[{"), "tools is not JSON"),
        (ask(tools='[{"type": "function", "function": {"name": "f", "return": {}}}]'), "'return'"),
        (ask(schema="{'a': 1}"), "schema is not JSON"),
        (ask(schema=DEEP), "schema is not JSON that can be sent"),
        (ask(schema="[" * 100_000), "schema is not JSON that can be sent"),
        (ask(schema=f'{{"maximum": {2**70}}}'), "schema is not JSON that can be sent"),
        (ask(extra='{"max_tokens": 9}'), "'max_tokens'"),
        (ask(schema="{}", extra='{"output_config": {"format": {"type": "text"}}}'), r"output_config.format.type"),
        (ask(extra='{"stream": true}'), "stream"),
        (ask(extra="[]"), "not an object"),
        (ask(Message("assistant", "", (call("a", "f", "{'x': 1}"),))), r"messages\[0\].tool_calls\[0\].*arguments"),
        (ask(Message("assistant", "", (call("a", "f", "[1]"),))), "not a JSON object"),
        (ask(Message("assistant", "", (call("a", "f", '{"x": NaN}'),))), "NaN"),
        (ask(Message("assistant", "", ({"id": "a", "function": {"name": "f"}},))), r"tool_calls\[0\] is"),
        (ask(Message("assistant", "", (call("", "f", "{}"),))), "has no id"),
        (ask(Message("tool", "42")), "'42' does not say which call"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_named(request_: Request, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        body(request_)
    assert caught.value.fix


@pytest.mark.parametrize("params", [{"logprobs": True, "top_logprobs": 5}, {"top_logprobs": 1}])
def test_log_probabilities_are_not_to_be_had(params: dict[str, Any]) -> None:
    with pytest.raises(SignalError, match="no log-probabilities") as caught:
        body(ask(params=params))
    assert 'signal = "text"' in caught.value.fix


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("https://proxy.example/a/?tier=2", "https://proxy.example/a/v1/messages?tier=2"),
    ],
)
def test_addresses_and_headers(base: str, url: str) -> None:
    endpoint = Endpoint(base, "", "", "claude-x", "")
    assert DIALECT.url(endpoint, ask()) == url
    assert DIALECT.headers(endpoint, None) == {"anthropic-version": "2023-06-01"}
    assert DIALECT.headers(endpoint, "k")["x-api-key"] == "k"


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
        ("refusal", "content_filter"), ("model_context_window_exceeded", "length"), ("pause_turn", "pause_turn"), (None, ""),
    ],
)  # fmt: skip
def test_finish_reasons_in_our_words(reason: str | None, ours: str) -> None:
    answer = parse_message(message(stop_reason=reason, content=[], usage={"input_tokens": 3, "output_tokens": 0}))
    assert (answer.finish_reason, answer.text, answer.tool_calls, answer.usage) == (ours, "", (), Usage(3, 0, 0))


@pytest.mark.parametrize(
    ("status", "error", "broke"),
    [
        (400, "Your credit balance is too low to access the Anthropic API.", True),
        (400, "You have reached your specified API usage limits. You will regain access on 2026-12-01.", True),
        (402, "anything", True),
        (429, '{"error_code": "enforced_spend_limit_reached"}', True),
        (429, "This request would exceed your organization's rate limit of 50 requests per minute", False),
        (429, '{"error_code": "ramp_limit_exceeded"}', False),
        (529, "Overloaded; your credit balance is too low", False),
        (400, "messages: at least one message is required", False),
    ],
)
def test_no_waiting_mends_an_empty_account(status: int, error: str, broke: bool) -> None:
    assert DIALECT.is_out_of_money(status, error) is broke


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (anthropic_error(429, "rate_limit_error", "slow down", {"retry-after": "7"}), AskAgain, "HTTP 429: slow down"),
        (anthropic_error(529, "overloaded_error", "Overloaded"), AskAgain, "HTTP 529: Overloaded"),
        (anthropic_error(400, "invalid_request_error", "prompt is too long"), Refused, "too long"),
        (anthropic_error(402, "billing_error", "pay"), TeacherError, "402: pay"),
        (anthropic_error(200, "api_error", "inside"), AskAgain, "inside"),
    ],
    ids=["429", "529", "400", "402", "200"],
)
def test_errors_in_their_own_shape(fault: Any, kind: type[Exception], says: str) -> None:
    with serving(Anthropic(lambda body: ANSWER)) as vendor:
        vendor.fault = lambda number, request: fault
        with pytest.raises(kind, match=says) as caught:
            asked(vendor, DIALECT, ask())
    if fault.status in (429, 529):
        assert caught.value.throttled
        assert caught.value.wait_s == (7.0 if fault.status == 429 else None)


def test_a_wrong_key_is_final(vendor: Anthropic) -> None:
    with pytest.raises(TeacherError, match="invalid x-api-key"):
        asked(vendor, DIALECT, ask(), key="wrong-key-00000000000000")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"content": None}, "'content' is None"),
        ({"content": ["x"]}, "a content block is 'x'"),
        ({"content": [{"text": "x"}]}, "a content block is"),
        ({"content": [{"type": "text"}]}, "'text' is missing"),
        ({"content": [{"type": "text", "text": "\ud800"}]}, "not Unicode"),
        ({"content": [{"type": "thinking", "thinking": 3}]}, "'thinking' is 3"),
        ({"content": [{"type": "tool_use", "id": "a", "name": "f", "input": "{}"}]}, "'input' is '{}'"),
        ({"content": [{"type": "tool_use", "name": "f", "input": {}}]}, "'id' is missing"),
        ({"content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": float("nan")}}]}, "tool_calls"),
        ({"content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": "\udc00"}}]}, "not Unicode"),
        ({"stop_reason": 4}, "'stop_reason' is 4"),
        ({"type": "error", "error": {"message": "overloaded"}}, "overloaded"),
    ],
)
def test_hostile_answers_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(WireError, match=says):
        parse_message(message(**changes))


@pytest.mark.parametrize("depth", [300, 900, 1000, 1020, 100_000])
def test_depth_is_no_crash(depth: int) -> None:
    nest = b"[" * depth + b"]" * depth
    for where in (
        b'{"content": %s}',
        b'{"content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": %s}}]}',
    ):
        with contextlib.suppress(WireError):
            parse_message(where % nest)
        usage_in_message(where % nest)


def test_usage_that_is_not_told() -> None:
    huge = {"input_tokens": MAX_INTEGER, "cache_read_input_tokens": 1, "output_tokens": 1}
    for usage in (None, {"input_tokens": 1}, {"input_tokens": -1, "output_tokens": 1}, {"input_tokens": 1.5}, huge, []):
        assert not parse_message(message(usage=usage)).usage_reported
    assert usage_in_message(message(usage=None)) is None
    assert usage_in_message(b"<html>") is None
    assert usage_in_message(message(content=None)) == Usage(1110, 100, 50, 20, 1000)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["text", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "id", "input"]), inner)
    ),
    max_leaves=8,
)


@given(field=st.sampled_from([*ANSWER, "block", "error"]), value=JSON, cut=st.integers(0, 600) | st.none())
def test_only_wire_errors_leave_the_parser(field: str, value: Any, cut: int | None) -> None:
    made = {**ANSWER, field: value}
    if field == "block":
        made["content"] = [{"type": "tool_use", "id": "i", "name": "n", "input": value}, value]
    raw = json.dumps(made).encode()[:cut]
    usage_in_message(raw)
    with contextlib.suppress(WireError):
        answer = parse_message(raw)
        canonical([answer.text, answer.reasoning, list(answer.tool_calls), answer.usage.to_json(), answer.model])
