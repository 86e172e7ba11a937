"""The page of a proof in an open task: evidence in, one self-contained HTML file out. Computes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tutelage.errors import DataError, StorageError
from tutelage.report import build, plots, words

MEANINGS = {
    "gold": "Both are scored against the gold of held-out items; the difference is student minus teacher.",
    "teacher": "The student's agreement with the teacher, less the teacher's agreement with itself when asked again.",
    "judge": "The share of items on which a judge prefers the student's answer, less one half.",
}
_NEEDED = ("run", "claims", "systems", "controls", "missing_controls", "cost", "provenance", "terms", "disagreements")


def build_proof_page(evidence: Mapping[str, Any]) -> str:
    """The complete page. Raises `DataError` when the evidence is not that of a proof."""
    if evidence.get("kind") != "proof" or (lacking := [name for name in _NEEDED if name not in evidence]):
        what = (
            f"lacks {', '.join(lacking)}" if evidence.get("kind") == "proof" else f"is of kind {evidence.get('kind')!r}"
        )
        raise DataError(f"evidence.json {what}", fix="run `tutelage prove` again; it writes this version's shape")
    return (
        build.environment()
        .get_template("proof.html.j2")
        .render(
            evidence,
            claim=evidence["claims"][0],
            figures=_figures(evidence),
            embedded=build.embedded(evidence),
            found=found,
            meanings=MEANINGS,
            named_parts=sorted({name for system in evidence["systems"] for name in system["parts"]}),
            verdicts=words.VERDICTS,
            percent_range=words.percent_range,
            points_range=words.points_range,
        )
    )


def write_proof_page(evidence: Mapping[str, Any], out: Path) -> None:
    """Writes the page to `out`, whole or not at all. Raises as `build_proof_page`, and `StorageError`."""
    page = build_proof_page(evidence)
    part = out.with_name(out.name + ".part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise StorageError(f"{out}: {error}", fix="free some space, or choose a folder you may write to") from error


def _figures(evidence: Mapping[str, Any]) -> dict[str, Markup]:
    scored = [_with_accuracy(system) for system in evidence["systems"] if system["score"] is not None]
    found = {
        f"claim-{at}": plots.margin_chart(claim, f"margin-{at}")
        for at, claim in enumerate(evidence["claims"])
        if claim["ci_low"] is not None
    }
    if scored:
        found["scores"] = plots.accuracy_chart(scored)
    if any(plots.has_price(system) for system in scored):
        found["cost"] = plots.cost_chart(scored)
    return {name: Markup(picture) for name, picture in found.items()}


def found(claim: Mapping[str, Any]) -> str:
    """A claim's figures in one sentence; without an interval what there is of them."""
    both = (
        "nothing was read"
        if claim["student"] is None
        else f"{words.percent(claim['student'])} (student) vs {words.percent(claim['teacher'])}"
    )
    said = f"{claim['metric']} {both} on {words.count(claim['n'])} items"
    if claim["ci_low"] is None:
        return said
    limits = f"{words.level(claim['level'])} interval {words.points_range(claim['ci_low'], claim['ci_high'])}"
    return f"{said}; difference {words.points(claim['difference'])} points, {limits}"


def _with_accuracy(system: Mapping[str, Any]) -> dict[str, Any]:
    return {**system, "accuracy": system["score"]}
