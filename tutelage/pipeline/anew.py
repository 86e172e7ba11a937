"""Why a stage is done anew though it was done before: which setting, input or file is not what it was then."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.canon import digest_file
from tutelage.records import Statement

_TOLD = 3  # of what changed; the others are counted
_WIDTH = 60  # characters of a value


def why_anew(
    before: Statement, version: int, config: Mapping[str, Any], inputs: Mapping[str, str], folder: Path
) -> str:
    """In words, one line: what differs from `before`, the latest statement of that stage; where nothing does, which of its
    files in `folder` is not as it was written. `config` holds what a statement would: integers, strings, tables."""
    now, then = dict(_leaves("", config)), dict(_leaves("", before.config))
    told = [
        f"{name} is {_shown(now.get(name))}, was {_shown(then.get(name))}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name)
    ]
    told += [
        f"its input {name} is another"
        for name in sorted(inputs.keys() | before.inputs.keys())
        if inputs.get(name) != before.inputs.get(name)
    ]
    if version != before.stage_version:
        told.append(f"the stage is version {version}, was {before.stage_version}")
    told = told or _files_changed(before.outputs, folder)
    more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return "; ".join(told[:_TOLD]) + more


def _leaves(prefix: str, table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(f"{prefix}{name}.", value)
        else:
            found.append((prefix + name, value))
    return found


def _shown(value: Any) -> str:
    """Escaped, so that no text of a run file reaches a terminal as it is; numbers that are kept as text look like numbers."""
    text = json.dumps(value)
    text = text[1:-1] if isinstance(value, str) and value else text
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _files_changed(outputs: Mapping[str, str], folder: Path) -> list[str]:
    found = []
    for name, digest in sorted(outputs.items()):
        if not (folder / name).is_file():
            found.append(f"{name} is missing")
        elif digest_file(folder / name) != digest:
            found.append(f"{name} is not as it was written")
    return found
