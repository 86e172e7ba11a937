"""Two runs side by side: settings that differ, what was claimed and found, every system. Prints numbers, makes none."""

import json
from typing import Any, NamedTuple

from tutelage.errors import TutelageError
from tutelage.view.evidence import Evidence, evidence_of
from tutelage.view.runs import Run, outcome_of, read_json, stages_of

_ABSENT = "—"


class Setting(NamedTuple):
    """A key whose values differ; a dash where one run has no such key."""

    key: str
    left: str
    right: str


class Comparison(NamedTuple):
    """`outcomes` as in the list of runs. `same_items`: whether both proofs asked the same held-out prompts; None when
    one of them does not say, or has no proof."""

    settings: list[Setting]
    same: int
    evidence: tuple[Evidence | None, Evidence | None]
    outcomes: tuple[str, str]
    roles: list[str]
    same_items: bool | None
    problems: list[TutelageError]


def compare(left: Run, right: Run) -> Comparison:
    """Raises `DataError` or `StorageError` when settings or log cannot be read; evidence that cannot be is told in `problems`."""
    a, b = (flat(read_json(run.folder / "config.json") or {}) for run in (left, right))
    keys = list(dict.fromkeys([*a, *b]))
    settings = [Setting(key, a.get(key, _ABSENT), b.get(key, _ABSENT)) for key in keys if a.get(key) != b.get(key)]
    problems: list[TutelageError] = []
    evidence = _evidence(left, problems), _evidence(right, problems)
    roles = list(dict.fromkeys(system.role for found in evidence if found for system in found.systems))
    same = None if None in evidence else _same_items(left, right)
    outcomes = tuple(outcome_of(stages_of(run.statements())) for run in (left, right))
    return Comparison(settings, len(keys) - len(settings), evidence, (outcomes[0], outcomes[1]), roles, same, problems)


def _evidence(run: Run, problems: list[TutelageError]) -> Evidence | None:
    try:
        return evidence_of(run)
    except TutelageError as error:
        problems.append(error)
        return None


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Every leaf of a configuration by its dotted key; lists are one leaf."""
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, list):
        words = (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, sort_keys=True) for one in value)
        return {prefix: ", ".join(words) or "(none)"}
    text = "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return {prefix: text or "(empty)"}


def _same_items(left: Run, right: Run) -> bool | None:
    digests = []
    for run in (left, right):
        done = {entry.stage: entry.outputs for entry in run.statements() if entry.kind == "statement"}
        items = done.get("items", {}).get("data/items.jsonl")
        digests.append(items or done.get("data", {}).get("data/gold.json"))
    return None if None in digests else digests[0] == digests[1]
