"""Streamed answers put together: server-sent events of a whole response as the body that would have come without them.

Source: server-sent events: WHATWG HTML §9.2.6; OpenAI API reference, `chat/streaming`; Anthropic API reference, streaming
Messages; Gemini API reference, `streamGenerateContent`. Only `WireError` leaves `assemble`.
"""

import json
from collections.abc import Iterator
from typing import Any

import orjson

from tutelage.wire.values import bad, load, optional, shown, typed

_FIX = "the stream is incomplete or outside the protocol; nothing can be learnt from it"
_MOST_ITEMS = 512  # choices, tool calls or blocks of one answer
_REPLACED = frozenset({"id", "type", "role", "model", "object", "finish_reason", "system_fingerprint", "service_tier"})


class _Text(list[str]):
    """Text that grows piece by piece; joined once, at the end."""


def assemble(kind: str, body: bytes) -> bytes:
    """The body of the whole response that a stream of that kind (as in `wire.calls`) builds.

    Raises `WireError` when it is outside the protocol, reports an error or ends before the answer does.
    """
    try:
        return {"messages": _messages, "generate": _generated}.get(kind, _chat)(body)
    except RecursionError:
        raise bad("nested too deeply", fix=_FIX) from None


def _chat(body: bytes) -> bytes:
    """An OpenAI stream, chat or completion, as the body of the whole response. Every choice must have finished."""
    whole: dict[str, Any] = {"choices": []}
    for data in _data(body):
        if data == b"[DONE]":
            break
        part = load(data, _FIX)
        if part.get("error") is not None:
            raise bad(f"an error within the stream: {shown(part['error'])}", "error", _FIX)
        choices = optional(part, "choices", list, [])
        _merge(whole, {key: value for key, value in part.items() if key != "choices"})
        for choice in choices:
            said = dict(_object(choice, "choices"))
            if "delta" in said:
                said["message"] = said.pop("delta")
            _merge(_item(whole["choices"], said.get("index")), said)
    if not whole["choices"] or any(choice.get("finish_reason") is None for choice in whole["choices"]):
        raise bad("the stream ends before the answer does", "finish_reason", _FIX)
    return _dump(whole)


def _messages(body: bytes) -> bytes:
    """An Anthropic stream as the message it builds. It must have stopped."""
    message: dict[str, Any] | None = None
    stopped = False
    for data in _data(body):
        event = load(data, _FIX)
        kind = event.get("type")
        if kind == "error":
            raise bad(f"an error within the stream: {shown(event.get('error'))}", "error", _FIX)
        if kind == "message_start":
            message = {**typed(event, "message", dict, "message_start"), "content": []}
        elif message is None:
            continue
        elif kind == "content_block_start":
            _item(message["content"], event.get("index")).update(typed(event, "content_block", dict, kind))
        elif kind == "content_block_delta":
            _grow(_item(message["content"], event.get("index")), typed(event, "delta", dict, kind))
        elif kind == "message_delta":
            message.update(typed(event, "delta", dict, kind))
            usage = {key: value for key, value in optional(event, "usage", dict, {}).items() if value is not None}
            message["usage"] = {**optional(message, "usage", dict, {}), **usage}
        elif kind == "message_stop":
            stopped = True
    if message is None or not stopped:
        raise bad("the stream ends before the message does", "type", _FIX)
    for block in message["content"]:
        if "partial_json" in block:
            text = "".join(block.pop("partial_json"))
            block["input"] = load(text.encode("utf-8", "surrogatepass"), _FIX) if text.strip() else {}
    return _dump(message)


def _generated(body: bytes) -> bytes:
    """A Gemini stream, as events or as one list, as the body of the whole response. It must have finished."""
    if body.lstrip()[:1] == b"[":
        parts = typed(load(b'{"parts":' + body + b"}", _FIX), "parts", list, "the stream")
    else:
        parts = [load(data, _FIX) for data in _data(body)]
    whole: dict[str, Any] = {"candidates": []}
    for part in parts:
        if not isinstance(part, dict) or part.get("error") is not None:
            raise bad(f"an error within the stream: {shown(part)}", "error", _FIX)
        whole.update({key: value for key, value in part.items() if key != "candidates"})
        for candidate in optional(part, "candidates", list, []):
            _add_candidate(whole["candidates"], candidate)
    blocked = isinstance(whole.get("promptFeedback"), dict) and whole["promptFeedback"].get("blockReason")
    if not blocked and not (whole["candidates"] and all(one.get("finishReason") for one in whole["candidates"])):
        raise bad("the stream ends before the answer does", "finishReason", _FIX)
    return _dump(whole)


