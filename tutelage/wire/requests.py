"""Chat requests as our server reads them."""

from dataclasses import dataclass
from typing import Any

from tutelage.canon import MAX_INTEGER
from tutelage.records import Message
from tutelage.wire.values import WireError, bad, content, load, shown, text

MAX_TOP_LOGPROBS = 20
_MAX_STOPS = 16
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


def parse_chat_request(body: bytes) -> ChatRequest:
    """A chat request. Raises `WireError` (HTTP 400, with `param`) for malformed fields and for known fields that this
    server does not support; unknown fields are listed in `ignored`."""
    value = {key: item for key, item in load(body, _REQUEST_FIX).items() if item is not None}
    for key, neutral in _NEUTRAL.items():
        if key in value and value[key] not in neutral:
            raise _refused(f"{key!r} = {shown(value[key])} is not supported by this server", key)
    max_tokens = value.get("max_completion_tokens", value.get("max_tokens"))
    wants_logprobs = _flag(value, "logprobs")
    if "top_logprobs" in value and not wants_logprobs:
        raise _refused("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    options = value.get("stream_options", {})
    if not isinstance(options, dict):
        raise _refused(f"'stream_options' is {shown(options)}, expected an object", "stream_options")
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
    return bad(message, param, _REQUEST_FIX)


def _flag(value: dict[str, Any], key: str) -> bool:
    flag = value.get(key)
    if flag is not None and not isinstance(flag, bool):
        raise _refused(f"{key!r} is {shown(flag)}, expected true or false", key)
    return bool(flag)


def _number(key: str, value: Any, low: int, high: int, *, whole: bool = False) -> int | float:
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise _refused(f"{key!r} is {shown(value)}, expected {kind} from {low} to {high}", key)
    return value


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _refused("'model' must name a model; list them with GET /v1/models", "model")
    return text(value, "model", _REQUEST_FIX)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _refused("'messages' must be a list with at least one message", "messages")
    messages = []
    for at, item in enumerate(value):
        where = f"messages[{at}]"
        role = item.get("role") if isinstance(item, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise _refused(f"{where} has role {shown(role)}, expected one of {', '.join(_ROLES)}", where)
        if item.get("tool_calls") or item.get("content") is None:
            raise _refused(f"{where} has no text content; tool calls are not supported", where)
        messages.append(Message(_ROLES[role], content(item["content"], f"{where}.content", _REQUEST_FIX)))
    return tuple(messages)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise _refused(f"'stop' is {shown(value)}, expected text or up to {_MAX_STOPS} texts, none empty", "stop")
    return tuple(text(stop, "stop", _REQUEST_FIX) for stop in stops)
