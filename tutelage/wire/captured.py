"""What passed through a proxy, by the kind of call: which it is, what was asked, what was answered."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from tutelage.wire import answers, calls
from tutelage.wire.answers import ChatAnswer
from tutelage.wire.anthropic import parse_message
from tutelage.wire.calls import FIX, Asked
from tutelage.wire.gemini import parse_content
from tutelage.wire.values import bad, load, optional
from tutelage.wire.vendor_calls import parse_generate, parse_messages

_PATHS = (
    ("chat", re.compile(r".*/chat/completions/?")),
    ("completion", re.compile(r".*/completions/?")),
    ("messages", re.compile(r".*/messages/?")),
    ("generate", re.compile(r".*/(?P<model>[^/]+):(?:generateContent|streamGenerateContent)")),
)


class Kind(NamedTuple):
    """What a path says of a call: "chat", "completion", "messages" (Anthropic) or "generate" (Gemini, which names the
    model in the path)."""

    name: str
    model: str


def kind_of(path: str) -> Kind | None:
    """The kind of call that is posted to a path (no query); None for every other path."""
    for name, pattern in _PATHS:
        if found := pattern.fullmatch(path):
            return Kind(name, unquote(found.groupdict().get("model") or ""))
    return None


def parse_call(kind: Kind, body: bytes) -> Asked:
    """What a call with that body asks. Raises `WireError`."""
    value = {key: item for key, item in load(body, FIX).items() if item is not None}
    try:
        if kind.name == "generate":
            return parse_generate(value, kind.model)
        parsers = {"chat": calls.parse_chat, "completion": calls.parse_completion, "messages": parse_messages}
        return parsers[kind.name](value)
    except RecursionError:
        raise bad("nested too deeply", fix=FIX) from None


def parse_answer(kind: Kind, body: bytes) -> ChatAnswer:
    """The first answer in a whole response. Raises `WireError`."""
    parsers: dict[str, Callable[[bytes], ChatAnswer]] = {
        "chat": answers.parse_chat_response,
        "completion": answers.parse_completion,
        "messages": parse_message,
        "generate": parse_content,
    }
    try:
        return parsers[kind.name](body)
    except RecursionError:
        raise bad("nested too deeply", fix=FIX) from None


def several(value: dict[str, Any]) -> list[dict[str, Any]]:
    """A response with several answers as one response an answer; the usage, which is of all, stays with the first."""
    for key, usage in (("choices", "usage"), ("candidates", "usageMetadata")):
        found = value.get(key)
        if isinstance(found, list) and len(found) > 1:
            rest = {name: item for name, item in value.items() if name != usage}
            return [{**(rest if at else value), key: [answer]} for at, answer in enumerate(found)]
    return [value]


def take_logprobs(value: dict[str, Any]) -> list[tuple[dict[str, Any], str, Any]]:
    """Takes the log-probabilities out of a response; what is returned says where each belongs (object, key, value)."""
    taken = []
    for several_of, key in (("choices", "logprobs"), ("candidates", "logprobsResult")):
        for answer in optional(value, several_of, list, []):
            if isinstance(answer, dict) and answer.get(key) is not None:
                taken.append((answer, key, answer.pop(key)))
    return taken


def dump(value: dict[str, Any]) -> bytes:
    """A parsed body as bytes. Raises `WireError` when it cannot be written: lone surrogates, integers beyond 64 bits."""
    try:
        return orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise bad(f"cannot be written again: {error}", fix=FIX) from None
