"""Gemini's `generateContent`: the same bodies as the official client sends, the same answers as it reads, hostile ones."""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback_vendors import KEY, Gemini, asked, gemini_error, serving
from tutelage.canon import canonical
from tutelage.errors import ConfigError, TeacherError
from tutelage.models.base import AskAgain, Endpoint, Refused
from tutelage.models.gemini import UNSIGNED, GeminiDialect
from tutelage.records import RAW, Message, Position, Request, TokenLogprob, Usage
from tutelage.wire.gemini import parse_content, usage_in_content
from tutelage.wire.values import WireError

DIALECT = GeminiDialect()
SIGNATURE = base64.b64encode(b"a thought").decode()
SCHEMA = {"type": "object", "properties": {"c": {"type": "number"}}, "required": ["c"], "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "of a town", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
ANSWER = {
    "candidates": [{
        "index": 0, "finishReason": "STOP",
        "content": {"role": "model", "parts": [
            {"text": "I must ", "thought": True},
            {"text": "ask.", "thought": True},
            {"text": "I look ", "thoughtSignature": SIGNATURE},
            {"text": "it up."},
            {"functionCall": {"name": "weather", "args": {"town": "Zürich", "days": [1, 2.5]}, "id": "c1"},
             "thoughtSignature": SIGNATURE},
            {"functionCall": {"name": "now"}},
        ]},
        "logprobsResult": {
            "chosenCandidates": [
                {"token": "I", "tokenId": 7, "logProbability": -0.25}, {"token": " é", "tokenId": 9, "logProbability": 0},
            ],
            "topCandidates": [
                {"candidates": [{"token": "I", "tokenId": 7, "logProbability": -0.25},
                                {"token": "We", "tokenId": 8, "logProbability": -1.5}]},
                {"candidates": [{"token": " é", "logProbability": 0}]},
            ],
        },
    }],
    "usageMetadata": {
        "promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 20, "thoughtsTokenCount": 5,
        "toolUsePromptTokenCount": 3, "totalTokenCount": 128,
    },
    "modelVersion": "gemini-9-loopback", "responseId": "r1",
}  # fmt: skip


@pytest.fixture(scope="module")
def vendor() -> Iterator[Gemini]:
    with serving(Gemini(lambda body: ANSWER)) as started:
        yield started


def ask(*messages: Message, **changes: Any) -> Request:
    fields = {"params": {}, "model_asked": "gemini-9", "route": "loopback", "purpose": "test", "draw": 0}
    return Request(messages or (Message("user", "hi"),), **{**fields, **changes})


def call(call_id: str, name: str, arguments: str, **more: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def body(request: Request) -> dict[str, Any]:
    return DIALECT.body(Endpoint("https://generativelanguage.googleapis.com", "", "", "gemini-9", ""), request)


def candidate(**changes: Any) -> bytes:
    return json.dumps({**ANSWER, "candidates": [{**ANSWER["candidates"][0], **changes}]}).encode()


def whole(**changes: Any) -> bytes:
    return json.dumps({**ANSWER, **changes}).encode()


def spelled(value: Any) -> Any:
    """The official client leaves some fields in snake case, which JSON of protocol buffers may have; we do not."""
    names = ("parameters_json_schema", "include_thoughts", "thinking_level")
    text = json.dumps(value)
    for name in names:
        text = text.replace(f'"{name}"', json.dumps(re.sub("_(.)", lambda found: found[1].upper(), name)))
    return json.loads(text)


def test_a_whole_conversation_is_sent_as_the_official_client_sends_it(vendor: Gemini) -> None:
    from google.genai import Client, types

    calls = (call("c1", "weather", '{"town": "Zürich", "days": 2}', signature=SIGNATURE), call("c2", "now", "{}"))
    request = ask(
        Message("system", "Be brief."),
        Message("user", "Weather in Zürich, and the time?"),
        Message("developer", "Use tools."),
        Message("assistant", "", calls),
        Message("tool", "rain", (), "c1"),
        Message("tool", '{"at": "9:00"}', (), "c2"),
        Message("assistant", "Rain, 9:00."),
        Message("user", "And Bern?"),
        params={
            "max_tokens": 300, "temperature": "0.7", "top_p": "0.9", "stop": ["END"], "seed": 5, "logprobs": True,
            "top_logprobs": 4, "presence_penalty": "0.5", "frequency_penalty": "-0.25", "reasoning_effort": "low",
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
        tools=json.dumps(TOOLS), schema=json.dumps(SCHEMA), extra='{"generationConfig": {"topK": 5}}',
    )  # fmt: skip
    asked(vendor, DIALECT, request)
    part, given_back = types.Part, base64.b64decode(SIGNATURE)
    town = types.FunctionCall(id="c1", name="weather", args={"town": "Zürich", "days": 2})
    rain = types.FunctionResponse(id="c1", name="weather", response={"output": "rain"})
    time = types.FunctionResponse(id="c2", name="now", response={"at": "9:00"})
    contents = [
        types.Content(role="user", parts=[part(text="Weather in Zürich, and the time?")]),
        types.Content(
            role="model",
            parts=[
                part(function_call=town, thought_signature=given_back),
                part(function_call=types.FunctionCall(id="c2", name="now", args={})),
            ],
        ),
        types.Content(role="user", parts=[part(function_response=rain), part(function_response=time)]),
        types.Content(role="model", parts=[part(text="Rain, 9:00.")]),
        types.Content(role="user", parts=[part(text="And Bern?")]),
    ]
    declared = [
        types.FunctionDeclaration(name="weather", description="of a town", parameters_json_schema=SCHEMA),
        types.FunctionDeclaration(name="now", parameters_json_schema={"type": "object", "properties": {}}),
    ]
    choice = types.FunctionCallingConfig(mode="ANY", allowed_function_names=["weather"])
    config = types.GenerateContentConfig(
        system_instruction=types.Content(parts=[part(text="Be brief."), part(text="Use tools.")]),
        max_output_tokens=300, temperature=0.7, top_p=0.9, top_k=5, stop_sequences=["END"], seed=5,
        response_logprobs=True, logprobs=4, presence_penalty=0.5, frequency_penalty=-0.25,
        thinking_config=types.ThinkingConfig(thinking_level="LOW", include_thoughts=True),
        response_mime_type="application/json", response_json_schema=SCHEMA,
        tools=[types.Tool(function_declarations=declared)], tool_config=types.ToolConfig(function_calling_config=choice),
    )  # fmt: skip
    client = Client(api_key=KEY, http_options=types.HttpOptions(base_url=vendor.base_url, api_version="v1beta"))
    client.models.generate_content(model="gemini-9", contents=contents, config=config)
    ours, theirs = vendor.bodies[-2:]
    assert ours == spelled(theirs)
    assert vendor.headers[-2]["x-goog-api-key"] == vendor.headers[-1]["x-goog-api-key"] == KEY
    assert vendor.paths[-2] == vendor.paths[-1] == "/v1beta/models/gemini-9:generateContent"


def test_an_answer_is_read_as_the_official_client_reads_it(vendor: Gemini) -> None:
    from google.genai import Client, types

    client = Client(api_key=KEY, http_options=types.HttpOptions(base_url=vendor.base_url, api_version="v1beta"))
    read = client.models.generate_content(model="gemini-9", contents="hi")
    reply = asked(vendor, DIALECT, ask())
    answer, usage = reply.answer, read.usage_metadata
    assert answer.text == read.text == "I look it up."
    assert answer.reasoning == "".join(part.text for part in read.parts if part.thought) == "I must ask."
    assert [made["function"]["name"] for made in answer.tool_calls] == [made.name for made in read.function_calls]
    arguments = [json.loads(made["function"]["arguments"]) for made in answer.tool_calls]
    assert arguments == [made.args or {} for made in read.function_calls]
    assert [made["id"] for made in answer.tool_calls] == ["c1", ""]
    signatures = [made.get("signature") for made in answer.tool_calls]
    theirs = [part.thought_signature for part in read.parts if part.function_call]
    assert [base64.b64decode(ours) if ours else None for ours in signatures] == theirs == [b"a thought", None]
    completion = usage.candidates_token_count + usage.thoughts_token_count
    prompt = usage.prompt_token_count + usage.tool_use_prompt_token_count
    assert prompt + completion == usage.total_token_count
    assert answer.usage == Usage(prompt, usage.cached_content_token_count, completion, usage.thoughts_token_count)
    assert answer.usage == Usage(103, 60, 25, 5)
    assert (answer.model, answer.finish_reason) == (read.model_version, "tool_calls")
    assert DIALECT.usage(reply.body) == answer.usage
    logprobs = read.candidates[0].logprobs_result
    for ours, chosen in zip(answer.positions, logprobs.chosen_candidates, strict=True):
        assert ours.chosen.token_bytes.decode() == chosen.token
        assert ours.chosen.logprob_unats == round(chosen.log_probability * 1e6)


def token(text: str, token_id: int, unats: int) -> TokenLogprob:
    return TokenLogprob(base64.b64encode(text.encode()).decode(), token_id, unats)


def test_log_probabilities_become_positions() -> None:
    first = token("I", 7, -250_000)
    assert parse_content(whole()).positions == (
        Position(first, (first, token("We", 8, -1_500_000))),
        Position(token(" é", 9, 0), (token(" é", -1, 0),)),
    )
    alone = {"chosenCandidates": [{"token": "I", "logProbability": -0.25}]}
    assert parse_content(candidate(logprobsResult=alone)).positions == (Position(token("I", -1, -250_000), ()),)


def test_signatures_go_back_and_strangers_get_the_stand_in() -> None:
    turn = Message("assistant", "I look.", parse_content(whole()).tool_calls)
    canonical(turn.to_json())
    parts = body(ask(turn))["contents"][0]["parts"]
    assert parts[0] == {"text": "I look."}
    assert parts[1]["thoughtSignature"] == SIGNATURE
    assert "thoughtSignature" not in parts[2]
    strange = Message("assistant", "", (call("a", "f", "{}"), call("b", "f", "{}")))
    sent = body(ask(strange))["contents"][0]["parts"]
    assert [part.get("thoughtSignature") for part in sent] == [UNSIGNED, None]
    for model in ("gemini-2.5-flash", "models/gemini-1.5-pro"):
        sent = body(ask(strange, model_asked=model))["contents"][0]["parts"]
        assert not any("thoughtSignature" in part for part in sent)


def test_small_requests_say_no_more_than_they_must() -> None:
    assert body(ask()) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    shown = body(ask(params={"logprobs": True, "top_logprobs": 0}))["generationConfig"]
    assert shown == {"responseLogprobs": True}
    assert "generationConfig" not in body(ask(params={"logprobs": False, "top_logprobs": 5}))
    for choice, mode in (("auto", "AUTO"), ("none", "NONE"), ("required", "ANY")):
        config = body(ask(params={"tool_choice": choice}))["toolConfig"]
        assert config == {"functionCallingConfig": {"mode": mode}}
    silent = body(ask(Message("assistant", "")))["contents"]
    assert silent == [{"role": "model", "parts": [{"text": ""}]}]
    strict = '[{"type": "function", "function": {"name": "f", "strict": true}}]'
    assert body(ask(tools=strict))["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    forced = body(ask(tools=strict, params={"tool_choice": "required"}))["toolConfig"]
    assert forced == {"functionCallingConfig": {"mode": "ANY"}}


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-3-pro", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-flash-latest", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-2.5-pro", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0, "includeThoughts": False}),
    ],
)
def test_effort_is_a_level_or_a_budget(model: str, effort: str, config: dict[str, Any]) -> None:
    sent = body(ask(model_asked=model, params={"reasoning_effort": effort}))
    assert sent["generationConfig"]["thinkingConfig"] == config


def test_results_are_objects() -> None:
    calls = (call("a", "f", "{}"), call("", "g", "{}"))
    results = [Message("tool", '{"x": 1}', (), "a"), Message("tool", "[1]", name="g"), Message("tool", "{x", (), "a")]
    sent = body(ask(Message("assistant", "", calls), *results))["contents"][1]
    assert sent["role"] == "user"
    assert [part["functionResponse"] for part in sent["parts"]] == [
        {"id": "a", "name": "f", "response": {"x": 1}},
        {"name": "g", "response": {"output": "[1]"}},
        {"id": "a", "name": "f", "response": {"output": "{x"}},
    ]
    late = (Message("assistant", "", calls[:1]), Message("assistant", "", (call("b", "h", "{}"),)), results[0])
    assert body(ask(*late))["contents"][2]["parts"][0]["functionResponse"]["name"] == "f"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ask(Message(RAW, "once")), "continues no text"),
        (ask(params={"parallel_tool_calls": False}), "no 'parallel_tool_calls'"),
        (ask(params={"logprobs": True, "top_logprobs": 21}), "top_logprobs is 21"),
        (ask(params={"logprobs": True, "top_logprobs": "5"}), "top_logprobs is '5'"),
        (ask(params={"reasoning_effort": "none"}), "reasoning_effort is 'none'"),
        (ask(params={"reasoning_effort": "xhigh"}, model_asked="gemini-2.5-pro"), "reasoning_effort is 'xhigh'"),
        (ask(Message("tool", "42", (), "lost")), "'42' does not say which function"),
        (ask(extra='{"generationConfig": {"seed": 2}}', params={"seed": 1}), "generationConfig.seed"),
        (ask(extra='{"contents": []}'), "'contents'"),
    ],
)
def test_what_cannot_be_said_is_named(request_: Request, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        body(request_)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("base", "model", "url"),
    [
        ("https://g.example", "gemini-9", "https://g.example/v1beta/models/gemini-9:generateContent"),
        ("https://g.example/v1beta/", "gemini-9", "https://g.example/v1beta/models/gemini-9:generateContent"),
        ("https://g.example/v1", "models/gemini-9", "https://g.example/v1/models/gemini-9:generateContent"),
        ("https://g.example/p?a=b", "tunedModels/m", "https://g.example/p/v1beta/tunedModels/m:generateContent?a=b"),
        ("https://g.example", "../../x?key=y é", "https://g.example/v1beta/models/..%2F..%2Fx%3Fkey%3Dy%20%C3%A9:generateContent"),
    ],
)  # fmt: skip
def test_addresses(base: str, model: str, url: str) -> None:
    endpoint = Endpoint(base, "", "", "gemini-9", "")
    assert DIALECT.url(endpoint, ask(model_asked=model)) == url
    assert DIALECT.headers(endpoint, None) == {}
    assert DIALECT.headers(endpoint, "k") == {"x-goog-api-key": "k"}


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"), ("MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"), (None, ""),
    ],
)  # fmt: skip
def test_finish_reasons_in_our_words(reason: str | None, ours: str) -> None:
    answer = parse_content(candidate(finishReason=reason, content={"role": "model"}, logprobsResult=None))
    assert (answer.finish_reason, answer.text, answer.tool_calls, answer.positions) == (ours, "", (), ())
    assert parse_content(candidate(finishReason="MAX_TOKENS")).finish_reason == "length"


