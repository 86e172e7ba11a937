"""Calls and streams of other programs: what our own dialects write is read back, what vendors stream is put together."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.models.anthropic import AnthropicDialect
from tutelage.models.base import Dialect, Endpoint
from tutelage.models.gemini import GeminiDialect
from tutelage.models.openai import OpenAIDialect
from tutelage.records import RAW, Message, Request
from tutelage.wire.captured import Kind, kind_of, parse_answer, parse_call, several, take_logprobs
from tutelage.wire.streams import assemble
from tutelage.wire.values import WireError

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"x","n":[1.5]}'}}
TOOLS = '[{"type":"function","function":{"name":"look","description":"d","parameters":{"type":"object"}}}]'
TURNS = (
    Message("system", "be brief"), Message("user", "hé?"), Message("assistant", "let me see", (CALL,)),
    Message("tool", "sun", (), "c1", "look"), Message("user", "and?"),
)  # fmt: skip
SCHEMA = '{"type":"object","properties":{"x":{"minimum":0.5}}}'
CHOSEN = {"type": "function", "function": {"name": "look"}}
COMMON: dict[str, Any] = {"max_tokens": 9, "temperature": "0.5", "top_p": "1.0", "stop": ["end", "."]}
MORE: dict[str, Any] = {
    "seed": 3,
    "presence_penalty": "-0.5",
    "frequency_penalty": "0.25",
    "logprobs": True,
    "top_logprobs": 5,
}
DIALECTS: dict[str, Dialect] = {"openai": OpenAIDialect(), "anthropic": AnthropicDialect(), "gemini": GeminiDialect()}


def read_back(api: str, request: Request) -> tuple[Request, Kind]:
    endpoint = Endpoint("http://127.0.0.1/v1", "h", "h", request.model_asked, "", api=api)
    kind = kind_of(DIALECTS[api].url(endpoint, request).partition("127.0.0.1")[2])
    assert kind is not None
    asked = parse_call(kind, json.dumps(DIALECTS[api].body(endpoint, request)).encode())
    back = Request(asked.messages, asked.params, asked.model, "h", "p", 0, asked.tools, asked.schema, asked.extra)
    return back, kind


@pytest.mark.parametrize("choice", ["auto", "required", "none", CHOSEN], ids=str)
@pytest.mark.parametrize(
    ("api", "more"), [("openai", MORE), ("anthropic", {"parallel_tool_calls": False}), ("gemini", MORE)]
)
def test_what_a_dialect_asks_is_read_back(api: str, more: dict[str, Any], choice: Any) -> None:
    model = "org/m 1" if api != "gemini" else "gemini-2.5-x"
    more = {key: value for key, value in more.items() if key != "parallel_tool_calls" or choice != "none"}
    request = Request(
        TURNS, {**COMMON, **more, "tool_choice": choice}, model, "h", "p", 0, TOOLS, SCHEMA, '{"odd":{"A":1.5}}'
    )
    back, _ = read_back(api, request)
    if api == "anthropic":  # its results name the call, not the function
        request = Request((*TURNS[:3], Message("tool", "sun", (), "c1"), TURNS[4]), *list(_fields(request))[1:])
    if api == "openai":
        back = Request(back.messages, back.params, back.model_asked, "h", "p", 0, back.tools, back.schema, back.extra)
    assert back == request


def _fields(request: Request) -> list[Any]:
    return [getattr(request, name) for name in request.__dataclass_fields__]


def test_a_completion_is_read_back() -> None:
    request = Request((Message(RAW, "once upon"),), {**COMMON, **MORE}, "m", "h", "p", 0)
    assert read_back("openai", request) == (request, Kind("completion", ""))


def test_paths() -> None:
    assert kind_of("/openai/deployments/x/chat/completions") == Kind("chat", "")
    assert kind_of("/v1beta/models/tuned%2Fx:streamGenerateContent") == Kind("generate", "tuned/x")
    assert kind_of("/v1/messages") == Kind("messages", "")
    for path in (
        "/v1/models",
        "/v1/embeddings",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/",
        "",
        "/x:countTokens",
    ):
        assert kind_of(path) is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {"model": "m", "messages": []}),
        ("chat", {"model": 1, "messages": [{"role": "user", "content": "x"}]}),
        ("chat", {"model": "m", "messages": [{"role": [], "content": "x"}]}),
        ("chat", {"model": "m", "messages": ["x"]}),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": "hot"}),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 2**60}),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "functions": []}),
        (
            "chat",
            {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]},
        ),
        ("completion", {"model": "m", "prompt": ["a", "b"]}),
        ("messages", {"model": "m", "messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        (
            "messages",
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web_search_x"}]},
        ),
        ("generate", {"contents": [{"parts": [{"inlineData": {}}]}]}),
        ("generate", {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "tools": [{"googleSearch": {}}]}),
        ("generate", {"contents": [{"role": "user"}]}),
    ],
)
def test_what_cannot_be_kept_is_refused(kind: str, body: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        parse_call(Kind(kind, "m"), json.dumps(body).encode())


def test_gemini_s_snake_case_and_the_rest_of_its_configuration() -> None:
    body = {
        "system_instruction": {"parts": {"text": "s"}}, "contents": [{"parts": [{"text": "a"}, {"text": "b", "thought": True}]}],
        "generation_config": {"top_k": 5, "max_output_tokens": 7, "temperature": None}, "safety_settings": [],
    }  # fmt: skip
    asked = parse_call(Kind("generate", "m"), json.dumps(body).encode())
    assert asked.messages == (Message("system", "s"), Message("user", "a"))
    assert asked.params == {"max_tokens": 7}
    assert json.loads(asked.extra) == {"generationConfig": {"topK": 5}, "safetySettings": []}


def sse(*values: Any, end: str = "\n\n", named: bool = False) -> bytes:
    lines = [(f"event: {value['type']}\n" if named else "") + f"data: {json.dumps(value)}{end}" for value in values]
    return "".join(lines).encode()


ANTHROPIC = [
    {"type": "message_start", "message": {"id": "m1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
     "stop_reason": None, "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "ping"},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "sun"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ny é"}},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "look", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"at":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"x"}'}},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "t2", "name": "go", "input": {}}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 30}},
    {"type": "message_stop"},
]  # fmt: skip


def test_a_stream_of_anthropic_s() -> None:
    answer = parse_answer(Kind("messages", ""), assemble("messages", sse(*ANTHROPIC, named=True)))
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("sunny é", "hm", "tool_calls")
    assert [call["function"] for call in answer.tool_calls] == [
        {"name": "look", "arguments": '{"at":"x"}'},
        {"name": "go", "arguments": "{}"},
    ]
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens, answer.usage.completion_tokens) == (7, 2, 30)
    assert answer.model == "claude-x"


def test_a_stream_of_gemini_s_as_events_and_as_a_list() -> None:
    def part(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}],
            "modelVersion": "g-1",
        }

    counts = {"promptTokenCount": 5, "candidatesTokenCount": 3, "thoughtsTokenCount": 2}
    one = {"chosenCandidates": [{"token": "sun", "logProbability": -0.5}], "topCandidates": [{"candidates": []}]}
    parts = [
        part({"text": "h", "thought": True}), part({"text": "m", "thought": True}), part({"text": "sun"}, logprobsResult=one),
        part({"text": "ny"}, logprobsResult=one), part({"functionCall": {"name": "look", "args": {}}}),
        part({"text": ""}, finishReason="STOP") | {"usageMetadata": counts},
    ]  # fmt: skip
    for body in (sse(*parts, end="\r\n\r\n"), json.dumps(parts).encode()):
        whole = json.loads(assemble("generate", body))
        assert len(whole["candidates"][0]["content"]["parts"]) == 4
        answer = parse_answer(Kind("generate", "g"), json.dumps(whole).encode())
        assert (answer.text, answer.reasoning, answer.finish_reason) == ("sunny", "hm", "tool_calls")
        assert (answer.usage.completion_tokens, answer.usage.reasoning_tokens) == (5, 2)
        assert len(answer.positions) == 2


def test_a_stream_of_completions_and_its_log_probabilities() -> None:
    def chunk(text: str, finish: str | None) -> dict[str, Any]:
        logprobs = {"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": [{text: -0.5}], "text_offset": [0]}
        return {"model": "m", "choices": [{"text": text, "index": 0, "finish_reason": finish, "logprobs": logprobs}]}

    body = b"\xef\xbb\xbf: hello\n\n" + sse(chunk("on", None), chunk("ce", "length")) + b"data: [DONE]"
    answer = parse_answer(Kind("completion", ""), assemble("completion", body))
    assert (answer.text, answer.finish_reason) == ("once", "length")
    assert [position.chosen.token_bytes for position in answer.positions] == [b"on", b"ce"]


def test_events_of_several_lines() -> None:
    body = b'data: {"choices":\r\ndata: [{"message":{"content":"x"},"finish_reason":"stop"}]}\r\n\r\n'
    assert parse_answer(Kind("chat", ""), assemble("chat", body)).text == "x"
    assert assemble("chat", body.replace(b"\r\n", b"\r")) == assemble("chat", body.replace(b"\r\n", b"\n"))


def test_several_choices_of_a_stream() -> None:
    def chunk(index: int, finish: str | None, **said: Any) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": index, "delta": said, "finish_reason": finish}]}

    name = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    again = {**name, "function": {"name": "look"}}
    chunks = [
        chunk(1, None, content="b"),
        chunk(0, None, content="a", tool_calls=[name]),
        chunk(1, "stop", content="B"),
    ]
    body = sse(*chunks, chunk(0, None, tool_calls=[again]), chunk(0, "stop"), {"usage": {"x": 1}})
    answers = several(json.loads(assemble("chat", body)))
    assert [one["choices"][0]["message"]["content"] for one in answers] == ["a", "bB"]
    assert answers[0]["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert ["usage" in one for one in answers] == [True, False]
    assert [(one["id"], one["model"]) for one in answers] == [("c", "m")] * 2


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", b""),
        ("chat", b"data: [DONE]\n\n"),
        ("chat", sse({"error": {"message": "no"}})),
        ("chat", sse({"choices": [{"index": 0, "delta": {"content": "x"}}]})),
        ("chat", sse({"choices": [{"index": 10**9, "delta": {}, "finish_reason": "stop"}]})),
        ("chat", sse({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})),
        ("messages", sse(*ANTHROPIC[:-1])),
        ("messages", sse(*ANTHROPIC[1:])),
        ("messages", sse(*ANTHROPIC[:3], {"type": "error", "error": {}}, *ANTHROPIC[3:])),
        ("generate", sse({"candidates": [{"content": {"parts": [{"text": "x"}]}}]})),
        ("generate", b'[{"candidates":[]}]'),
        ("generate", b'[],"parts":5,"x":[]'),
    ],
)
def test_streams_that_end_early_or_fail_are_refused(kind: str, body: bytes) -> None:
    with pytest.raises(WireError):
        assemble(kind, body)


def test_log_probabilities_are_taken_out_and_can_be_put_back() -> None:
    value = {"choices": [{"logprobs": {"content": []}}, {"logprobs": None}, {}]}
    before = json.dumps(value)
    taken = take_logprobs(value)
    assert "content" not in json.dumps(value)
    for answer, key, held in taken:
        answer[key] = held
    assert json.dumps(value) == before


KEYS = st.sampled_from(
    ["choices", "delta", "message", "content", "index", "type", "parts", "candidates", "role", "messages", "contents", "text",
     "tools", "function", "tool_calls", "name", "arguments", "model", "error", "usage", "finish_reason", "finishReason",
     "logprobs", "functionCall", "content_block", "partial_json", "system", "generationConfig", "functionDeclarations", "stop",
     "temperature"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["user", "assistant", "text", "text_delta", "message_start", "content_block_delta", "stop", "tool", "\ud800"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.just(2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(["chat", "completion", "messages", "generate"]), st.lists(VALUES, max_size=4), st.booleans())
def test_only_wire_errors_leave(kind: str, values: list[Any], as_list: bool) -> None:
    body = json.dumps(values).encode() if as_list else sse(*values)
    for work in (
        lambda: parse_answer(Kind(kind, "m"), assemble(kind, body)),
        *(_parsing(kind, value) for value in values),
    ):
        with contextlib.suppress(WireError):
            work()


def _parsing(kind: str, value: Any) -> Any:
    return lambda: parse_call(Kind(kind, "m"), json.dumps(value).encode())


@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
@pytest.mark.parametrize("opening", ["[", "{"])
@pytest.mark.parametrize("depth", [200, 900, 990, 100_000])
def test_deep_nesting_is_refused(kind: str, depth: int, opening: str) -> None:
    deep = {"[": b"[" * depth + b"]" * depth, "{": b'{"x":' * depth + b"1" + b"}" * depth}[opening]
    event = {
        "chat": b'{"x":%s,"choices":[{"delta":{"x":%s},"finish_reason":"stop"}]}',
        "generate": b'{"candidates":[%s],"y":%s}',
    }
    stream = (
        b"data: " + event.get(kind, b'{"type":"message_start","message":{"x":%s,"usage":%s}}') % (deep, deep) + b"\n\n"
    )
    call = b'{"model":"m","messages":[{"role":"user","content":"x"}],"contents":[{"parts":[{"text":"x"}]}],"tools":[%s],"z":%s}'
    for work in (lambda: assemble(kind, stream), lambda: parse_call(Kind(kind, "m"), call % (deep, deep))):
        with contextlib.suppress(WireError):
            work()
