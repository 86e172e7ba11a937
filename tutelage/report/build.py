"""Builds the page: evidence in, one self-contained HTML file out. Prints what `prove` found and computes nothing.

All text from models and data is hostile: it is autoescaped, its invisible characters are shown, and the page's
Content-Security-Policy lets nothing run and nothing load.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tutelage.errors import DataError, StorageError
from tutelage.report import plots, price_plots, words
from tutelage.report.shape import check

SHOWN_DISAGREEMENTS = 40
SHOWN_POINTS = 200


def build_report(evidence: Mapping[str, Any]) -> str:
    """The complete HTML page of one run. Raises `DataError` when the evidence is not in this version's shape."""
    check(evidence)
    systems = evidence["systems"]
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            evidence,
            claim=evidence["claims"][0],
            systems=systems,
            figures=_figures(evidence),
            shown=evidence["disagreements"][:SHOWN_DISAGREEMENTS],
            points_shown=evidence["training"]["curve"][:SHOWN_POINTS],
            unpriced=[system for system in systems if not price_plots.has_price(system)],
            embedded=embedded(evidence),
            absent=words.absent,
            percent_range=words.percent_range,
            points_range=words.points_range,
            verdicts=words.VERDICTS,
        )
    )


def write_report(evidence_path: Path, out: Path) -> None:
    """Read `evidence_path` (JSON) and write the page to `out`, whole or not at all.

    Raises `DataError` when the file is not evidence, `StorageError` when it cannot be read or the page not written.
    """
    try:
        evidence = json.loads(evidence_path.read_bytes())
    except OSError as error:
        raise StorageError(f"{evidence_path}: {error}", fix="run the `prove` stage, which writes it") from error
    except ValueError as error:
        raise DataError(f"{evidence_path}: not JSON: {error}", fix="run the `prove` stage again") from error
    page = build_report(evidence)
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise StorageError(f"{out}: {error}", fix="free some space, or choose a folder you may write to") from error


def web_link(address: str) -> str:
    """`address` when it is a plain https link with a host and no user information, else an empty string."""
    if not re.fullmatch(r"https://[!-~]+", address) or re.search(r"[\"'<>\\^`{|}]", address):
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address if parts.hostname and "@" not in parts.netloc else ""


def hostile_safe(package: str, folder: str) -> Environment:
    """Templates of a package in which every text is escaped, its invisible characters shown, and a null or a name that is not
    there refused."""
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def environment() -> Environment:
    """The report's templates and their filters."""
    environment = hostile_safe("tutelage.report", "")
    environment.filters |= {
        "accepted": words.accepted,
        "artefact": words.artefact,
        "break_even": words.break_even,
        "cpu_seconds": words.cpu_seconds,
        "count": words.count,
        "duration": words.duration,
        "is_alike": words.is_alike,
        "energy": words.energy,
        "gap": words.gap,
        "itself": words.itself,
        "lacking": words.lacking,
        "level": words.level,
        "number": words.number,
        "p_value": words.p_value,
        "percent": words.percent,
        "plain_points": words.plain_points,
        "points": words.points,
        "role": words.role,
        "sentence": words.sentence,
        "standing": words.standing,
        "times": words.times,
        "usd": words.usd,
        "web_link": web_link,
    }
    return environment


def _shown(value: Any) -> Any:
    """What every `{{ … }}` passes through before it is escaped: hidden characters shown, null refused."""
    if value is None:
        raise DataError("a null reached the page where a value is needed", fix="report this as a bug in the template")
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _figures(evidence: Mapping[str, Any]) -> dict[str, Markup]:
    """The charts that have something to draw, by name. Their text is escaped in `svg`, hence `Markup`."""
    systems, training = evidence["systems"], evidence["training"]
    figures = {
        "accuracy": plots.accuracy_chart(systems),
        "margin": plots.margin_chart(evidence["claims"][0]),
    }
    if training["curve"]:
        figures["training"] = plots.training_chart(training)
    pair = [system for system in systems if system["role"] in ("teacher", "student")]
    if any(plots.has_mean(bin_) for system in pair for bin_ in system["reliability"]):
        figures["reliability"] = plots.reliability_chart(systems)
    if any(price_plots.has_price(system) for system in systems):
        figures["cost"] = price_plots.price_chart(systems)
    return {name: Markup(picture) for name, picture in figures.items()}


def embedded(evidence: Mapping[str, Any]) -> Markup:
    """The evidence as ASCII JSON that cannot end a script element: `<`, `>`, `&` and all non-ASCII are escaped."""
    try:
        text = json.dumps(evidence, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except ValueError as error:
        raise DataError(f"evidence is not JSON: {error}", fix="run the `prove` stage again") from error
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
