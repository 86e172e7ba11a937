"""What a proof found, as far as the viewer shows it. Runs of earlier versions are shown too: only what is printed here is
asked of `evidence.json`, while the reports ask for all that this version prints."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tutelage.errors import DataError
from tutelage.report import claims, plots, proof, words
from tutelage.view.runs import EVIDENCE, Run, read_json

_ABOUT = {
    "gold": "against the gold",
    "teacher": "in agreement with the teacher",
    "judge": "by a judge",
    "teacher-text": "on the teacher's text",
}


class Claim(NamedTuple):
    """One claim, in words and as limits; `about` says what was compared. None where a judge may not speak."""

    about: str
    verdict: str
    sentence: str
    why: str
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    margin: float
    short: str = ""  # the difference alone
    limits: str = ""  # its interval, and the margin


class System(NamedTuple):
    """A row of the systems table; proportions are from 0 to 1, None where nothing was measured."""

    role: str
    label: str
    n: int
    score: float | None
    ci_low: float | None
    ci_high: float | None
    agreement: float | None
    cpu_s_per_query: float | None


class Judge(NamedTuple):
    """A judge by name, whether it may speak, and in words what speaks against it."""

    name: str
    is_usable: bool
    reasons: str


class Evidence(NamedTuple):
    """The claims, every system, what was spent, controls that are missing, and the picture of training (SVG; empty without)."""

    claims: tuple[Claim, ...]
    metric: str
    gap: str
    spent_usd: float
    systems: tuple[System, ...]
    judges: tuple[Judge, ...]
    missing: tuple[str, ...]
    chart: str

    @property
    def verdict(self) -> str:
        """Of every claim, in their order."""
        return ", ".join(claim.verdict for claim in self.claims)


def evidence_of(run: Run) -> Evidence | None:
    """None before the proof, and for folders without one. Raises `DataError` when it has not what is shown here."""
    found = read_json(run.folder / EVIDENCE) if run.kind in ("run", "prove") else None
    if found is None:
        return None
    try:
        return _of_proof(found) if found.get("kind") == "proof" else _of_run(found)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{run.folder / EVIDENCE} has not what is shown here: {error!r:.200}",
            fix="run the `prove` stage again; it writes evidence.json in this version's shape",
        ) from error


def _of_run(found: Mapping[str, Any]) -> Evidence:
    claim, training = found["claims"][0], found["training"]
    return Evidence(
        (_claim(claim, _sentence(claim), ""),),
        "accuracy",
        words.gap(claim),
        float(found["cost"]["spent_usd"]),
        tuple(_system(row, "accuracy") for row in found["systems"]),
        (),
        tuple(map(str, claim.get("missing_controls", ()))),
        plots.training_chart(training) if training["curve"] else "",
    )


def _of_proof(found: Mapping[str, Any]) -> Evidence:
    """Of an open task: several claims, scores that may be missing, judges."""
    rows, gap = found["claims"], found["gap"]
    if not rows:
        raise ValueError("no claim")
    recovered = None if gap is None else gap["recovered"]
    return Evidence(
        tuple(_claim(claim, proof.found(claim), _about(claim)) for claim in rows),
        str(found["run"]["metric"]),
        f"{words.DASH} not given" if recovered is None else words.percent(recovered),
        float(found["cost"]["spent_usd"]),
        tuple(_system(row, "score") for row in found["systems"]),
        tuple(_judge(row) for row in found["judges"]),
        tuple(map(str, found["missing_controls"])),
        "",
    )


def _about(row: Mapping[str, Any]) -> str:
    named = f" ({row['judge']})" if row["judge"] else ""
    if claims.unit(row) != claims.POINTS:
        named += f", {claims.unit(row)}"
    return _ABOUT.get(row["kind"], str(row["kind"])) + named


def _claim(row: Mapping[str, Any], sentence: str, about: str) -> Claim:
    difference, low, high = (_optional(row[name]) for name in ("difference", "ci_low", "ci_high"))
    margin = f"margin {claims.margin(row)}"
    short = words.DASH if difference is None else claims.apart(row, difference)
    limits = margin if low is None or high is None else f"{claims.between(row)}, {margin}"
    sentence, why = f"{sentence}; {margin}{words.NBSP}{claims.unit(row)}", str(row.get("why", ""))
    return Claim(
        about, str(row["verdict"]), sentence, why, difference, low, high, float(row["margin"]), short, limits
    )  # fmt: skip


def _system(row: Mapping[str, Any], score: str) -> System:
    numbers = (_optional(row[name]) for name in (score, "ci_low", "ci_high", "agreement", "cpu_s_per_query"))
    return System(str(row["role"]), str(row["label"]), int(row["n"]), *numbers)


def _judge(row: Mapping[str, Any]) -> Judge:
    return Judge(str(row["judge"]), bool(row["gate"]["is_usable"]), "; ".join(map(str, row["reasons"])))


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _sentence(claim: Mapping[str, Any]) -> str:
    return (
        f"student {words.percent(claim['student'])} vs teacher {words.percent(claim['teacher'])} on "
        f"{words.count(claim['n'])} held-out questions; difference {words.points(claim['difference'])}{words.NBSP}points, "
        f"{words.level(claim['level'])} interval {words.points_range(claim['ci_low'], claim['ci_high'])}"
    )