def _data(body: bytes) -> Iterator[bytes]:
    """The data of each event; a last event without its blank line counts, when it is whole the caller can read it."""
    lines: list[bytes] = []
    for line in body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line and lines:
            yield b"\n".join(lines)
            lines = []
    if lines:
        yield b"\n".join(lines)


def _item(items: list[dict[str, Any]], index: Any) -> dict[str, Any]:
    """The item with that index, made when it is the next; an item without an index is the first."""
    index = 0 if index is None else index
    if type(index) is not int or not 0 <= index < _MOST_ITEMS:
        raise bad(f"an index is {shown(index)}", "index", _FIX)
    while len(items) <= index:
        items.append({})
    return _object(items[index], "index")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{where} holds {shown(value)}, expected an object", where, _FIX)
    return value


def _merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Adds what a chunk says: texts are continued, lists with an index in their items are merged item by item, other lists
    continued, and of anything else the last value counts."""
    for key, value in part.items():
        before = whole.get(key)
        if value is None:
            whole.setdefault(key, None)
        elif key in _REPLACED or (key == "name" and isinstance(before, _Text) and "".join(before) == value):
            whole[key] = value
        elif isinstance(value, str):
            if not isinstance(before, _Text):
                before = whole[key] = _Text()
            before.append(value)
        elif isinstance(value, dict):
            if not isinstance(before, dict):
                before = whole[key] = {}
            _merge(before, value)
        elif isinstance(value, list):
            if not isinstance(before, list) or isinstance(before, _Text):
                before = whole[key] = []
            _extend(before, value)
        else:
            whole[key] = value


def _extend(before: list[Any], values: list[Any]) -> None:
    for value in values:
        if isinstance(value, dict) and "index" in value:
            _merge(_item(before, value["index"]), {key: item for key, item in value.items() if key != "index"})
        else:
            before.append(value)


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """Adds the delta of an Anthropic content block."""
    kinds = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
    kind = str(delta.get("type"))
    if key := kinds.get(kind):
        before = block.get(key)
        if not isinstance(before, _Text):
            before = block[key] = _Text([before] if isinstance(before, str) else [])
        before.append(typed(delta, key, str, "a delta"))
    elif kind == "signature_delta":
        block["signature"] = delta.get("signature")
    elif kind == "citations_delta":
        if not isinstance(block.get("citations"), list):
            block["citations"] = []
        block["citations"].append(delta.get("citation"))


def _add_candidate(candidates: list[dict[str, Any]], said: Any) -> None:
    whole = _item(candidates, _object(said, "candidates").get("index"))
    content, logprobs = optional(said, "content", dict, {}), optional(said, "logprobsResult", dict, {})
    whole.update({key: value for key, value in said.items() if key not in ("content", "logprobsResult")})
    held = whole.setdefault("content", {"parts": []})
    held.update({key: value for key, value in content.items() if key != "parts"})
    for part in optional(content, "parts", list, []):
        _add_part(held["parts"], _object(part, "parts"))
    if logprobs:
        _merge(whole.setdefault("logprobsResult", {}), logprobs)


def _add_part(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Text continues the part before, when both are plain text of one kind (thought or answer)."""
    last = parts[-1] if parts else None
    plain = isinstance(part.get("text"), str) and not set(part) - {"text", "thought"}
    if not plain:
        parts.append(part)
    elif last and isinstance(last.get("text"), _Text) and last.get("thought") == part.get("thought"):
        last["text"].append(part["text"])
    else:
        parts.append({**part, "text": _Text([part["text"]])})


def _joined(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {key: _joined(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_joined(item) for item in value]
    return value


def _dump(value: dict[str, Any]) -> bytes:
    try:
        joined = _joined(value)
        try:
            return orjson.dumps(joined)
        except TypeError:  # lone surrogates and large integers: the standard library writes them
            return json.dumps(joined, separators=(",", ":")).encode()
    except RecursionError:
        raise bad("nested too deeply", fix=_FIX) from None
