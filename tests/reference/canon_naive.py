"""Canonical JSON by the standard library alone: the slow twin of `tutelage.canon.canonical`."""

import json
from typing import Any


def canonical(value: Any) -> bytes:
    """Raises `ValueError` for what a record may not hold."""
    check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def check(value: Any) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError is a ValueError
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        if not -(2**53) < value < 2**53:
            raise ValueError(value)
    elif isinstance(value, list | tuple):
        for item in value:
            check(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise ValueError(key)
            check(item)
    else:
        raise ValueError(type(value))
