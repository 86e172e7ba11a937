"""Answers of an endpoint, chat or completion, with their log-probabilities."""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tutelage.canon import MAX_INTEGER
from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob, Usage
from tutelage.wire.values import ANSWER_FIX, WireError, bad, content, load, optional, shown, text, typed

PLACEHOLDER_NATS = -9999.0  # OpenAI and vLLM write this where a log-probability is not known
_ROUNDING_NATS = 1e-4  # bfloat16 endpoints report certain tokens a hair above zero


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


def parse_chat_response(body: bytes) -> ChatAnswer:
    """The answer in a non-streamed chat response. Raises `WireError` naming what is wrong with it."""
    value, choice = _first_choice(body)
    message = typed(choice, "message", dict, "choices[0]")
    reasoning = message.get("reasoning_content")
    reasoning = message.get("reasoning") if reasoning is None else reasoning
    said = message.get("content")
    if said is None and message.get("refusal") is not None:  # OpenAI puts a declining answer apart
        said, choice = message["refusal"], {**choice, "finish_reason": "content_filter"}
    return _answer(
        value,
        choice,
        content(said, "choices[0].message.content", ANSWER_FIX),
        content(reasoning, "choices[0].message.reasoning", ANSWER_FIX),
        tuple(_tool_call(call) for call in optional(message, "tool_calls", list, [])),
    )


def parse_completion(body: bytes) -> ChatAnswer:
    """The answer in a non-streamed response of the completions API. Raises `WireError` naming what is wrong with it."""
    value, choice = _first_choice(body)
    return _answer(value, choice, content(choice.get("text"), "choices[0].text", ANSWER_FIX), "", ())


def usage_in(body: bytes) -> Usage | None:
    """The usage that an unusable answer reports; None when it reports none that can be read."""
    try:
        return readable(usage_of, load(body, ANSWER_FIX).get("usage"))
    except WireError:
        return None


def readable(read: Callable[[Any], Usage | None], value: Any) -> Usage | None:
    """Usage that cannot be read is as good as none: the answer is paid for all the same."""
    try:
        return None if value is None else read(value)
    except WireError:
        return None


