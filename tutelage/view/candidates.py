"""What a comparison of teachers found: candidates in their order, and the choice. Prints `comparison.json`, makes no number."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tutelage.errors import DataError
from tutelage.view.runs import COMPARISON, Run, read_json


class Candidate(NamedTuple):
    """One teacher. Proportions are from 0 to 1; all but name, model and terms None for one that was not asked."""

    name: str
    model: str
    terms: str
    accuracy: float | None
    low: float | None
    high: float | None
    ranks: str | None
    usd_per_thousand: float | None
    median_s: float | None
    reveals: str | None


class Comparison(NamedTuple):
    """All of them; `ranking` and `choice` as the command says them."""

    candidates: tuple[Candidate, ...]
    items: int
    level: float
    margin: float
    recommended: str
    is_shown: bool
    ranking: str
    why: str


def comparison_of(run: Run) -> Comparison | None:
    """None before there is one. Raises `DataError` when it has not what is shown here."""
    found = read_json(run.folder / COMPARISON)
    if found is None:
        return None
    try:
        verdict = found["verdict"]
        return Comparison(
            tuple(map(_candidate, found["candidates"])),
            int(found["items"]),
            float(found["level"]),
            float(found["margin"]),
            str(verdict["recommended"]),
            bool(verdict["is_shown"]),
            _ranking(verdict, bool(found["pairs"])),
            str(verdict["why"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{run.folder / COMPARISON} has not what is shown here: {error!r:.200}",
            fix="run `tutelage compare-teachers` on the folder again; it asks nobody anew",
        ) from error


def _candidate(row: Mapping[str, Any]) -> Candidate:
    named = str(row["name"]), str(row["teacher"]), str(row["terms"])
    if "accuracy" not in row:
        return Candidate(*named, *[None] * 7)
    low, high = row["ranks"]
    revealed, median = int(row["candidates_revealed"]), row["median_ms"]
    return Candidate(
        *named,
        float(row["accuracy"]),
        float(row["low"]),
        float(row["high"]),
        f"{low}" if low == high else f"{low} to {high}",
        float(row["usd_per_thousand"]),
        None if median is None else float(median) / 1000,
        f"top-{revealed}" if revealed else "/".join(map(str, row["offers"])),
    )


def _ranking(verdict: Mapping[str, Any], has_pairs: bool) -> str:
    leaders = [str(name) for name in verdict["leaders"]]
    if not has_pairs:
        return "no ranking: one candidate was asked"
    if verdict["is_decided"]:
        return "decided, every pair of it"
    if len(leaders) == 1:
        return f"{leaders[0]} is first; not decided behind it ({int(verdict['open_pairs'])} pairs are open)"
    return f"not decided: the best may be {', '.join(leaders[:-1])} or {leaders[-1]}"
