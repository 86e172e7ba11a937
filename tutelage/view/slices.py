"""Stretches of a segment as rows of the viewer's index, and how an example is named: by where it lies."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tutelage.store import segment
from tutelage.view.texts import SHOWN_CHARACTERS, answer_of, question_of, searched

SPAN = 1 << 34  # a segment's examples are numbered from its number times this; a segment is far shorter
MARK = 71  # bytes of a digest: what tells that a segment is still the one that was read
_OURS = "tutelage"  # provider of our own student


class Place(NamedTuple):
    """Where an example lies: the number of its segment and the byte at which its line begins."""

    segment: int
    offset: int

    @property
    def id(self) -> int:
        return self.segment * SPAN + self.offset

    @classmethod
    def of_id(cls, number: int) -> "Place":
        return cls(*divmod(number, SPAN))

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """`1.30242` → segment 1, byte 30242; None for anything else."""
        number, dot, offset = text.partition(".")
        digits = number.isascii() and offset.isascii() and number.isdecimal() and offset.isdecimal()
        if not dot or not digits or len(number) > 9 or len(offset) > 10:
            return None
        found = cls(int(number), int(offset))
        return found if found.offset < SPAN and found.id < 1 << 63 else None  # as SQLite counts

    def __str__(self) -> str:
        return f"{self.segment}.{self.offset}"


class Slice:
    """Lines in a row of one segment, as rows of the index. It ends with a whole answer: body, request, exchange."""

    def __init__(self, number: int, start: int) -> None:
        self.number, self.at, self.end = number, start, start
        self.last, self.tail = start, b""
        self.examples: list[tuple[Any, ...]] = []
        self.said: list[tuple[int, str, str]] = []
        self.words: list[tuple[int, str, str]] = []
        self.failures: dict[tuple[str, bool], int] = {}
        self._body_at, self._request_at = -1, -1
        self._request: dict[str, Any] = {}

    def take(self, line: bytes, path: Path) -> None:
        at, self.at = self.at, self.at + len(line)
        kind, _, text = line[MARK + 1 :].partition(b" ")
        if not (line.startswith(b"sha256:") and text.startswith(b"{") and text.endswith(b"}\n")):
            raise segment.damaged(path, at, "no record")
        if kind == b"body":
            self._body_at = at
            return
        try:
            if kind == b"request":
                self._request_at, self._request = at, orjson.loads(text)
                return
            if kind == b"exchange":
                self._exchange(line, orjson.loads(text), at)
            elif kind == b"failure":
                value = orjson.loads(text)
                key = str(value["reason"])[:500], bool(value["refused"])
                self.failures[key] = self.failures.get(key, 0) + 1
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise segment.damaged(path, at, f"{type(error).__name__} {error}"[:200]) from error
        self.last, self.tail, self.end = at, line[:MARK], self.at
        self._body_at = -1

    def _exchange(self, line: bytes, value: Mapping[str, Any], at: int) -> None:
        if not self._request or self._request_at < 0:
            raise ValueError("an exchange without its request")
        model, usage, who = value["model"], value["usage"], _who(value["model"])
        name = Place(self.number, at).id
        question, answer = question_of(self._request), answer_of(value)
        self.examples.append((
            name, self._request_at, self._body_at,
            bytes.fromhex(value["request_digest"][7:]), bytes.fromhex(line[7:MARK].decode()),
            str(value["role"]), str(self._request["purpose"]), str(model["model_asked"]), str(value["finish_reason"]),
            str(value["origin"]), who, who, int(value["price"]["cost_nusd"]),
            int(usage["prompt_tokens"]) + int(usage["completion_tokens"]), str(value["asked_at"]), "", "",
        ))  # fmt: skip
        self.said.append((name, question[:SHOWN_CHARACTERS], answer[:SHOWN_CHARACTERS]))
        self.words.append((name, *searched(self._request, value)))

    def write(self, database: sqlite3.Connection) -> None:
        columns = (
            "id, request_offset, body_offset, address, digest, role, purpose, model, finish, origin, maker, who, "
            "cost_nusd, tokens, asked_at, stage, fate"
        )
        marks = ",".join("?" * 17)
        database.executemany(f"INSERT INTO example ({columns}) VALUES ({marks})", self.examples)
        database.executemany("INSERT INTO said VALUES (?, ?, ?)", self.said)
        database.executemany("INSERT INTO words (rowid, question, answer) VALUES (?, ?, ?)", self.words)
        for (reason, refused), count in self.failures.items():
            database.execute(
                """INSERT INTO failure VALUES (?, ?, ?) ON CONFLICT (reason, refused)
                   DO UPDATE SET count = count + excluded.count""",
                (reason, refused, count),
            )


def _who(model: Mapping[str, Any]) -> str:
    """Which system of a run answered: our own models are served as `NAME-ROLE@DIGEST`, where NAME is the run's."""
    if model["provider"] != _OURS:
        return "teacher"
    return "before" if str(model["model_asked"]).rpartition("@")[0].endswith("-before") else "student"
