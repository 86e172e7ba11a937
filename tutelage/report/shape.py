"""The shape of `evidence.json` (schema version 2), checked once at the door so that nothing is printed half.

Floats are proportions 0..1 unless the name has a unit. `Maybe` marks what may be null. Unknown extra fields are let
through: they are in the page's embedded evidence, though nothing prints them.
"""

import math
from dataclasses import dataclass
from typing import Any

from tutelage.errors import DataError
from tutelage.report.words import VERDICTS

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Maybe:
    """A field that may be null."""

    kind: Any


@dataclass(frozen=True)
class MapOf:
    """A mapping from any name to one kind."""

    kind: Any


_BIN = {"low": float, "high": float, "n": int, "confidence": Maybe(float), "accuracy": Maybe(float)}

SHAPE: dict[str, Any] = {
    "schema_version": int,
    "run": dict.fromkeys(("name", "size", "created_at", "purpose", "task", "teacher", "student"), str)
    | {"labels": [str]},
    "claims": [
        dict.fromkeys(
            ("metric", "comparison", "gap_method", "verdict", "method", "power_assumption", "declared_at", "digest"),
            str,
        )
        | dict.fromkeys(("teacher", "student", "before", "difference", "ci_low", "ci_high"), float)
        | dict.fromkeys(("level", "margin", "power", "mcnemar_p"), float)
        | dict.fromkeys(("gap_recovered", "gap_low", "gap_high"), Maybe(float))
        | {"n": int, "missing_controls": [str]}
    ],
    "systems": [
        dict.fromkeys(("role", "label", "interval_method", "recalibration"), str)
        | dict.fromkeys(("accuracy", "ci_low", "ci_high"), float)
        | dict.fromkeys(("plain_accuracy", "agreement", "agreement_low", "agreement_high", "kl_nats"), Maybe(float))
        | dict.fromkeys(("difference", "difference_low", "difference_high", "cpu_s_per_query", "ece"), Maybe(float))
        | dict.fromkeys(("mcnemar_p", "temperature", "ece_recalibrated"), Maybe(float))
        | {"n": int, "reliability": [_BIN], "difference_method": Maybe(str)}
    ],
    "controls": [{"name": str, "words": str, "there": bool}],
    "missing_controls": [str],
    "ceiling": Maybe(
        dict.fromkeys(("agreement", "low", "high"), float) | {"n": int, "interval_method": str, "how": str}
    ),
    "checkpoint": Maybe({"n": int, "decisions_differ": int, "differ_high": float, "largest_nats": Maybe(float)}),
    "unseen": dict.fromkeys(("held_out", "trained_on", "overlap"), int),
    "training": {
        "curve": [
            {"step": int, "examples": int, "loss_nats": float}
            | dict.fromkeys(("validation_kl_nats", "validation_agreement"), Maybe(float))
        ],
        "loss_tokens": MapOf(int),
        "epochs": float,
    }
    | dict.fromkeys(("examples", "validation_examples", "steps", "chosen_step"), int)
    | dict.fromkeys(("student_layers", "teacher_layers", "student_parameters", "teacher_parameters"), int),
    "disagreements": [
        dict.fromkeys(("prompt_id", "text", "gold", "teacher", "student"), str)
        | dict.fromkeys(("teacher_probability", "student_probability"), float)
    ],
    "drops": [{"filter": str, "reason": str, "count": int, "of": str}],
    "cost": dict.fromkeys(("teacher_cpu_s_per_query", "student_cpu_s_per_query", "cpu_ratio"), Maybe(float))
    | dict.fromkeys(("teacher_tokens_per_query", "student_tokens_per_query", "teacher_usd_per_1000"), float)
    | dict.fromkeys(("collect_cpu_s", "train_cpu_s", "spent_usd", "estimated_usd"), float)
    | {"collect_questions": int, "break_even_queries": Maybe(int), "break_even_basis": str},
    "provenance": {
        "sources": [
            dict.fromkeys(("teacher", "licence", "role"), str)
            | {"examples": int, "loss_tokens": int, "share": Maybe(float)}
        ],
        "log_root": str,
        "entries": int,
        "tier": str,
        "upstream": str,
        "proves": [str],
        "does_not_prove": [str],
    },
    "terms": [
        dict.fromkeys(("of", "subject", "licence", "purpose", "verdict", "clause", "gist", "source", "checked_on"), str)
        | {"conditions": [str], "warnings": [str], "accepted_risks": [dict.fromkeys(("who", "reason", "scope"), str)]}
    ],
    "looks": {"held_out": int, "what_counts": str},
    "wall_s": MapOf(float),
    "versions": MapOf(str),
    "seeds": MapOf(int),
    "hardware": MapOf(str),
    "notes": [str],
}


def check(evidence: Any) -> None:
    """Hold `evidence` against the schema. Raises `DataError` with the path of the first field that is missing, null
    where it may not be, of another kind, not finite, a verdict no claim can have, or a list that may not be empty."""
    _check(evidence, SHAPE, "evidence")
    if evidence["schema_version"] != SCHEMA_VERSION:
        raise _wrong("evidence.schema_version", f"is {evidence['schema_version']}, this report reads {SCHEMA_VERSION}")
    for name in ("claims", "systems"):
        if not evidence[name]:
            raise _wrong(f"evidence.{name}", "is empty")
    for position, claim in enumerate(evidence["claims"]):
        if claim["verdict"] not in VERDICTS:
            raise _wrong(f"evidence.claims[{position}].verdict", f"is {claim['verdict']!r}, not one of {[*VERDICTS]}")


def _check(value: Any, kind: Any, where: str) -> None:
    if isinstance(kind, Maybe):
        if value is not None:
            _check(value, kind.kind, where)
    elif isinstance(kind, MapOf):
        for name, item in _mapping(value, where).items():
            _check(item, kind.kind, f"{where}.{name}")
    elif isinstance(kind, dict):
        for name, inner in kind.items():
            if name not in _mapping(value, where):
                raise _wrong(f"{where}.{name}", "is missing")
            _check(value[name], inner, f"{where}.{name}")
    elif isinstance(kind, list):
        if not isinstance(value, list | tuple):
            raise _wrong(where, f"is {value!r}, not a list")
        for position, item in enumerate(value):
            _check(item, kind[0], f"{where}[{position}]")
    else:
        _scalar(value, kind, where)


def _scalar(value: Any, kind: type, where: str) -> None:
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, f"is {value!r}, not {'a number' if kind is float else kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise _wrong(where, f"is {value!r}, not a finite number")


def _mapping(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, f"is {value!r}, not an object")
    return value


def _wrong(where: str, what: str) -> DataError:
    return DataError(
        f"{where} {what}", fix="run the `prove` stage again; it writes evidence.json in this version's shape"
    )
