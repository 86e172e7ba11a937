"""What each page is made of, read from one run: shared by the server and the bundle."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import TutelageError
from tutelage.view import query
from tutelage.view.candidates import comparison_of
from tutelage.view.diff import Diff, word_diff
from tutelage.view.evidence import evidence_of
from tutelage.view.example import Example, read_example
from tutelage.view.index import Known, Place, ViewIndex
from tutelage.view.live import is_held, progress
from tutelage.view.runs import EVIDENCE, REPORT, Run, kind_of, own_file, read_json, stages_of, summary_of
from tutelage.view.schema import cache_path
from tutelage.view.talks import TALKS, Talk, read_talk
from tutelage.view.texts import answer_of
from tutelage.view.training import training_of

WAIT_S = 0.25  # for the index, before a page says that it is not whole yet


class Pair(NamedTuple):
    """A held-out item, its answers by system, teacher and student compared, the last item's number, and what judges said."""

    row: query.PairRow
    examples: dict[str, Example]
    diff: Diff | None
    last: int
    judged: list[query.Judgement]


class Looking:
    """The runs that are looked at, and their indexes. Any number of threads may use it."""

    def __init__(self, runs: Sequence[Run], cache: Path | None = None) -> None:
        self.runs = list(runs)
        self._cache = cache
        self._indexes: dict[int, ViewIndex] = {}
        self._lock = threading.Lock()

    def run(self, number: int) -> Run | None:
        return self.runs[number - 1] if 0 < number <= len(self.runs) else None

    def index(self, run: Run) -> ViewIndex:
        with self._lock:
            if run.number not in self._indexes:
                self._indexes[run.number] = ViewIndex(run.folder, cache_path(run.folder, self._cache))
            return self._indexes[run.number]

    def close(self) -> None:
        for index in self._indexes.values():
            index.close()

    def run_facts(self, run: Run, wait_s: float = WAIT_S) -> dict[str, Any]:
        """For the page of a run. A file that is not as it should be is told in `problems`; the rest of the page stands.

        Raises `StorageError` when the log cannot be read.
        """
        problems: list[TutelageError] = []
        entries = run.statements()
        stages = stages_of(entries)
        known, refused = self._known(run, problems, wait_s)
        evidence = _tried(problems, lambda: evidence_of(run))
        sources = _tried(problems, lambda: sources_of(run)) or []
        names = [name for name in (REPORT, EVIDENCE) if _tried(problems, lambda name=name: own_file(run, name))]
        begun = any(not stage.is_done for stage in stages) or bool(is_held(run.folder))
        return {
            "kind": kind_of(run.folder, entries),
            "summary": summary_of(run),
            "called": next((str(one.facts.get("name", "")) for one in reversed(entries) if one.kind == "opened"), ""),
            "stages": stages,
            "entries": entries,
            "known": known,
            "failures": refused,
            "evidence": evidence,
            "compared": _tried(problems, lambda: comparison_of(run)),
            "training": _tried(problems, lambda: training_of(run)),
            "sources": sources,
            "there": names,
            "live": progress(run, known) if begun else None,
            "has_pairs": run.has_pairs,
            "others": [other for other in self.runs if other.number != run.number],
            "problems": problems,
        }

    def example(self, run: Run, place: Place) -> tuple[Example | Talk, tuple[Place | None, Place | None]] | None:
        """An example and its neighbours; None when there is none. Raises as `read_example` and `read_talk` do."""
        index = self.index(run)
        index.refresh(WAIT_S)
        with index.reading() as database:
            lineage = query.lineage_of(database, place)
            beside = query.beside(database, place)
        if lineage is None:
            return None
        is_talk = place.segment == TALKS
        return (read_talk(run, place, lineage) if is_talk else read_example(run, index, place, lineage)), beside

    def pair(self, run: Run, number: int) -> Pair | None:
        """A held-out item; None when there is none."""
        index = self.index(run)
        index.refresh(WAIT_S)
        with index.reading() as database:
            found = query.pair_at(database, number)
            last = database.execute("SELECT count(*) FROM score").fetchone()[0]
            if found is None:
                return None
            judged = query.judgements_on(database, found[0].prompt)
            lineages = {who: query.lineage_of(database, place) for who, place in found[1].items()}
        examples = {
            who: read_example(run, index, found[1][who], lineage) for who, lineage in lineages.items() if lineage
        }
        said = {who: answer_of(one.exchange.to_json()) for who, one in examples.items()}
        diff = word_diff(said["teacher"], said["student"]) if {"teacher", "student"} <= said.keys() else None
        return Pair(found[0], examples, diff, last, judged)

    def _known(
        self, run: Run, problems: list[TutelageError], wait_s: float
    ) -> tuple[Known, list[tuple[str, bool, int]]]:
        try:
            index = self.index(run)
            known = index.refresh(wait_s)
            if known.problem is not None:
                problems.append(known.problem)
            with index.reading() as database:
                return known, query.failures(database)
        except TutelageError as error:
            problems.append(error)
            return Known(0, 0, 0, False, error), []


def sources_of(run: Run) -> list[dict[str, Any]]:
    """Who gave how many loss tokens, with the share of them all from 0 to 1; empty before that is known."""
    found = read_json(run.folder / "provenance" / "sources.json")
    rows = [one["row"] for one in found["rows"]] if found else []
    if not rows:
        rows = (read_json(run.folder / "train" / "sources.json") or {"rows": []})["rows"]
    total = sum(row["loss_tokens"] for row in rows)
    return [{**row, "share": row["loss_tokens"] / total if total else 0.0} for row in rows]


def _tried(problems: list[TutelageError], read: Any) -> Any:
    try:
        return read()
    except TutelageError as error:
        problems.append(error)
        return None
