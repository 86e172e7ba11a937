"""Pages from what was read: templates, with every text escaped and its invisible characters shown. No file is read here
but by what is handed in."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from tutelage.errors import TutelageError
from tutelage.records import NUSD_PER_USD
from tutelage.report import words
from tutelage.report.build import hostile_safe
from tutelage.view.compare import Comparison
from tutelage.view.diff import Diff
from tutelage.view.example import SHOWN_CANDIDATES, SHOWN_POSITIONS, Example
from tutelage.view.facets import FACETS
from tutelage.view.index import Known, Place
from tutelage.view.links import Links
from tutelage.view.query import PAIRS, Filters, Judgement, Listed, PairRow
from tutelage.view.runs import Run, Stage, Summary
from tutelage.view.scores import WHOLE, in_order
from tutelage.view.talks import Talk
from tutelage.view.texts import called

WORDS_OF_FACETS = {
    "stage": "Stage", "who": "Who answered", "role": "Role", "purpose": "Purpose", "finish": "Finish reason",
    "fate": "Fate", "correct": "Right or wrong", "differs": "Student and teacher", "model": "Model", "origin": "Origin",
}  # fmt: skip
_SHOWN = 240  # characters of a text in a list
_SHOWN_FACTS = 320


def stylesheet() -> str:
    """The report's own colours and tables, and what only the viewer has."""
    report = files("tutelage.report").joinpath("report.css").read_text("utf-8")
    return report + files("tutelage.view").joinpath("templates/view.css").read_text("utf-8")


def script() -> str:
    return files("tutelage.view").joinpath("templates/view.js").read_text("utf-8")


def runs_page(links: Links, summaries: Sequence[Summary]) -> str:
    return _render("runs.html.j2", links, summaries=summaries)


def run_page(links: Links, run: Run, told: Mapping[str, Any]) -> str:
    """`told` is what `looking.run_facts` gives."""
    drawn = told["evidence"] or told["training"]
    chart = Markup(drawn.chart if drawn else "")  # its text is escaped in `report.svg`
    return _render("run.html.j2", links, run=run, chart=chart, **told)


def examples_page(links: Links, run: Run, known: Known, filters: Filters, listed: Listed, limit: str = "") -> str:
    """`limit` says what of the list a bundle leaves out."""
    chosen = dict(filters.values)
    return _render(
        "examples.html.j2", links, run=run, known=known, filters=filters, listed=listed, chosen=chosen, facets=FACETS,
        names=WORDS_OF_FACETS, limit=limit,
    )  # fmt: skip


def example_page(links: Links, run: Run, example: Example | Talk, beside: tuple[Place | None, Place | None]) -> str:
    if isinstance(example, Talk):
        return _render("talk.html.j2", links, run=run, talk=example, before=beside[0], after=beside[1])
    shown = {"positions": SHOWN_POSITIONS, "candidates": SHOWN_CANDIDATES}
    return _render("example.html.j2", links, run=run, example=example, before=beside[0], after=beside[1], shown=shown)


def pairs_page(
    links: Links,
    run: Run,
    which: str,
    page: int,
    found: tuple[list[PairRow], int, int, dict[str, int]],
    limit: str = "",
) -> str:
    rows, total, pages, counts = found
    systems = in_order(one.who for row in rows for one in row.outcomes)
    return _render(
        "pairs.html.j2", links, run=run, which=which, page=page, rows=rows, total=total, pages=pages, counts=counts,
        kinds=PAIRS, limit=limit, systems=systems,
    )  # fmt: skip


def pair_page(
    links: Links, run: Run, row: PairRow, examples: Mapping[str, Example], diff: Diff | None, last: int,
    judged: Sequence[Judgement],
) -> str:  # fmt: skip
    """Of what `Looking.pair` gives."""
    answered = {who: examples[who] for who in in_order(examples)}
    return _render("pair.html.j2", links, run=run, row=row, examples=answered, diff=diff, last=last, judged=judged)


def compare_page(links: Links, left: Run, right: Run, found: Comparison) -> str:
    return _render("compare.html.j2", links, left=left, right=right, found=found)


def error_page(links: Links, title: str, error: TutelageError) -> str:
    return _render("error.html.j2", links, heading=title, error=error)


def warm_up() -> None:
    """Compiles every template, so that nobody waits for it."""
    for name in _environment().list_templates(extensions=["j2"]):
        _environment().get_template(name)


def _render(template: str, links: Links, **values: Any) -> str:
    ranges = {"percent_range": words.percent_range, "points_range": words.points_range}
    return _environment().get_template(template).render(values, links=links, **ranges)


@cache
def _environment() -> Environment:
    environment = hostile_safe("tutelage.view", "templates")
    environment.filters |= {
        "brief": brief,
        "called": called,
        "count": words.count,
        "duration": words.duration,
        "facts": facts_line,
        "money": money,
        "number": words.number,
        "percent": words.percent,
        "plain_points": words.plain_points,
        "points": words.points,
        "ppm": ppm,
        "role": words.role,
        "short": short,
        "usd": words.usd,
    }
    return environment


def brief(text: str) -> str:
    """One line of a text for a list."""
    return words.shorten(text, _SHOWN)


def money(nusd: int) -> str:
    """Nano-USD as money."""
    return words.usd(nusd / NUSD_PER_USD)


def ppm(value: int) -> str:
    """Parts per million as a percentage."""
    return words.percent(value / WHOLE)


def short(digest: str) -> str:
    """A digest's first twelve hexadecimal digits; anything else as it is."""
    name, colon, rest = digest.partition(":")
    return f"{rest[:12]}…" if colon and name == "sha256" and len(rest) == 64 else digest


def facts_line(stage: Stage) -> str:
    """A stage's facts on one line: digests shortened, tables only counted; the log has them whole."""
    parts = (f"{name.replace('_', ' ')} {_fact(value)}" for name, value in stage.facts.items())
    return words.shorten("; ".join(parts), _SHOWN_FACTS)


def _fact(value: Any) -> str:
    if isinstance(value, str):
        return short(value)
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        return f"({len(value)} rows)"
    if isinstance(value, list):
        return ", ".join(map(_fact, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items()) or "none"
    return str(value)
