"""The one use of OpenAI's older Completions API that our server has: the log-probabilities of a text that is sent (`echo`).

Evaluation harnesses compare the log-probabilities of possible answers this way. Source: OpenAI API reference, Completions.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.records import UNATS_PER_NAT, Position
from tutelage.wire.bodies import ResponseHead
from tutelage.wire.values import bad, load, shown, text

MAX_PROMPTS, MAX_LOGPROBS = 64, 20
_FIX = (
    'send "echo": true, "logprobs": 1 and "max_tokens": 0 or 1 to score a text; to generate, ask /v1/chat/completions'
)
_Prompt = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Texts, or ids of this model's tokenizer, to be scored; `with_next`: `max_tokens` is 1, so name one more token each."""

    prompts: tuple[_Prompt, ...]
    model: str
    logprobs: int
    with_next: bool


def parse_completion_request(body: bytes) -> CompletionRequest:
    """Raises `WireError` (HTTP 400, with `param`) for malformed fields and for everything but scoring a text."""
    value = {key: item for key, item in load(body, _FIX).items() if item is not None}
    if value.get("echo") is not True:
        raise bad(
            f"'echo' is {shown(value.get('echo'))}: this server scores texts here, and generates none", "echo", _FIX
        )
    for key, neutral in (("stream", False), ("n", 1), ("best_of", 1), ("suffix", "")):
        if value.get(key, neutral) != neutral:
            raise bad(f"{key!r} = {shown(value[key])} is not supported by this server", key, _FIX)
    for key, high in (("logprobs", MAX_LOGPROBS), ("max_tokens", 1)):
        number = value.get(key, 16 if key == "max_tokens" else None)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= high:
            raise bad(f"{key!r} is {shown(number)}, expected an integer from 0 to {high}", key, _FIX)
    if value["max_tokens"] and value.get("temperature", 1) != 0:
        raise bad("'temperature' must be 0: the one token that is added is the likeliest", "temperature", _FIX)
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise bad("'model' must name a model; list them with GET /v1/models", "model", _FIX)
    prompts = _prompts(value.get("prompt"))
    return CompletionRequest(prompts, text(model, "model", _FIX), value["logprobs"], bool(value["max_tokens"]))


def _prompts(value: Any) -> tuple[_Prompt, ...]:
    """A text, a list of ids, or a list of either."""
    several = value if isinstance(value, list) and value and isinstance(value[0], str | list) else [value]
    if len(several) > MAX_PROMPTS:
        raise bad(f"{len(several)} prompts, at most {MAX_PROMPTS} are taken at once", "prompt", _FIX)
    return tuple(_prompt(one) for one in several)


def _prompt(value: Any) -> _Prompt:
    if isinstance(value, str):
        return text(value, "prompt", _FIX)
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise bad(f"'prompt' is {shown(value)}, expected text, a list of token ids, or a list of these", "prompt", _FIX)
    return tuple(value)


def completion_response(
    head: ResponseHead, first: Sequence[str], scored: Sequence[Sequence[Position]], request: CompletionRequest
) -> bytes:
    """One choice a prompt, in their order. `first`: each prompt's first token, base64 of its bytes, which has no score."""
    added = int(request.with_next)
    choices = [_choice(at, *pair, request.logprobs) for at, pair in enumerate(zip(first, scored, strict=True))]
    asked, more = sum(1 + len(positions) - added for positions in scored), added * len(scored)
    usage = {"prompt_tokens": asked, "completion_tokens": more, "total_tokens": asked + more}
    about = {"id": head.response_id, "object": "text_completion", "created": head.created, "model": head.model}
    body = {**about, "system_fingerprint": head.fingerprint, "choices": choices, "usage": usage}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _choice(index: int, first: str, positions: Sequence[Position], shown_top: int) -> dict[str, Any]:
    raws = [base64.b64decode(b64) for b64 in (first, *(position.chosen.bytes_b64 for position in positions))]
    spelled, offsets, length = [_spelled(raw) for raw in raws], [], 0
    for raw in raws:
        offsets.append(length)
        length += len(raw.decode("utf-8", "replace"))
    told = {
        "tokens": spelled,
        "token_logprobs": [None, *(position.chosen.logprob_unats / UNATS_PER_NAT for position in positions)],
        "top_logprobs": [None, *(_top(position) for position in positions)] if shown_top else None,
        "text_offset": offsets,
    }
    whole = b"".join(raws).decode("utf-8", "replace")
    return {"index": index, "text": whole, "logprobs": told, "finish_reason": "length"}


def _top(position: Position) -> dict[str, float]:
    """The likeliest tokens and the one that stands there. Of two that are spelled alike the likelier is told."""
    found: dict[str, float] = {}
    for token in (*position.top, position.chosen):
        name = _spelled(base64.b64decode(token.bytes_b64))
        found[name] = max(found.get(name, float("-inf")), token.logprob_unats / UNATS_PER_NAT)
    return found


def _spelled(raw: bytes) -> str:
    """Text; bytes that are no whole characters as OpenAI spells them, so that halves of characters can be told apart."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
