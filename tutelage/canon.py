"""Canonical JSON and tagged digests: the documented contract under every name in the store and the ledger.

Canonical JSON is RFC 8785 restricted to what records may hold: no floats, integers within ±(2^53 − 1), ASCII keys.
Under that restriction RFC 8785 is exactly the standard library's sorted, compact dump in UTF-8, and orjson's.
"""

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

MAX_INTEGER = 2**53 - 1

LEAVES = frozenset({str, int, bool, type(None)})  # exact types of what a record holds that holds nothing itself
_STRICT = (
    orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
)  # fmt: skip


def canonical(value: Any) -> bytes:
    """Canonical UTF-8 JSON of a record (RFC 8785). Raises `ValueError` for floats, large integers, non-ASCII keys
    and strings that are not Unicode text, with the path to the offending value."""
    try:
        data = orjson.dumps(value, option=_STRICT)  # refuses large integers, lone surrogates and most other types
        if _is_plain(value):  # what orjson takes and records may not hold: floats, UUIDs, keys beyond ASCII
            return data
    except TypeError:
        pass  # wrong, or something that only the standard library writes: subclasses, very deep nesting
    try:
        _check(value, "$")
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("$: nested too deeply for a record") from None


def digest_bytes(data: bytes) -> str:
    """Tagged SHA-256 of raw bytes: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Tagged SHA-256 of a record's canonical JSON."""
    return digest_bytes(canonical(value))


def digest_file(path: Path) -> str:
    """Tagged SHA-256 of a file, read in blocks of 1 MiB."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return "sha256:" + hasher.hexdigest()


def decimals(value: Any) -> Any:
    """The same plain value with every float as its shortest decimal string: configurations as records keep them."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: decimals(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [decimals(item) for item in value]
    return value


def _is_plain(value: Any) -> bool:
    """Whether a value that orjson took holds nothing but what records may hold, by exact type.

    Log-probabilities are thousands of small objects, so the leaves of a list of objects are looked at all together.
    """
    kind = type(value)
    if kind is dict:
        if not "".join(value).isascii():
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return kind in LEAVES
    if LEAVES.issuperset(map(type, items)):
        return True
    if kind is not dict and len(items) > 4 and {dict}.issuperset(map(type, items)):
        leaves = chain.from_iterable(map(dict.values, items))
        if LEAVES.issuperset(map(type, leaves)):
            return "".join(chain.from_iterable(items)).isascii()
    for item in items:  # noqa: SIM110
        if type(item) not in LEAVES and not _is_plain(item):
            return False
    return True


def _check(value: Any, where: str) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(f"{where}: not Unicode text: {error}") from None
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"{where}: integer {value} is beyond 2^53 - 1; write it as a string")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise ValueError(f"{where}: key {key!r} is not an ASCII string")
            _check(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]")
    else:
        raise ValueError(f"{where}: {type(value).__name__} {value!r} cannot be in a record")
