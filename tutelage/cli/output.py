"""What reading commands print with --json: one object, with a schema version."""

import json
from typing import Any


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps({"schema_version": 1, **value}, default=_plain, ensure_ascii=False, indent=1))


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return value._asdict()
    if hasattr(value, "to_json"):
        return value.to_json()
    return str(value)
