"""The viewer's pages as files that open without a server. What they hold is what the person asked for, and said.

Without `private` no page shows a prompt, an answer, a setting or a file of the run: the store is private, and so is what
quotes it. With it, texts are there; the run key, salts and raw responses never are.
"""

import base64
import hashlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tutelage.errors import ConfigError, StorageError, TutelageError
from tutelage.jsonl import writing
from tutelage.redact import Secrets
from tutelage.view import pages, query
from tutelage.view.compare import compare
from tutelage.view.links import BundledLinks
from tutelage.view.looking import Looking
from tutelage.view.runs import EVIDENCE, REPORT, Run, Summary, own_file, summary_of

MOST_EXAMPLES = 500  # of each run, unless told otherwise
_MOST_COMPARED = 10  # runs that are compared two by two
_INDEX_WAIT_S = 24 * 3600.0


class Bundled(NamedTuple):
    """What was written: `left_out` says, run by run, how many of the examples are not there."""

    files: int
    bytes: int
    examples: int
    left_out: dict[str, int]
    problems: dict[str, str]


def write_bundle(looking: Looking, out: Path, *, private: bool, limit: int, secrets: Secrets) -> Bundled:
    """Writes into a new or empty folder. Raises `ConfigError` for another one, `StorageError` when it cannot be written."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and not empty", fix="name a new folder")
    style = pages.stylesheet()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    bundle = _Bundle(looking, BundledLinks(style, policy), private, limit)
    size = count = 0
    with writing(out):
        out.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    for name, data in bundle.files():
        data = secrets.scrub(data)
        with writing(out / name):
            (out / name).write_bytes(data)
        size, count = size + len(data), count + 1
    return Bundled(count, size, bundle.examples, bundle.left_out, bundle.problems)


class _Bundle:
    def __init__(self, looking: Looking, links: BundledLinks, private: bool, limit: int) -> None:
        self._looking, self._links, self._private, self._limit = looking, links, private, limit
        self.examples = 0
        self.left_out: dict[str, int] = {}
        self.problems: dict[str, str] = {}

    def files(self) -> Iterator[tuple[str, bytes]]:
        readable = [run for run in self._looking.runs if self._is_readable(run)]
        names = {f"run-{run.number}.html" for run in readable}
        pairs = list(combinations(readable[:_MOST_COMPARED], 2)) if self._private else []
        names |= {f"compare-{a.number}-{b.number}.html" for a, b in pairs}
        plans = {run.number: self._plan(run) for run in readable} if self._private else {}
        self._links.written = names.union(*plans.values())
        yield "index.html", _encoded(pages.runs_page(self._links, [self._summary(run) for run in self._looking.runs]))
        for run in readable:
            yield f"run-{run.number}.html", _encoded(self._run_page(run))
            if self._private:
                yield from self._private_pages(run)
        for a, b in pairs:
            try:
                html = pages.compare_page(self._links, a, b, compare(a, b))
            except TutelageError as error:
                html = pages.error_page(self._links, "These cannot be compared", error)
            yield f"compare-{a.number}-{b.number}.html", _encoded(html)

    def _summary(self, run: Run) -> Summary:
        found = summary_of(run)
        if found.problem is None or self._private:
            return found
        return found._replace(problem=StorageError("this folder cannot be read", fix="look at it without --bundle"))

    def _is_readable(self, run: Run) -> bool:
        problem = summary_of(run).problem
        if problem is not None:
            self.problems[run.name] = problem.message
        return problem is None

    def _run_page(self, run: Run) -> str:
        told = self._looking.run_facts(run, _INDEX_WAIT_S)
        if not self._private:
            told |= {"failures": [], "there": [], "has_pairs": False, "others": [], "entries": []}
            told["stages"] = [stage._replace(facts=_public(stage.facts)) for stage in told["stages"]]
            told["problems"] = []  # they may quote what is in a file
        return pages.run_page(self._links, run, told)

    def _plan(self, run: Run) -> set[str]:
        """Names of all pages of a run's texts, before any is written: pages name each other."""
        index = self._looking.index(run)
        index.refresh(_INDEX_WAIT_S)
        names = {f"run-{run.number}-{name}" for name in (REPORT, EVIDENCE) if _is_own(run, name)}
        with index.reading() as database:
            for page in self._pages(database.execute("SELECT coalesce(sum(examples), 0) FROM segment").fetchone()[0]):
                names.add(f"run-{run.number}-examples-{page}.html")
                rows = query.list_examples(database, query.Filters(page=page), with_facets=False).rows
                names |= {f"run-{run.number}-example-{row.place}.html" for row in rows}
            for page in self._pages(database.execute("SELECT count(*) FROM score").fetchone()[0]):
                names.add(f"run-{run.number}-proof-{page}.html")
                rows = query.list_pairs(database, "", page)[0]
                names |= {f"run-{run.number}-item-{row.number}.html" for row in rows}
        return names

    def _pages(self, total: int) -> range:
        return range(1, -(-min(total, self._limit) // query.PAGE) + 1)

    def _private_pages(self, run: Run) -> Iterator[tuple[str, bytes]]:
        for name in (REPORT, EVIDENCE):
            if _is_own(run, name) and (path := own_file(run, name)):
                yield f"run-{run.number}-{name}", path.read_bytes()
        index, links = self._looking.index(run), self._links
        known = index.refresh(_INDEX_WAIT_S)
        with index.reading() as database:
            for page in self._pages(known.examples):
                filters = query.Filters(page=page)
                listed = query.list_examples(database, filters, with_facets=False)
                last = max(self._pages(known.examples))
                listed = listed._replace(pages=last)
                limit = self._limit_words(run, known.examples, last * query.PAGE)
                html = pages.examples_page(links, run, known, filters, listed, limit)
                yield f"run-{run.number}-examples-{page}.html", _encoded(html)
                for row in listed.rows:
                    if (found := self._looking.example(run, row.place)) is not None:
                        self.examples += 1
                        html = pages.example_page(links, run, *found)
                        yield f"run-{run.number}-example-{row.place}.html", _encoded(html)
            count = database.execute("SELECT count(*) FROM score").fetchone()[0]
            for page in self._pages(count):
                found_pairs = query.list_pairs(database, "", page)
                rows, total, _, counts = found_pairs
                last = max(self._pages(count))
                limit = f"The first {last * query.PAGE:,} of {count:,} items." if last * query.PAGE < count else ""
                html = pages.pairs_page(links, run, "", page, (rows, total, last, counts), limit)
                yield f"run-{run.number}-proof-{page}.html", _encoded(html)
                for row in rows:
                    if (pair := self._looking.pair(run, row.number)) is not None:
                        yield f"run-{run.number}-item-{row.number}.html", _encoded(pages.pair_page(links, run, *pair))

    def _limit_words(self, run: Run, examples: int, shown: int) -> str:
        if shown >= examples:
            return ""
        self.left_out[run.name] = examples - shown
        return f"The first {shown:,} of {examples:,} exchanges: more were not asked for when these files were made."


def _public(facts: dict[str, object]) -> dict[str, object]:
    """Counts and words of our own; not names of files, reasons of endpoints, or digests of answers."""
    kept = ("status", "verdict", "items", "questions", "draws", "answered", "refused", "kept", "validation", "train",
            "held_out", "steps", "chosen_step", "examples", "loss_tokens", "cost_nusd", "settled_nusd", "parameters",
            "base_parameters", "layers", "base_layers", "rows")  # fmt: skip
    return {name: facts[name] for name in kept if isinstance(facts.get(name), int | str)}


def _is_own(run: Run, name: str) -> bool:
    try:
        return own_file(run, name) is not None
    except TutelageError:
        return False


def _encoded(html: str) -> bytes:
    return html.encode("utf-8", "replace")