def _first_choice(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    value = load(body, ANSWER_FIX)
    if value.get("error") is not None:
        raise bad(f"an error inside a successful response: {shown(value['error'])}", "error")
    choices = typed(value, "choices", list, "the response")
    if not choices:
        raise bad("the list of choices is empty", "choices")
    choice = choices[0]
    if not isinstance(choice, dict):
        raise bad(f"choices[0] is {shown(choice)}, not an object", "choices")
    if choice.get("error") is not None:  # OpenRouter: a provider that failed behind a successful response
        raise bad(f"an error inside a choice: {shown(choice['error'])}", "choices")
    return value, choice


def _answer(
    value: dict[str, Any], choice: dict[str, Any], said: str, reasoning: str, tool_calls: tuple[dict[str, Any], ...]
) -> ChatAnswer:
    usage = readable(usage_of, value.get("usage"))
    return ChatAnswer(
        text=said,
        reasoning=reasoning,
        tool_calls=tool_calls,
        finish_reason=text(optional(choice, "finish_reason", str, ""), "finish_reason"),
        positions=_positions(choice.get("logprobs")),
        usage=usage or Usage(0, 0, 0),
        usage_reported=usage is not None,
        model=text(optional(value, "model", str, ""), "model"),
        fingerprint=text(optional(value, "system_fingerprint", str, ""), "system_fingerprint"),
    )


def _tool_call(call: Any) -> dict[str, Any]:
    """Only the protocol's own string fields are kept: records hold no floats and nothing unexpected."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise bad(f"a tool call is {shown(call)}, expected an object with a function", "tool_calls")
    inner = {key: text(typed(function, key, str, "a tool call"), "tool_calls") for key in ("name", "arguments")}
    return {"id": text(optional(call, "id", str, ""), "tool_calls"), "type": "function", "function": inner}


def _positions(logprobs: Any) -> tuple[Position, ...]:
    if logprobs is None:
        return ()
    if isinstance(logprobs, dict) and isinstance(logprobs.get("tokens"), list):
        return _legacy_positions(logprobs)
    if not isinstance(logprobs, dict) or not isinstance(logprobs.get("content"), list | None):
        raise bad(f"logprobs is {shown(logprobs)}, expected an object with a list 'content'", "logprobs")
    return tuple(position(entry) for entry in logprobs.get("content") or ())


def _legacy_positions(logprobs: dict[str, Any]) -> tuple[Position, ...]:
    """The completions API's own form: parallel lists of tokens, their log-probabilities and the candidates by token."""
    tokens = logprobs["tokens"]
    own = typed(logprobs, "token_logprobs", list, "logprobs")
    tops = optional(logprobs, "top_logprobs", list, [None] * len(tokens))
    if not len(tokens) == len(own) == len(tops):
        raise bad(
            f"logprobs has {len(tokens)} tokens, {len(own)} of their log-probabilities, {len(tops)} tops", "logprobs"
        )
    rows = []
    for token, logprob, top in zip(tokens, own, tops, strict=True):
        if not isinstance(top, dict | None):
            raise bad(f"top_logprobs has {shown(top)}, expected an object", "logprobs")
        ranked = [{"token": name, "logprob": value} for name, value in (top or {}).items()]
        rows.append(position({"token": token, "logprob": logprob, "top_logprobs": ranked}))
    return tuple(rows)


def position(entry: Any) -> Position:
    """One entry of chat log-probabilities, with its candidates. Raises `WireError`."""
    chosen = _token(entry)
    tops = [_token(top) for top in optional(entry, "top_logprobs", list, [])]
    known = PLACEHOLDER_NATS * UNATS_PER_NAT
    return Position(chosen, tuple(top for top in tops if top.logprob_unats > known))


def _token(entry: Any) -> TokenLogprob:
    """An answer may hold thousands of these: the usual form first, the checks that name what is wrong after it."""
    try:
        raw, logprob = entry["bytes"], entry["logprob"]
        token_id = entry.get("id", -1)
        is_id = type(token_id) is int and (0 <= token_id <= MAX_INTEGER or "id" not in entry)
        if is_id and type(raw) is list and type(logprob) is float and PLACEHOLDER_NATS < logprob <= 0:
            spelled = binascii.b2a_base64(bytes(raw), newline=False).decode("ascii")
            return TokenLogprob(spelled, token_id, round(logprob * UNATS_PER_NAT))
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return _checked_token(entry)


def _checked_token(entry: Any) -> TokenLogprob:
    if not isinstance(entry, dict):
        raise bad(f"a log-probability entry is {shown(entry)}, expected an object", "logprobs")
    token_id = entry.get("id")
    if token_id is None:
        token_id = -1
    elif isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id <= MAX_INTEGER:
        raise bad(f"a token id is {shown(token_id)}", "logprobs")
    return TokenLogprob(base64.b64encode(_token_bytes(entry)).decode("ascii"), token_id, unats_of(entry.get("logprob")))


def _token_bytes(entry: dict[str, Any]) -> bytes:
    raw = entry.get("bytes")
    if raw is None:
        return text(typed(entry, "token", str, "a log-probability entry"), "token").encode("utf-8")
    if isinstance(raw, list) and all(type(byte) is int and 0 <= byte <= 255 for byte in raw):
        return bytes(raw)
    raise bad(f"a token's bytes are {shown(raw)}, expected a list of integers 0 to 255", "logprobs")


def unats_of(logprob: Any) -> int:
    """Micro-nats; rounding above zero becomes zero, placeholders and anything below become `PLACEHOLDER_NATS`."""
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise bad(f"a log-probability is {shown(logprob)}, expected a number", "logprobs")
    if not math.isfinite(logprob) or logprob > _ROUNDING_NATS:
        raise bad(f"a log-probability is {shown(logprob)}, expected a finite number not above 0", "logprobs")
    return round(max(min(logprob, 0), PLACEHOLDER_NATS) * UNATS_PER_NAT)


def usage_of(value: Any) -> Usage:
    """The tokens of one call. Raises `WireError`."""
    if not isinstance(value, dict):
        raise bad(f"usage is {shown(value)}, expected an object", "usage")
    details = optional(value, "prompt_tokens_details", dict, {})
    thoughts = optional(value, "completion_tokens_details", dict, {}).get("reasoning_tokens")
    cached = details.get("cached_tokens")
    cached = value.get("prompt_cache_hit_tokens") if cached is None else cached  # DeepSeek's name
    written = details.get("cache_write_tokens")  # OpenRouter's
    prompt, completion = count(value.get("prompt_tokens")), count(value.get("completion_tokens"))
    total = value.get("total_tokens")
    if total is not None:  # some leave reasoning out of the completion's tokens, and charge for it
        completion = max(completion, count(total) - prompt)
    return Usage(
        prompt,
        count(cached or 0),
        completion,
        count(thoughts or 0),
        count(written or 0),
    )


def count(value: Any) -> int:
    """A number of tokens. Raises `WireError` for anything else."""
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise bad(f"a token count in usage is {shown(value)}", "usage")
    return value
