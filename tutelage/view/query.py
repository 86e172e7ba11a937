"""Lists out of the index: filters, search, paging. Every value from an address is bound, never written into SQL."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tutelage.errors import ConfigError
from tutelage.view.facets import FACETS, NONE, facets
from tutelage.view.scores import Outcome
from tutelage.view.slices import Place
from tutelage.view.texts import fts_query

PAGE = 50
PAIRS = {"": "all", "differs": "student and teacher differ", "worse": "student worse", "better": "student better",
         "both-wrong": "both wrong"}  # fmt: skip
_PAIRS_WHERE = {
    "": "1",
    "differs": "differs",
    "worse": "student_ppm < teacher_ppm",
    "better": "student_ppm > teacher_ppm",
    "both-wrong": "student_ppm = 0 AND teacher_ppm = 0",
}


class Filters(NamedTuple):
    """What to list: exact values by facet, words, and the page from 1."""

    values: tuple[tuple[str, str], ...] = ()
    words: str = ""
    page: int = 1

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> "Filters":
        """From an address; what is no filter is left out. Raises `ConfigError` for a page that is no number."""
        values = tuple((name, given[name][:300]) for name in FACETS if given.get(name))
        return cls(values, given.get("q", "").strip()[:1000], page_of(given))

    def query(self, **changed: str | int) -> str:
        """The address's query for these filters with some of them changed; empty values and page 1 are left out."""
        found = {**dict(self.values), "q": self.words, "page": self.page, **changed}
        return urlencode({name: value for name, value in found.items() if value not in ("", 1)})


class Row(NamedTuple):
    """One line of the list."""

    place: Place
    question: str
    answer: str
    stage: str
    who: str
    model: str
    finish: str
    fate: str
    why: str
    correct: str
    differs: str
    cost_nusd: int
    asked_at: str


class Judgement(NamedTuple):
    """A call of a judge about an item: which example it is, who judged, and how its answer begins."""

    place: Place
    who: str
    answer: str


class Listed(NamedTuple):
    """A page of the list, how many there are in all, and the facets with how many exchanges have each value."""

    rows: list[Row]
    total: int
    pages: int
    facets: dict[str, list[tuple[str, int]]]


class PairRow(NamedTuple):
    """A held-out item of the proof, and how each system did on it. `gold` is empty without one."""

    number: int
    prompt: str
    question: str
    gold: str
    outcomes: tuple[Outcome, ...]

    @property
    def by_name(self) -> dict[str, Outcome]:
        return {one.who: one for one in self.outcomes}


def page_of(given: Mapping[str, str]) -> int:
    text = given.get("page", "1")
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 9 and int(text) > 0):
        raise ConfigError(f"page {text[:40]!r} is no number", fix="pages are counted from 1")
    return int(text)


