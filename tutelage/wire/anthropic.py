"""Answers of Anthropic's Messages API.

Source: Anthropic API reference, `messages/create` (response, `stop_reason`, `usage`), and its guide to extended thinking.
"""

from typing import Any

from tutelage.canon import MAX_INTEGER
from tutelage.records import Usage
from tutelage.wire.answers import ChatAnswer, count, readable
from tutelage.wire.values import ANSWER_FIX, WireError, bad, json_text, load, optional, shown, text, typed

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def parse_message(body: bytes) -> ChatAnswer:
    """The answer in a non-streamed message. Raises `WireError` naming what is wrong with it.

    Text blocks are joined as they stand, thinking blocks by an empty line. What the API runs on its own side (searches,
    code) is in the raw body alone. Other finish reasons than those OpenAI has words for stay as they are.
    """
    value = load(body, ANSWER_FIX)
    if value.get("type") == "error" or value.get("error") is not None:
        raise bad(f"an error inside a successful response: {shown(value.get('error'))}", "error")
    blocks = typed(value, "content", list, "the message")
    said = [text(typed(block, "text", str, "a text block"), "text") for block in _of_type(blocks, "text")]
    thoughts = [text(typed(block, "thinking", str, "a block"), "thinking") for block in _of_type(blocks, "thinking")]
    reason = text(optional(value, "stop_reason", str, ""), "stop_reason")
    usage = readable(_usage, value.get("usage"))
    return ChatAnswer(
        text="".join(said),
        reasoning="\n\n".join(thought for thought in thoughts if thought),
        tool_calls=_tool_calls(blocks),
        finish_reason=_FINISH.get(reason, reason),
        positions=(),
        usage=usage or Usage(0, 0, 0),
        usage_reported=usage is not None,
        model=text(optional(value, "model", str, ""), "model"),
        fingerprint="",
    )


def usage_in_message(body: bytes) -> Usage | None:
    """What an unusable message says it cost; None when it says nothing that can be read."""
    try:
        return _usage(load(body, ANSWER_FIX).get("usage"))
    except WireError:
        return None


def _of_type(blocks: list[Any], kind: str) -> list[dict[str, Any]]:
    for block in blocks:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise bad(f"a content block is {shown(block)}, expected an object with a type", "content")
    return [block for block in blocks if block["type"] == kind]


def _tool_calls(blocks: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """In OpenAI's shape. A call keeps, as JSON text under "thinking", the thinking blocks before it: the API wants them
    back, unchanged, with the tool's result."""
    calls, thinking = [], []
    for block in blocks:
        if block["type"] in ("thinking", "redacted_thinking"):
            thinking.append({key: value for key, value in block.items() if isinstance(value, str)})
        elif block["type"] == "tool_use":
            arguments = json_text(typed(block, "input", dict, "a tool call"), "tool_calls")
            function = {"name": text(typed(block, "name", str, "a tool call"), "tool_calls"), "arguments": arguments}
            call = {"id": text(typed(block, "id", str, "a tool call"), "tool_calls"), "type": "function"}
            kept = {"thinking": json_text(thinking, "thinking")} if thinking else {}
            calls.append({**call, "function": function, **kept})
            thinking = []
    return tuple(calls)


def _usage(value: Any) -> Usage:
    """`input_tokens` leaves out what was read from, or written to, the cache."""
    if not isinstance(value, dict):
        raise bad(f"usage is {shown(value)}, expected an object", "usage")
    read = count(value.get("cache_read_input_tokens") or 0)
    written = count(value.get("cache_creation_input_tokens") or 0)
    prompt = count(value.get("input_tokens")) + read + written
    details = optional(value, "output_tokens_details", dict, {})
    if prompt > MAX_INTEGER:
        raise bad(f"token counts in usage add up to {prompt}", "usage")
    completion, thought = count(value.get("output_tokens")), count(details.get("thinking_tokens") or 0)
    return Usage(prompt, read, completion, thought, written)