def test_a_blocked_prompt_is_an_empty_answer() -> None:
    usage = {"promptTokenCount": 4, "totalTokenCount": 4}
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage}
    answer = parse_content(json.dumps(blocked).encode())
    assert (answer.finish_reason, answer.text, answer.usage) == ("content_filter", "", Usage(4, 0, 0))


PER_MINUTE = (
    "You exceeded your current quota, please check your plan and billing details. * Quota exceeded, limit: 10, model: g"
)


@pytest.mark.parametrize(
    ("status", "error", "broke"),
    [
        (429, "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.", True),
        (429, PER_MINUTE.replace("10", "0"), True),
        (429, "Your project has exceeded its monthly spending cap.", True),
        (403, '"reason": "BILLING_DISABLED"', True),
        (429, PER_MINUTE, False),
        (429, "Resource has been exhausted (e.g. check quota).", False),
        (503, "credits are depleted", False),
        (400, "The input token count exceeds the maximum number of tokens allowed", False),
    ],
)
def test_no_waiting_mends_an_empty_account(status: int, error: str, broke: bool) -> None:
    assert DIALECT.is_out_of_money(status, error) is broke


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (gemini_error(429, "RESOURCE_EXHAUSTED", PER_MINUTE, "21.5s"), AskAgain, "HTTP 429: You exceeded"),
        (gemini_error(503, "UNAVAILABLE", "The model is overloaded."), AskAgain, "HTTP 503: The model"),
        (gemini_error(400, "INVALID_ARGUMENT", "The input token count exceeds"), Refused, "token count"),
        (gemini_error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), TeacherError, "depleted"),
        (gemini_error(404, "NOT_FOUND", "models/x is not found"), TeacherError, "not found"),
        (gemini_error(200, "INTERNAL", "inside"), AskAgain, "inside"),
    ],
    ids=["429", "503", "400", "credits", "404", "200"],
)
def test_errors_in_their_own_shape(fault: Any, kind: type[Exception], says: str) -> None:
    with serving(Gemini(lambda body: ANSWER)) as vendor:
        vendor.fault = lambda number, request: fault
        with pytest.raises(kind, match=says) as caught:
            asked(vendor, DIALECT, ask())
    if "429" in says:
        assert (caught.value.throttled, caught.value.wait_s) == (True, 21.5)


