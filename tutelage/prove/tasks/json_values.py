"""JSON out of what a model wrote: the first value in it, strictly RFC 8259, without trusting its size or depth.

NaN, infinities, numbers beyond 400 digits, a key that stands twice in one object and nesting beyond `MAX_DEPTH` are no JSON here.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

MAX_DEPTH = 64
MAX_DIGITS = 400
MAX_STARTS = 200  # places at which a value may begin before the search is given up
MAX_READ = 4_000_000  # characters read in vain before the search is given up
_FENCE = re.compile(r"```[A-Za-z0-9_+.-]*[ \t]*\r?\n(.*?)```", re.DOTALL)
_START = re.compile(r"[{\[]")


class NoValue(ValueError):
    """There is no JSON value."""


def read_json(text: str) -> Any:
    """The value that a text is, numbers as exact `Fraction`s. Raises `NoValue`."""
    try:
        value, end = _DECODER.raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError) as error:
        raise NoValue(_reason(error)) from None
    if _skip(text, end) != len(text):
        raise NoValue(f"something follows the value at character {end}")
    return value


def first_json(text: str, kind: type | tuple[type, ...] | None = None) -> Any:
    """The first JSON value of an answer: all of the text; else the first fence that is one; else the first object or
    list in it. With `kind`, the first value of that type, and any other only when there is none. Raises `NoValue`."""
    other: list[Any] = []
    for value in _values(text):
        if kind is None or isinstance(value, kind):
            return value
        other.append(value)
        if len(other) >= MAX_STARTS:
            break
    if not other:
        raise NoValue("no JSON value in it")
    return other[0]


def _values(text: str) -> Iterator[Any]:
    fences = (found[1] for found in _FENCE.finditer(text))
    for at, part in enumerate([text, *fences]):
        if at > MAX_STARTS:
            break
        try:
            yield read_json(part)
        except NoValue:
            continue
    yield from values_within(text)


def values_within(text: str) -> Iterator[Any]:
    """Objects and lists that stand in a text, in order; one inside another is not told apart."""
    at, read, starts = 0, 0, 0
    while (found := _START.search(text, at)) and starts < MAX_STARTS and read < MAX_READ:
        starts += 1
        try:
            value, at = _DECODER.raw_decode(text, found.start())
        except json.JSONDecodeError as error:
            read += error.pos - found.start()
            at = found.start() + 1
        except (ValueError, RecursionError):
            read += len(text) - found.start()
            at = found.start() + 1
        else:
            yield value


def depth_of(value: Any) -> int:
    """How deep a value nests: 0 for what holds nothing; counted level by level, at most up to `MAX_DEPTH` + 1."""
    depth, level = 0, [value]
    while depth <= MAX_DEPTH:
        level = [inner for item in level for inner in _children(item)]
        if not level:
            break
        depth += 1
    return depth


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _reason(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]


def _number(written: str) -> Fraction:
    mantissa, _, exponent = written.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise NoValue(f"the number {written[:20]}… is too long")
    return Fraction(written)


def _no_constant(written: str) -> Any:
    raise NoValue(f"{written} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise NoValue("a key stands twice")
    return made


class _Decoder(json.JSONDecoder):
    """Also refuses depth: Python's own limit depends on the stack of whoever calls."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        value, end = super().raw_decode(s, idx)
        if depth_of(value) > MAX_DEPTH:
            raise NoValue("nested too deeply")
        return value, end


_DECODER = _Decoder(
    parse_float=_number, parse_int=_number, parse_constant=_no_constant, object_pairs_hook=_object
)  # fmt: skip
