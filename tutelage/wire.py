"""The OpenAI chat wire format, both ways: answers read from any endpoint, requests read by our server, bodies it sends.

Everything parsed here comes from outside and may be hostile: only `WireError` leaves the two `parse_` functions.
Source: OpenAI API reference, Chat Completions; llama.cpp and vLLM add a token `id` to every log-probability entry.
"""

import base64
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tutelage.canon import MAX_INTEGER
from tutelage.errors import TutelageError
from tutelage.records import UNATS_PER_NAT, Message, Position, TokenLogprob, Usage

PLACEHOLDER_NATS = -9999.0  # OpenAI and vLLM write this where a log-probability is not known
DONE = b"data: [DONE]\n\n"
MAX_TOP_LOGPROBS = 20
_ROUNDING_NATS = 1e-4  # bfloat16 endpoints report certain tokens a hair above zero
_MAX_STOPS = 16


class WireError(TutelageError, ValueError):
    """A body is outside the chat protocol. `param` names the offending field, empty when the whole body is wrong."""

    def __init__(self, message: str, *, fix: str, param: str = "") -> None:
        super().__init__(message, fix=fix)
        self.param = param


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The first choice of a chat response. `positions` is empty when no log-probabilities came; `usage` is zeros when
    `usage_reported` is false."""

    text: str
    reasoning: str
    tool_calls: tuple[dict[str, Any], ...]
    finish_reason: str
    positions: tuple[Position, ...]
    usage: Usage
    usage_reported: bool
    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks of our server. `max_tokens` None: as many as fit. `ignored`: field names not acted on."""

    messages: tuple[Message, ...]
    model: str
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    logprobs: bool
    top_logprobs: int
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response and all chunks of a stream repeat; `created` in seconds since 1970."""

    response_id: str
    created: int
    model: str
    fingerprint: str


_ANSWER_FIX = "check that the base URL is an OpenAI-compatible chat endpoint and see its log"


def parse_chat_response(body: bytes) -> ChatAnswer:
    """The answer in a non-streamed chat response. Raises `WireError` naming what is wrong with it."""
    value = _load(body, _ANSWER_FIX)
    if value.get("error") is not None:
        raise _bad(f"an error inside a successful response: {_shown(value['error'])}", "error")
    choices = _typed(value, "choices", list, "the response")
    if not choices:
        raise _bad("the list of choices is empty", "choices")
    choice = choices[0]
    if not isinstance(choice, dict):
        raise _bad(f"choices[0] is {_shown(choice)}, not an object", "choices")
    message = _typed(choice, "message", dict, "choices[0]")
    reasoning = message.get("reasoning_content")
    reasoning = message.get("reasoning") if reasoning is None else reasoning
    usage = value.get("usage")
    return ChatAnswer(
        text=_content(message.get("content"), "choices[0].message.content", _ANSWER_FIX),
        reasoning=_content(reasoning, "choices[0].message.reasoning", _ANSWER_FIX),
        tool_calls=tuple(_tool_call(call) for call in _optional(message, "tool_calls", list, [])),
        finish_reason=_text(_optional(choice, "finish_reason", str, ""), "finish_reason"),
        positions=_positions(choice.get("logprobs")),
        usage=Usage(0, 0, 0) if usage is None else _usage(usage),
        usage_reported=usage is not None,
        model=_text(_optional(value, "model", str, ""), "model"),
        fingerprint=_text(_optional(value, "system_fingerprint", str, ""), "system_fingerprint"),
    )


def _bad(message: str, param: str = "", fix: str = _ANSWER_FIX) -> WireError:
    return WireError(message, fix=fix, param=param)


def _shown(value: Any) -> str:
    return ascii(value)[:200]


def _load(body: bytes, fix: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"not JSON ({error}): {_shown(body[:120])}", fix=fix) from None
    if not isinstance(value, dict):
        raise _bad(f"expected a JSON object, got {_shown(value)}", fix=fix)
    return value


def _typed(value: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if not isinstance(value.get(key), kind):
        got = f"is {_shown(value[key])}" if key in value else "is missing"
        raise _bad(f"{where}: {key!r} {got}, expected {kind.__name__}", key)
    return value[key]


def _optional(value: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    return default if value.get(key) is None else _typed(value, key, kind, "the response")


def _text(value: str, where: str, fix: str = _ANSWER_FIX) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad(f"{where} is not Unicode text: {error}", where, fix) from None
    return value


def _content(value: Any, where: str, fix: str) -> str:
    """Text, a list of text parts joined, or empty for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return _text(value, where, fix)
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        if all(isinstance(part, str) for part in parts):
            return _text("".join(parts), where, fix)  # pyrefly: ignore
    raise _bad(f"{where} is {_shown(value)}, expected text", where, fix)