def test_a_wrong_key_is_final(vendor: Gemini) -> None:
    with pytest.raises(TeacherError, match="API key not valid"):
        asked(vendor, DIALECT, ask(), key="wrong-key-00000000000000")


def one(**entry: Any) -> dict[str, Any]:
    return {"logprobsResult": {"chosenCandidates": [{"token": "a", "logProbability": -1, **entry}]}}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"[]", "expected a JSON object"),
        (b"{}", "no candidate"),
        (whole(candidates=[], promptFeedback={}), "no candidate"),
        (whole(candidates=["x"]), r"candidates\[0\] is 'x'"),
        (whole(error={"message": "inside"}), "inside"),
        (candidate(content={"parts": ["x"]}), "a part is 'x'"),
        (candidate(content={"parts": [{"text": 3}]}), "'text' is 3"),
        (candidate(content={"parts": [{"text": "\ud800"}]}), "not Unicode"),
        (candidate(content={"parts": [{"functionCall": {"args": {}}}]}), "'name' is missing"),
        (candidate(content={"parts": [{"functionCall": {"name": "f", "args": [1]}}]}), r"'args' is \[1\]"),
        (candidate(content={"parts": [{"functionCall": {"name": "f"}, "thoughtSignature": 1}]}), "'thoughtSignature'"),
        (candidate(finishReason=3), "'finishReason' is 3"),
        (candidate(**one(logProbability=0.5)), "log-probability is 0.5"),
        (candidate(**one(logProbability=None)), "log-probability is None"),
        (candidate(**one(token=None)), "'token' is None"),
        (candidate(**one(tokenId=-2)), "token id is -2"),
        (candidate(logprobsResult={"chosenCandidates": [], "topCandidates": [{}]}), "0 tokens and 1 lists"),
        (candidate(logprobsResult=[1]), "logprobsResult is"),
    ],
)
def test_hostile_answers_are_named(raw: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        parse_content(raw)


@pytest.mark.parametrize("depth", [300, 900, 1000, 1020, 100_000])
def test_depth_is_no_crash(depth: int) -> None:
    nest = b"[" * depth + b"]" * depth
    call_ = b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"x": %s}}}]}}]}'
    for where in (b'{"candidates": [%s]}', b'{"candidates": %s}', b'{"usageMetadata": %s}', call_):
        with contextlib.suppress(WireError):
            parse_content(where % nest)
        usage_in_content(where % nest)


