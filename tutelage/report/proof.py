"""The page of a proof in an open task: evidence in, one self-contained HTML file out. Computes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tutelage.errors import DataError, StorageError
from tutelage.prove.paying import UNITS, Unit
from tutelage.report import build, claims, plots, price_plots, words

MEANINGS = {
    "gold": "Both are scored against the gold of held-out items; the difference is student minus teacher.",
    "teacher": "The student's agreement with the teacher, less the teacher's agreement with itself when asked again.",
    "judge": "The share of items on which a judge prefers the student's answer, less one half.",
    "teacher-text": "The log-probability of what the teacher answers, by the student less by the teacher itself.",
}
_NEEDED = ("run", "claims", "systems", "controls", "missing_controls", "cost", "provenance", "terms", "disagreements",
           "lengths", "energy")  # fmt: skip


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
            unpriced=_unpriced(evidence),
            embedded=build.embedded(evidence),
            found=found,
            artefact=artefact,
            meanings=MEANINGS,
            named_parts=sorted({name for system in evidence["systems"] for name in system["parts"]}),
            verdicts=words.VERDICTS,
            percent_range=words.percent_range,
            points_range=words.points_range,
            claims_in=claims,
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
        found["scores"] = plots.accuracy_chart(scored, quality=evidence["run"]["metric"])
    unit = _unit(evidence)
    if unit and any(price_plots.has_price(system, unit) for system in scored):
        found["cost"] = price_plots.price_chart(scored, unit=unit, quality=evidence["run"]["metric"])
    if any(row["characters"] for row in evidence["lengths"]):
        found["lengths"] = price_plots.lengths_chart(evidence["lengths"])
    return {name: Markup(picture) for name, picture in found.items()}


def _unit(evidence: Mapping[str, Any]) -> Unit | None:
    return next((unit for unit in UNITS if unit.key == evidence["cost"]["price"]), None)


def _unpriced(evidence: Mapping[str, Any]) -> list[str]:
    """The roles that cannot stand in the picture of price and quality."""
    unit = _unit(evidence)
    return [
        system["role"]
        for system in evidence["systems"]
        if unit and (system["score"] is None or not price_plots.has_price(system, unit))
    ]


def found(claim: Mapping[str, Any]) -> str:
    """A claim's figures in one sentence; without an interval what there is of them."""
    both = (
        "nothing was read"
        if claim["student"] is None
        else f"{claims.value(claim, claim['student'])} (student) vs {claims.value(claim, claim['teacher'])}"
    )
    said = f"{claim['metric']} {both} on {words.count(claim['n'])} items"
    if claim["ci_low"] is None:
        return said
    limits = f"{words.level(claim['level'])} interval {claims.between(claim)}"
    return f"{said}; difference {claims.apart(claim, claim['difference'])} {claims.unit(claim)}, {limits}"


def artefact(checkpoint: Mapping[str, Any], level: float) -> str:
    """What is served held against the checkpoint, in one sentence a figure."""
    if checkpoint["answers_differ"] is None:
        said = [f"{_drawn_at(checkpoint['temperature'])}, so that other words say nothing of the weights"]
    else:
        said = [
            f"{words.count(checkpoint['answers_differ'])} of {words.count(checkpoint['n'])} answers are other words (at most "
            f"{words.percent(checkpoint['differ_high'])})"
        ]
    if checkpoint["agreement"] is not None:
        between = words.percent_range(checkpoint["agreement_low"], checkpoint["agreement_high"])
        said.append(f"as the task reads them they agree on {words.percent(checkpoint['agreement'])} ({between})")
    if checkpoint["difference"] is not None:
        between = words.points_range(checkpoint["difference_low"], checkpoint["difference_high"])
        said.append(
            f"student minus checkpoint {words.points(checkpoint['difference'])} points, {words.level(level)} interval "
            f"{between} (n {words.count(checkpoint['difference_n'])}, {checkpoint['method']})"
        )
    if checkpoint["prompts_differ"]:
        said.append(
            f"{words.count(checkpoint['prompts_differ'])} prompts have another number of tokens: tokenizer or template differ"
        )
    return "; ".join(said)


def _drawn_at(temperature: float | None) -> str:
    return f"answers were drawn at {'the temperature of the endpoint' if temperature is None else f'temperature {temperature:g}'}"


def _with_accuracy(system: Mapping[str, Any]) -> dict[str, Any]:
    return {**system, "accuracy": system["score"]}
