"""What a proof found, as far as the viewer shows it. Runs of earlier versions are shown too: only what is printed here is
asked of `evidence.json`, while `report.shape` asks for all that this version's report prints."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tutelage.errors import DataError
from tutelage.report import plots, words
from tutelage.view.runs import EVIDENCE, Run, read_json


class System(NamedTuple):
    """A row of the systems table; proportions are from 0 to 1, None where nothing was measured."""

    role: str
    label: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    agreement: float | None
    cpu_s_per_query: float | None


class Evidence(NamedTuple):
    """The first claim, every system, what was spent, and the picture of training (SVG; empty without any steps)."""

    verdict: str
    sentence: str
    gap: str
    difference: float
    ci_low: float
    ci_high: float
    margin: float
    spent_usd: float
    systems: tuple[System, ...]
    chart: str


def evidence_of(run: Run) -> Evidence | None:
    """None before the proof, and for other kinds of folders, whose evidence has another shape. Raises `DataError` when it has
    not what is shown here."""
    found = read_json(run.folder / EVIDENCE) if run.kind == "run" else None
    if found is None:
        return None
    try:
        claim, training = found["claims"][0], found["training"]
        return Evidence(
            str(claim["verdict"]),
            _sentence(claim),
            words.gap(claim),
            float(claim["difference"]),
            float(claim["ci_low"]),
            float(claim["ci_high"]),
            float(claim["margin"]),
            float(found["cost"]["spent_usd"]),
            tuple(_system(row) for row in found["systems"]),
            plots.training_chart(training) if training["curve"] else "",
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{run.folder / EVIDENCE} has not what is shown here: {error!r:.200}",
            fix="run the `prove` stage again; it writes evidence.json in this version's shape",
        ) from error


def _system(row: Mapping[str, Any]) -> System:
    optional = (None if row[name] is None else float(row[name]) for name in ("agreement", "cpu_s_per_query"))
    numbers = (float(row[name]) for name in ("accuracy", "ci_low", "ci_high"))
    return System(str(row["role"]), str(row["label"]), int(row["n"]), *numbers, *optional)


def _sentence(claim: Mapping[str, Any]) -> str:
    return (
        f"Student {words.percent(claim['student'])} vs teacher {words.percent(claim['teacher'])} on "
        f"{words.count(claim['n'])} held-out questions; difference {words.points(claim['difference'])}{words.NBSP}points, "
        f"{words.level(claim['level'])} interval {words.points_range(claim['ci_low'], claim['ci_high'])}; margin "
        f"{words.plain_points(claim['margin'])}{words.NBSP}points"
    )