def test_usage_that_is_not_told() -> None:
    for usage in (None, {}, {"candidatesTokenCount": 3}):
        assert not parse_content(whole(usageMetadata=usage)).usage_reported
        assert usage_in_content(whole(usageMetadata=usage)) is None
    for unreadable in ({"promptTokenCount": "7"}, {"promptTokenCount": 5, "cachedContentTokenCount": 6}, []):
        assert not parse_content(whole(usageMetadata=unreadable)).usage_reported
    assert usage_in_content(b"<html>") is None
    assert usage_in_content(whole(candidates=[])) == Usage(103, 60, 25, 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["parts", "text", "name", "args", "token"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ["content", "part", "functionCall", "logprobsResult", "chosenCandidates", "topCandidates", "finishReason"]


@given(field=st.sampled_from([*ANSWER, *FIELDS, "promptFeedback"]), value=JSON, cut=st.integers(0, 900) | st.none())
def test_only_wire_errors_leave_the_parser(field: str, value: Any, cut: int | None) -> None:
    nested = {
        "part": {"content": {"parts": [value, {"text": value}]}},
        "functionCall": {"content": {"parts": [{"functionCall": {"name": "f", "args": {"x": value}}}]}},
        "chosenCandidates": {"logprobsResult": {"chosenCandidates": [value]}},
        "topCandidates": {"logprobsResult": {"chosenCandidates": [], "topCandidates": value}},
    }
    raw = whole(**{field: value}) if field not in FIELDS else candidate(**nested.get(field, {field: value}))
    raw = raw[:cut]
    usage_in_content(raw)
    with contextlib.suppress(WireError):
        answer = parse_content(raw)
        canonical([answer.text, answer.reasoning, list(answer.tool_calls), answer.usage.to_json(), answer.model])
        canonical([position.to_json() for position in answer.positions])
