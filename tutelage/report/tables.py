"""Plain-text and Markdown tables of a result: what `make demo` prints last and what the README shows."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.report import words
from tutelage.report.shape import check

WIDTH = 100

_HEAD = ("system", "n", "accuracy [interval]", "agreement", "KL nats", "minus teacher, points", "CPU-s")


def result_table(evidence: Mapping[str, Any]) -> str:
    """The result for a terminal, at most 100 columns, without control characters.

    Raises `DataError` when the evidence is not in the shape this version prints.
    """
    check(evidence)
    run, cost = evidence["run"], evidence["cost"]
    lines = [*_wrap("learnt", run["task"]), *_wrap("student", run["student"]), *_wrap("teacher", run["teacher"]), ""]
    lines += _aligned([_HEAD, *(_row(system) for system in evidence["systems"])])
    lines += _methods(evidence["systems"])
    for claim in evidence["claims"]:
        lines += ["", f"{claim['verdict']}: {claim['metric']}, {claim['comparison']}"]
        if claim["missing_controls"]:
            lines += _wrap("without", words.lacking(claim))
        lines += [words.sentence(claim), f"gap recovered {words.gap(claim)}"]
    lines += _agreement(evidence)
    looks = evidence["looks"]
    lines += [
        "",
        *_wrap("price", words.price(cost)),
        *_wrap("pays", words.break_even(cost)),
        *_wrap("looks", f"held-out set looked at {words.times(looks['held_out'])} ({looks['what_counts']})"),
    ]
    for term in evidence["terms"]:
        what = ", ".join(text for text in (term["licence"], term["clause"]) if text) or "no text is known"
        lines += _wrap("terms", f"{words.standing(term)}: {term['of']}: {term['subject']} ({what})")
        lines += [piece for risk in term["accepted_risks"] for piece in _wrap("risk", words.accepted(risk))]
        lines += [piece for warning in term["warnings"] for piece in _wrap("warning", warning)]
    return "\n".join(piece for text in lines for piece in _fit(text)) + "\n"


def markdown_table(evidence: Mapping[str, Any]) -> str:
    """The systems table as Markdown, then the verdict in one sentence per claim; every text is escaped.

    Raises `DataError` when the evidence is not in the shape this version prints.
    """
    check(evidence)
    rows = [_row(system) for system in evidence["systems"]]
    lines = ["| " + " | ".join(_HEAD) + " |", "|---|" + "---:|" * (len(_HEAD) - 1)]
    lines += ["| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in rows]
    for claim in evidence["claims"]:
        said = _markdown(f"{words.sentence(claim)}; gap recovered {words.gap(claim)}")
        without = f" (without: {_markdown(words.lacking(claim))})" if claim["missing_controls"] else ""
        lines += ["", f"**{claim['verdict']}**{without}: {said}."]
    lines += ["", _markdown(f"{words.price(evidence['cost'])}; {words.break_even(evidence['cost'])}.")]
    return "\n".join(lines).replace(words.NBSP, " ") + "\n"


def _row(system: Mapping[str, Any]) -> tuple[str, ...]:
    """One system's cells; a missing number is a dash with its reason."""
    accuracy = f"{words.percent(system['accuracy'])} [{words.percent_range(system['ci_low'], system['ci_high'])}]"
    if system["difference"] is None:
        difference = f"{words.DASH} {words.absent(system, 'difference')}"
    else:
        difference = words.points(system["difference"])
        if system["difference_low"] is not None and system["difference_high"] is not None:
            difference += f" [{words.points_range(system['difference_low'], system['difference_high'])}]"
    return (
        words.role(words.shorten(system["role"], 16)),
        words.count(system["n"]),
        accuracy,
        words.DASH if system["agreement"] is None else words.percent(system["agreement"]),
        words.DASH if system["kl_nats"] is None else words.number(system["kl_nats"]),
        difference,
        words.DASH if system["cpu_s_per_query"] is None else words.number(system["cpu_s_per_query"], 2),
    )


def _agreement(evidence: Mapping[str, Any]) -> list[str]:
    """The student's agreement with the teacher beside the teacher's with itself, and the artefact check."""
    agreed = [
        words.percent(one["agreement"]) for one in evidence["systems"] if one["role"] == "student" and one["agreement"]
    ]
    student = agreed[0] if agreed else f"{words.DASH} not measured"
    return [
        *_wrap("agrees", f"student with teacher {student}; teacher with itself {words.itself(evidence['ceiling'])}"),
        *_wrap("served", f"against the training checkpoint: {words.artefact(evidence['checkpoint'])}"),
    ]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    between = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    lines = [
        between.join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _methods(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(words.shorten(system["interval_method"], 60) for system in systems)
    return [f"intervals: {'; '.join(names)}.  {words.DASH}: the reference itself, no model answer, or not measured."]


def _wrap(name: str, text: str) -> list[str]:
    line = " ".join(words.visible(text).replace(words.NBSP, " ").split())
    return textwrap.wrap(line, WIDTH, initial_indent=f"{name:<9}", subsequent_indent=" " * 9) or [name]


def _fit(line: str) -> list[str]:
    """`line` in pieces of at most `WIDTH` columns, every character visible. Blank lines stay."""
    shown = words.visible(line.replace("\n", " ")).replace(words.NBSP, " ")
    return [shown] if len(shown) <= WIDTH else textwrap.wrap(shown, WIDTH, subsequent_indent="  ")


def _markdown(text: str) -> str:
    line = " ".join(words.visible(text).split(None))
    escaped = re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
