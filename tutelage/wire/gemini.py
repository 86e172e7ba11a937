"""Answers of Gemini's `generateContent`.

Source: Gemini API reference, `generate-content` (`GenerateContentResponse`, `FinishReason`, `LogprobsResult`,
`UsageMetadata`), and its guide to thought signatures.
"""

from typing import Any

from tutelage.canon import MAX_INTEGER
from tutelage.records import Position, Usage
from tutelage.wire.answers import ChatAnswer, count, position, readable
from tutelage.wire.values import ANSWER_FIX, WireError, bad, json_text, load, optional, shown, text, typed

_FILTERED = (
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
)  # fmt: skip
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}


def parse_content(body: bytes) -> ChatAnswer:
    """The first candidate of a non-streamed response. Raises `WireError` naming what is wrong with it.

    A prompt that was blocked has no candidate: its answer is empty and finished by "content_filter". Code that the API ran
    on its own side is in the raw body alone. Other finish reasons than those OpenAI has words for stay as they are.
    """
    value = load(body, ANSWER_FIX)
    if value.get("error") is not None:
        raise bad(f"an error inside a successful response: {shown(value['error'])}", "error")
    candidate = _candidate(value)
    parts = optional(optional(candidate, "content", dict, {}), "parts", list, [])
    texts: dict[bool, list[str]] = {False: [], True: []}
    calls = []
    for part in parts:
        if not isinstance(part, dict):
            raise bad(f"a part is {shown(part)}, expected an object", "parts")
        if part.get("text") is not None:
            texts[part.get("thought") is True].append(text(typed(part, "text", str, "a part"), "text"))
        if part.get("functionCall") is not None:
            calls.append(_tool_call(part))
    reason = text(optional(candidate, "finishReason", str, ""), "finishReason")
    usage = readable(_usage, value.get("usageMetadata"))
    return ChatAnswer(
        text="".join(texts[False]),
        reasoning="".join(texts[True]),
        tool_calls=tuple(calls),
        finish_reason="tool_calls" if calls and reason == "STOP" else _FINISH.get(reason, reason),
        positions=_positions(candidate.get("logprobsResult")),
        usage=usage or Usage(0, 0, 0),
        usage_reported=usage is not None,
        model=text(optional(value, "modelVersion", str, ""), "modelVersion"),
        fingerprint="",
    )


def usage_in_content(body: bytes) -> Usage | None:
    """What an unusable response says it cost; None when it says nothing that can be read."""
    try:
        return _usage(load(body, ANSWER_FIX).get("usageMetadata"))
    except WireError:
        return None


def _candidate(value: dict[str, Any]) -> dict[str, Any]:
    candidates = optional(value, "candidates", list, [])
    if candidates:
        if not isinstance(candidates[0], dict):
            raise bad(f"candidates[0] is {shown(candidates[0])}, not an object", "candidates")
        return candidates[0]
    blocked = optional(value, "promptFeedback", dict, {}).get("blockReason")
    if blocked is None:
        raise bad("no candidate, and no word that the prompt was blocked", "candidates")
    return {"finishReason": "SAFETY"}


def _tool_call(part: dict[str, Any]) -> dict[str, Any]:
    """In OpenAI's shape; `id` is empty where the API gives none. The thought's signature stays with it, because Gemini 3
    refuses a conversation that does not bring it back."""
    call = typed(part, "functionCall", dict, "a part")
    arguments = json_text(optional(call, "args", dict, {}), "tool_calls")
    function = {"name": text(typed(call, "name", str, "a function call"), "tool_calls"), "arguments": arguments}
    signature = text(optional(part, "thoughtSignature", str, ""), "thoughtSignature")
    kept = {"signature": signature} if signature else {}
    return {"id": text(optional(call, "id", str, ""), "tool_calls"), "type": "function", "function": function, **kept}


def _positions(result: Any) -> tuple[Position, ...]:
    if result is None:
        return ()
    if not isinstance(result, dict):
        raise bad(f"logprobsResult is {shown(result)}, expected an object", "logprobsResult")
    chosen = optional(result, "chosenCandidates", list, [])
    tops = optional(result, "topCandidates", list, [{}] * len(chosen))
    if len(chosen) != len(tops):
        raise bad(f"logprobsResult has {len(chosen)} tokens and {len(tops)} lists of candidates", "logprobsResult")
    rows = []
    for token, top in zip(chosen, tops, strict=True):
        if not isinstance(top, dict):
            raise bad(f"topCandidates has {shown(top)}, expected an object", "logprobsResult")
        ranked = [_entry(item) for item in optional(top, "candidates", list, [])]
        rows.append(position({**_entry(token), "top_logprobs": ranked}))
    return tuple(rows)


def _entry(candidate: Any) -> dict[str, Any]:
    """One token in OpenAI's words, so that one place checks it. Gemini tells its text, not its bytes."""
    if not isinstance(candidate, dict):
        raise bad(f"a token is {shown(candidate)}, expected an object", "logprobsResult")
    renamed = {"token": "token", "logprob": "logProbability", "id": "tokenId"}
    return {ours: candidate[theirs] for ours, theirs in renamed.items() if theirs in candidate}


def _usage(value: Any) -> Usage | None:
    """`promptTokenCount` has the cached tokens in it, `candidatesTokenCount` has the thoughts not; a count that is zero is
    left out."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad(f"usageMetadata is {shown(value)}, expected an object", "usageMetadata")
    if value.get("promptTokenCount") is None:
        return None
    prompt = count(value["promptTokenCount"]) + count(value.get("toolUsePromptTokenCount") or 0)
    cached, thoughts = (count(value.get(key) or 0) for key in ("cachedContentTokenCount", "thoughtsTokenCount"))
    completion = count(value.get("candidatesTokenCount") or 0) + thoughts
    if prompt > MAX_INTEGER or completion > MAX_INTEGER or cached > prompt:
        raise bad(f"token counts in usageMetadata do not agree: {shown(value)}", "usageMetadata")
    return Usage(prompt, cached, completion, thoughts)
