"""Small readers of what batch APIs answer: hostile text, so nothing here raises but what it says.

A part of a JSON text is taken as it was received, byte for byte: parsed and written anew it would have another digest.
"""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from json.decoder import scanstring  # pyrefly: ignore  # the standard library's own reader of a string
from typing import Any, NamedTuple

from tutelage.models.base import AskAgain
from tutelage.wire.values import WireError, bad, load, shown

CLOCKS_DIFFER_S = 600.0  # a provider's clock may be so far from ours
_MOST_PAGES = 50
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class Listed(NamedTuple):
    """A job in a listing: its id, when it was made (seconds since 1970), its mark, and how many questions it holds."""

    batch_id: str
    created_s: float
    token: str
    count: int


async def listing(pages: AsyncIterator[list[Listed]], since: str = "") -> AsyncIterator[Listed]:
    """The jobs of a listing. One that begins with the newest ends with those that are older than `since` can be."""
    oldest_s = seconds(since) - CLOCKS_DIFFER_S if since else float("-inf")
    count = 0
    async for page in pages:
        count += 1
        for listed in page:
            if listed.created_s < oldest_s:
                return
            yield listed
        if count == _MOST_PAGES:
            return


def seconds(time: str) -> float:
    """An RFC 3339 time as seconds since 1970. Raises `ValueError`."""
    found = datetime.fromisoformat(time)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def number(value: Any) -> int:
    """A count, as JSON number or digits; 0 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if type(value) is int and value >= 0 else 0


def identifier(value: dict[str, Any], key: str) -> str:
    """A name that the provider gave. Raises `AskAgain` when it gave none: the job may be there all the same."""
    found = value.get(key)
    if not isinstance(found, str) or not found or not found.isascii() or not found.isprintable():
        raise AskAgain(f"the answer has no {key!r}: {shown(value)}", may_be_billed=True)
    return found


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; empty for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def table(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; empty when there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def message(error: dict[str, Any]) -> str:
    """The text of an error, one line of it; the error itself when it has none."""
    found = error.get("message")
    text = found[:200] if isinstance(found, str) else shown(error)
    return "".join(character if character.isprintable() else " " for character in text)


def line_value(line: bytes) -> dict[str, Any] | None:
    """A line's JSON object; None when it is none."""
    try:
        return load(line, "")
    except WireError:
        return None


class _Span(NamedTuple):
    start: int
    end: int


def raw_member(line: bytes, *path: str) -> bytes:
    """The bytes of the value that the names in `path` lead to, through objects (RFC 8259 §4).

    Of members with one name the last counts, as it does for parsers. Raises `WireError` when the line is no UTF-8, no JSON
    up to there, nested too deeply to read, or has no such member.
    """
    try:
        text = line.decode("utf-8")
        span = _Span(_skip(text, 0), len(text))
        for name in path:
            span = _member(text, span.start, name)
        return text[span.start : span.end].encode("utf-8")
    except (ValueError, IndexError, RecursionError) as error:
        raise bad(f"no {'.'.join(path)!r} in a line of results: {type(error).__name__}") from None


def _member(text: str, at: int, name: str) -> _Span:
    if text[at] != "{":
        raise ValueError("no object")
    found: _Span | None = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise ValueError("no name")
        key, at = scanstring(text, at + 1)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("no colon")
        start = _skip(text, at + 1)
        _, end = _DECODER.raw_decode(text, start)
        if key == name:
            found = _Span(start, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
        elif text[at] != "}":
            raise ValueError("no comma")
    if found is None:
        raise ValueError("no such member")
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
