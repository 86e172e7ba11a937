"""What stands in bodies that no dialect parses: lists of models, scores of a text we supplied, tokens. All of it hostile."""

import json
from typing import Any, NamedTuple

from tutelage.canon import MAX_INTEGER

_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


class Listed(NamedTuple):
    """What a list of models tells of one: who owns it (engines put their name there), and prompt and answer together in
    tokens, −1 when it does not tell."""

    owner: str
    context_tokens: int


def listed(value: Any, model: str) -> Listed:
    """The entry of that model, or the only one there is."""
    found = dig(value, "data")
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    entry = next((entry for entry in entries if entry.get("id") == model), entries[0] if len(entries) == 1 else {})
    owner = entry.get("owned_by")
    tables = [table for table in (entry, dig(entry, "meta"), dig(entry, "top_provider")) if isinstance(table, dict)]
    sizes = [table.get(key) for table in tables for key in _CONTEXT_KEYS]
    known = [size for size in sizes if type(size) is int and 0 < size <= MAX_INTEGER]
    return Listed(owner if isinstance(owner, str) else "", known[0] if known else -1)


def strings(value: Any) -> list[str] | None:
    """A list of nothing but strings, else None."""
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def entries_echo(value: Any) -> int:
    """Candidates a position of the text that a completion echoes, 0 when it scores none; the first position has none, as
    nothing stands before it."""
    found = dig(value, "choices", 0, "logprobs")
    own, tops = dig(found, "token_logprobs"), dig(found, "top_logprobs")
    if not isinstance(own, list) or not isinstance(tops, list) or len(own) < 10 or len(own) != len(tops):
        return 0
    if own[0] is not None or not all(isinstance(value, int | float) for value in own[1:]):
        return 0
    return min(len(top) if isinstance(top, dict) else 0 for top in tops[1:-1])


def entries_prompt_logprobs(value: Any) -> int:
    """The same for vLLM's `prompt_logprobs`."""
    rows = dig(value, "choices", 0, "prompt_logprobs") or dig(value, "prompt_logprobs")
    if not isinstance(rows, list) or len(rows) < 10 or rows[0] is not None:
        return 0
    return min(len(row) if isinstance(row, dict) else 0 for row in rows[1:])


def dig(value: Any, *path: str | int) -> Any:
    """What lies at a path of keys and places; None where there is no such thing."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def bytes_of(piece: Any) -> bytes | None:
    """A token as llama.cpp spells it: text, or a list of bytes where it is no whole character."""
    if isinstance(piece, str):
        return piece.encode("utf-8", "surrogatepass")
    if isinstance(piece, list) and all(type(byte) is int and 0 <= byte < 256 for byte in piece):
        return bytes(piece)
    return None


def fits_schema(text: str) -> bool:
    """Whether a text is an object of `SCHEMA`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and list(value) == ["colour"] and value["colour"] in ("red", "blue")
