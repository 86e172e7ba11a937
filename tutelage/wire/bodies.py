"""Bodies that our server sends."""

import base64
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tutelage.records import UNATS_PER_NAT, Position, TokenLogprob, Usage

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What a response and all chunks of a stream repeat; `created` in seconds since 1970."""

    response_id: str
    created: int
    model: str
    fingerprint: str


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