def _tool_call(call: Any) -> dict[str, Any]:
    """Only the protocol's own string fields are kept: records hold no floats and nothing unexpected."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise _bad(f"a tool call is {_shown(call)}, expected an object with a function", "tool_calls")
    inner = {key: _text(_typed(function, key, str, "a tool call"), "tool_calls") for key in ("name", "arguments")}
    return {"id": _text(_optional(call, "id", str, ""), "tool_calls"), "type": "function", "function": inner}


def _positions(logprobs: Any) -> tuple[Position, ...]:
    if logprobs is None:
        return ()
    if not isinstance(logprobs, dict) or not isinstance(logprobs.get("content"), list | None):
        raise _bad(f"logprobs is {_shown(logprobs)}, expected an object with a list 'content'", "logprobs")
    return tuple(_position(entry) for entry in logprobs.get("content") or ())


def _position(entry: Any) -> Position:
    chosen = _token(entry)
    tops = [_token(top) for top in _optional(entry, "top_logprobs", list, [])]
    known = PLACEHOLDER_NATS * UNATS_PER_NAT
    return Position(chosen, tuple(top for top in tops if top.logprob_unats > known))


def _token(entry: Any) -> TokenLogprob:
    if not isinstance(entry, dict):
        raise _bad(f"a log-probability entry is {_shown(entry)}, expected an object", "logprobs")
    token_id = entry.get("id")
    if token_id is None:
        token_id = -1
    elif isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id <= MAX_INTEGER:
        raise _bad(f"a token id is {_shown(token_id)}", "logprobs")
    return TokenLogprob(base64.b64encode(_token_bytes(entry)).decode("ascii"), token_id, _unats(entry.get("logprob")))


def _token_bytes(entry: dict[str, Any]) -> bytes:
    raw = entry.get("bytes")
    if raw is None:
        return _text(_typed(entry, "token", str, "a log-probability entry"), "token").encode("utf-8")
    if isinstance(raw, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in raw):
        return bytes(raw)
    raise _bad(f"a token's bytes are {_shown(raw)}, expected a list of integers 0 to 255", "logprobs")


def _unats(logprob: Any) -> int:
    """Micro-nats; rounding above zero becomes zero, placeholders and anything below become `PLACEHOLDER_NATS`."""
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise _bad(f"a log-probability is {_shown(logprob)}, expected a number", "logprobs")
    if not math.isfinite(logprob) or logprob > _ROUNDING_NATS:
        raise _bad(f"a log-probability is {_shown(logprob)}, expected a finite number not above 0", "logprobs")
    return round(max(min(logprob, 0), PLACEHOLDER_NATS) * UNATS_PER_NAT)


def _usage(value: Any) -> Usage:
    if not isinstance(value, dict):
        raise _bad(f"usage is {_shown(value)}, expected an object", "usage")
    details = _optional(value, "prompt_tokens_details", dict, {})
    cached = details.get("cached_tokens")
    cached = value.get("prompt_cache_hit_tokens") if cached is None else cached  # DeepSeek's name
    counts = (value.get("prompt_tokens"), 0 if cached is None else cached, value.get("completion_tokens"))
    for count in counts:
        if type(count) is not int or not 0 <= count <= MAX_INTEGER:
            raise _bad(f"a token count in usage is {_shown(count)}", "usage")
    return Usage(*counts)  # pyrefly: ignore


_REQUEST_FIX = "see the OpenAI Chat Completions reference; this server answers plain text chats"
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_READ = {"messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream"}
_READ |= {"stream_options", "logprobs", "top_logprobs"}
# Known fields that would change the answer: each with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}


def parse_chat_request(body: bytes) -> ChatRequest:
    """A chat request. Raises `WireError` (HTTP 400, with `param`) for malformed fields and for known fields that this
    server does not support; unknown fields are listed in `ignored`."""
    value = {key: item for key, item in _load(body, _REQUEST_FIX).items() if item is not None}
    for key, neutral in _NEUTRAL.items():
        if key in value and value[key] not in neutral:
            raise _refused(f"{key!r} = {_shown(value[key])} is not supported by this server", key)
    max_tokens = value.get("max_completion_tokens", value.get("max_tokens"))
    wants_logprobs = _flag(value, "logprobs")
    if "top_logprobs" in value and not wants_logprobs:
        raise _refused("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    options = value.get("stream_options", {})
    if not isinstance(options, dict):
        raise _refused(f"'stream_options' is {_shown(options)}, expected an object", "stream_options")
    return ChatRequest(
        messages=_messages(value.get("messages")),
        model=_model(value.get("model")),
        max_tokens=None if max_tokens is None else int(_number("max_tokens", max_tokens, 1, MAX_INTEGER, whole=True)),
        temperature=float(_number("temperature", value.get("temperature", 1), 0, 2)),
        top_p=float(_number("top_p", value.get("top_p", 1), 0, 1)),
        seed=int(_number("seed", value["seed"], -(2**63), 2**63 - 1, whole=True)) if "seed" in value else None,
        stop=_stops(value.get("stop", [])),
        stream=_flag(value, "stream"),
        include_usage=_flag(options, "include_usage"),
        logprobs=wants_logprobs,
        top_logprobs=int(_number("top_logprobs", value.get("top_logprobs", 0), 0, MAX_TOP_LOGPROBS, whole=True)),
        ignored=tuple(sorted(set(value) - _READ - set(_NEUTRAL))),
    )


def _refused(message: str, param: str) -> WireError:
    return _bad(message, param, _REQUEST_FIX)


def _flag(value: dict[str, Any], key: str) -> bool:
    flag = value.get(key)
    if flag is not None and not isinstance(flag, bool):
        raise _refused(f"{key!r} is {_shown(flag)}, expected true or false", key)
    return bool(flag)


def _number(key: str, value: Any, low: int, high: int, *, whole: bool = False) -> int | float:
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise _refused(f"{key!r} is {_shown(value)}, expected {kind} from {low} to {high}", key)
    return value


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refused("'model' must name a model; list them with GET /v1/models", "model")
    return _text(value, "model", _REQUEST_FIX)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _refused("'messages' must be a list with at least one message", "messages")
    messages = []
    for at, item in enumerate(value):
        where = f"messages[{at}]"
        role = item.get("role") if isinstance(item, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise _refused(f"{where} has role {_shown(role)}, expected one of {', '.join(_ROLES)}", where)
        if item.get("tool_calls") or item.get("content") is None:
            raise _refused(f"{where} has no text content; tool calls are not supported", where)
        messages.append(Message(_ROLES[role], _content(item["content"], f"{where}.content", _REQUEST_FIX)))
    return tuple(messages)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise _refused(f"'stop' is {_shown(value)}, expected text or up to {_MAX_STOPS} texts, none empty", "stop")
    return tuple(_text(stop, "stop", _REQUEST_FIX) for stop in stops)


def chat_response(
    head: ResponseHead, text: str, finish_reason: str, positions: tuple[Position, ...] | None, usage: Usage
) -> bytes:
    """A whole chat response; `positions` None when the client asked for no log-probabilities."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(positions), "finish_reason": finish_reason}
    return _dump({**_head(head, "chat.completion"), "choices": [choice], "usage": _usage_body(usage)})