def list_examples(database: sqlite3.Connection, filters: Filters, *, with_facets: bool = True) -> Listed:
    """The page of exchanges, in the order of the store."""
    clauses, bound, tables = ["1"], [], "example"
    for name, value in filters.values:
        clauses.append(f"example.{name} = ?")  # a name of FACETS
        bound.append("" if value == NONE else value)
    if filters.words:
        words = fts_query(filters.words)
        tables = "words CROSS JOIN example ON example.id = words.rowid"  # FTS5 gives them in their order
        clauses.append("words MATCH ?" if words else "0")  # nothing can be looked for: nothing is found
        bound += [words] if words else []
    where = " AND ".join(clauses)
    total = _count(database, filters, f"{tables} WHERE {where}", bound)
    shown = "question, answer, stage, who, model, finish, fate, why, correct, differs, cost_nusd, asked_at"
    order = "words.rowid" if filters.words else "example.id"
    ids = f"SELECT example.id FROM {tables} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
    rows = database.execute(
        f"""SELECT example.id, {shown} FROM example JOIN said ON said.id = example.id WHERE example.id IN ({ids})
            ORDER BY example.id""",
        (*bound, PAGE, (filters.page - 1) * PAGE),
    ).fetchall()
    counted = facets(database) if with_facets else {}
    return Listed([Row(Place.of_id(row[0]), *row[1:]) for row in rows], total, max(1, -(-total // PAGE)), counted)


def _count(database: sqlite3.Connection, filters: Filters, rest: str, bound: list[str]) -> int:
    if not filters.values and not filters.words:
        return database.execute("SELECT coalesce(sum(examples), 0) FROM segment").fetchone()[0]
    if not filters.values and bound:
        rest = "words WHERE words MATCH ?"
    return database.execute(f"SELECT count(*) FROM {rest}", bound).fetchone()[0]


def beside(database: sqlite3.Connection, place: Place) -> tuple[Place | None, Place | None]:
    """The examples before and after one in the store."""
    before = database.execute("SELECT max(id) FROM example WHERE id < ?", (place.id,)).fetchone()[0]
    after = database.execute("SELECT min(id) FROM example WHERE id > ?", (place.id,)).fetchone()[0]
    return (None if before is None else Place.of_id(before), None if after is None else Place.of_id(after))


def list_pairs(database: sqlite3.Connection, which: str, page: int) -> tuple[list[PairRow], int, int, dict[str, int]]:
    """Held-out items, how many there are of this sort, pages, and how many of each sort. An unknown sort is "all"."""
    where = _PAIRS_WHERE.get(which, "1")
    counts = {
        name: database.execute(f"SELECT count(*) FROM score WHERE {clause}").fetchone()[0]
        for name, clause in _PAIRS_WHERE.items()
    }
    rows = database.execute(
        f"""SELECT place, prompt, gold, outcomes, (SELECT question FROM said JOIN example ON example.id = said.id
              WHERE example.prompt = score.prompt AND stage = 'prove' ORDER BY who = 'teacher' DESC LIMIT 1)
            FROM score WHERE {where} ORDER BY place LIMIT ? OFFSET ?""",
        (PAGE, (page - 1) * PAGE),
    ).fetchall()
    total = counts.get(which, counts[""])
    found = [PairRow(place + 1, prompt, text or "", gold, _outcomes(said)) for place, prompt, gold, said, text in rows]
    return found, total, max(1, -(-total // PAGE)), counts


def pair_at(database: sqlite3.Connection, number: int) -> tuple[PairRow, dict[str, Place]] | None:
    """A held-out item by its number from 1, and which example each system's answer is; None when there is none."""
    row = database.execute("SELECT prompt, gold, outcomes FROM score WHERE place = ?", (number - 1,)).fetchone()
    if row is None:
        return None
    prompt, gold, outcomes = row
    places = database.execute(
        """SELECT proved.who, min(example.id) FROM proved JOIN example ON example.address = proved.address
           WHERE proved.prompt = ? GROUP BY proved.who""",
        (prompt,),
    ).fetchall()
    return PairRow(number, prompt, "", gold, _outcomes(outcomes)), {who: Place.of_id(name) for who, name in places}


def judgements_on(database: sqlite3.Connection, prompt: str) -> list[Judgement]:
    """What judges said of an item, in the order of the store."""
    rows = database.execute(
        """SELECT example.id, judged.who, answer FROM judged JOIN example ON example.address = judged.address
           JOIN said ON said.id = example.id WHERE judged.item = ? ORDER BY judged.who, example.id""",
        (prompt,),
    ).fetchall()
    return [Judgement(Place.of_id(place), who, answer) for place, who, answer in rows]


def _outcomes(text: str) -> tuple[Outcome, ...]:
    return tuple(Outcome(*one) for one in json.loads(text))


def failures(database: sqlite3.Connection) -> list[tuple[str, bool, int]]:
    """Questions without a usable answer: the ten commonest reasons, whether the endpoint refused, how often."""
    query = "SELECT reason, refused, count FROM failure ORDER BY count DESC, reason LIMIT 10"
    return [(reason, bool(refused), count) for reason, refused, count in database.execute(query).fetchall()]


def lineage_of(database: sqlite3.Connection, place: Place) -> dict[str, Any] | None:
    """What the index knows of one example: None when there is none."""
    cursor = database.execute("SELECT * FROM example WHERE id = ?", (place.id,))
    row = cursor.fetchone()
    if row is None:
        return None
    found: dict[str, Any] = dict(zip((column[0] for column in cursor.description), row, strict=True))
    taken = database.execute("SELECT role, tokens, steps FROM taken WHERE digest = ? ORDER BY role", (found["digest"],))
    found["taken"] = [{"role": role, "tokens": tokens, "steps": steps} for role, tokens, steps in taken.fetchall()]
    prompt = database.execute("SELECT kind, source, licence FROM prompt WHERE id = ?", (found["prompt"],)).fetchone()
    found["prompt_from"] = None if prompt is None else dict(zip(("kind", "source", "licence"), prompt, strict=True))
    score = database.execute("SELECT place, gold, outcomes FROM score WHERE prompt = ?", (found["prompt"],)).fetchone()
    is_proof = score is not None and found["stage"] == "prove"
    found["score"] = {"number": score[0] + 1, "gold": score[1], "outcomes": _outcomes(score[2])} if is_proof else None
    judged = """SELECT score.place FROM judged JOIN score ON score.prompt = judged.item WHERE judged.address = ?
                ORDER BY score.place"""
    found["judged"] = [row[0] + 1 for row in database.execute(judged, (found["address"],)).fetchall()]
    return found
