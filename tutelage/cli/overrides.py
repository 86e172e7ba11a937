"""`--set table.key=value`: the value is read as TOML, and as plain text when it is none."""

import tomllib
from collections.abc import Sequence
from typing import Any

from tutelage.errors import ConfigError


def parse_overrides(given: Sequence[str]) -> dict[str, Any]:
    """Dotted key -> value. Raises `ConfigError` for an entry without `=`."""
    found: dict[str, Any] = {}
    for entry in given:
        key, sign, text = entry.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"--set {entry!r} is no KEY=VALUE", fix="write for instance --set train.epochs=3")
        try:
            found[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = text
    return found