def chat_chunk(
    head: ResponseHead,
    delta: dict[str, str],
    positions: tuple[Position, ...] | None,
    finish_reason: str | None,
    *,
    include_usage: bool,
) -> bytes:
    """One server-sent event of a stream. With `include_usage` every chunk but `usage_chunk` says `usage: null`."""
    choice = {"index": 0, "delta": delta, "logprobs": _logprobs(positions), "finish_reason": finish_reason}
    body = {**_head(head, "chat.completion.chunk"), "choices": [choice]}
    return b"data: " + _dump({**body, "usage": None} if include_usage else body) + b"\n\n"


def usage_chunk(head: ResponseHead, usage: Usage) -> bytes:
    """The one extra last event of a stream asked for with `stream_options.include_usage`."""
    body = {**_head(head, "chat.completion.chunk"), "choices": [], "usage": _usage_body(usage)}
    return b"data: " + _dump(body) + b"\n\n"


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    return _dump({"error": {"message": message, "type": kind, "param": param, "code": code}})


def model_body(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "tutelage"}


def models_body(names: tuple[str, ...], created: int) -> bytes:
    return _dump({"object": "list", "data": [model_body(name, created) for name in names]})


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _head(head: ResponseHead, kind: str) -> dict[str, Any]:
    known = {"id": head.response_id, "object": kind, "created": head.created}
    return {**known, "model": head.model, "system_fingerprint": head.fingerprint}


def _logprobs(positions: tuple[Position, ...] | None) -> dict[str, Any] | None:
    if positions is None:
        return None
    content = [{**_token_body(p.chosen), "top_logprobs": [_token_body(top) for top in p.top]} for p in positions]
    return {"content": content, "refusal": None}


def _token_body(token: TokenLogprob) -> dict[str, Any]:
    text, raw = _spelled(token.bytes_b64)
    return {"id": token.token_id, "token": text, "logprob": token.logprob_unats / UNATS_PER_NAT, "bytes": raw}


@lru_cache(maxsize=1 << 16)
def _spelled(bytes_b64: str) -> tuple[str, list[int]]:
    raw = base64.b64decode(bytes_b64)
    return raw.decode("utf-8", "replace"), list(raw)


def _usage_body(usage: Usage) -> dict[str, Any]:
    asked, answered = usage.prompt_tokens, usage.completion_tokens
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
