"""Checked values out of JSON that nobody vouches for."""

import json
from typing import Any

import orjson

from tutelage.errors import TutelageError

ANSWER_FIX = "check that teacher.url is an endpoint of the API that teacher.api names, and see its log"


class WireError(TutelageError, ValueError):
    """A body is outside the chat protocol. `param` names the offending field, empty when the whole body is wrong."""

    def __init__(self, message: str, *, fix: str, param: str = "") -> None:
        super().__init__(message, fix=fix)
        self.param = param


def bad(message: str, param: str = "", fix: str = ANSWER_FIX) -> WireError:
    return WireError(message, fix=fix, param=param)


def shown(value: Any) -> str:
    try:
        return ascii(value)[:200]
    except RecursionError:  # orjson reads deeper than Python prints
        return f"a {type(value).__name__} nested too deeply to show"


def load(body: bytes, fix: str) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except ValueError:
        try:
            value = json.loads(body)  # takes NaN and lone surrogates, so that the field can be named that holds one
        except (ValueError, RecursionError) as error:
            raise bad(f"not JSON ({error}): {shown(body[:120])}", fix=fix) from None
    if not isinstance(value, dict):
        raise bad(f"expected a JSON object, got {shown(value)}", fix=fix)
    return value


def typed(value: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if not isinstance(value.get(key), kind):
        got = f"is {shown(value[key])}" if key in value else "is missing"
        raise bad(f"{where}: {key!r} {got}, expected {kind.__name__}", key)
    return value[key]


def optional(value: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    return default if value.get(key) is None else typed(value, key, kind, "the response")


def text(value: str, where: str, fix: str = ANSWER_FIX) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad(f"{where} is not Unicode text: {error}", where, fix) from None
    return value


def json_text(value: Any, where: str) -> str:
    """A parsed value as compact JSON text. Raises `WireError` when JSON cannot say it: NaN, lone surrogates, great depth."""
    try:
        made = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise bad(f"{where}: {error}", where) from None
    return text(made, where)


def content(value: Any, where: str, fix: str) -> str:
    """Text, a list of text parts joined, or empty for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return text(value, where, fix)
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in value]
        if all(isinstance(part, str) for part in parts):
            return text("".join(parts), where, fix)  # pyrefly: ignore
    raise bad(f"{where} is {shown(value)}, expected text", where, fix)
