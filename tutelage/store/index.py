"""A SQLite index over the segments: where each answer lies, and what was spent. Delete it at any time; it is built anew.

Everything in it follows from the segments, each taken by itself: the index of a store is the same however its lines were
read, by whom, and in how many goes. It remembers how far each segment was read. Whoever adds to it first compares that
with where his own lines begin, in one transaction: no line is counted twice, however many processes write and read.
What this process appends waits in memory and is written about twice a second; a killed process loses nothing by it.
"""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import StorageError
from tutelage.store import segment
from tutelage.store.fold import Piece, key_of, read_piece

AT_ONCE = 500  # variables in one statement that every SQLite takes
_VERSION = 3  # of the schema: an index of another version is built anew
_WAITING = 1000  # lines in memory
_WAITS_S = 0.5
_SCHEMA = """
CREATE TABLE segment (number INTEGER PRIMARY KEY, offset INTEGER NOT NULL, nusd INTEGER NOT NULL,
                      tokens INTEGER NOT NULL, open_nusd INTEGER NOT NULL, open_tokens INTEGER NOT NULL);
CREATE TABLE exchange (address BLOB PRIMARY KEY, digest BLOB NOT NULL, segment INTEGER NOT NULL,
                       request_offset INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reservation (request BLOB, attempt INTEGER, segment INTEGER, offset INTEGER, nusd INTEGER NOT NULL,
                          tokens INTEGER NOT NULL, PRIMARY KEY (request, attempt, segment, offset)) WITHOUT ROWID;
CREATE TABLE closing (request BLOB, attempt INTEGER, segment INTEGER, offset INTEGER,
                      PRIMARY KEY (request, attempt, segment, offset)) WITHOUT ROWID;
CREATE TABLE listed (kind TEXT, segment INTEGER, offset INTEGER, PRIMARY KEY (kind, segment, offset)) WITHOUT ROWID;
"""
# Of two answers to one question, the one in the lower segment is the first, whichever was read first.
_ANSWER = """
INSERT INTO exchange VALUES (?, ?, ?, ?, ?) ON CONFLICT (address) DO UPDATE SET digest = excluded.digest,
segment = excluded.segment, request_offset = excluded.request_offset, offset = excluded.offset
WHERE excluded.segment < exchange.segment
"""
_CLOSE = """
DELETE FROM reservation WHERE request = ?1 AND attempt = ?2 AND segment = ?3 AND offset =
(SELECT max(offset) FROM reservation WHERE request = ?1 AND attempt = ?2 AND segment = ?3)
"""
# Closed in a later segment than they were made in: the writer's segment was full in between. Few.
_ACROSS = """
SELECT request, attempt, segment, offset, nusd, tokens FROM reservation
WHERE EXISTS (SELECT 1 FROM closing WHERE closing.request = reservation.request
              AND closing.attempt = reservation.attempt)
"""


class Place(NamedTuple):
    """Where an exchange lies, and its request: both are written at once, the request's line just before."""

    digest: str
    segment: int
    request_offset: int
    offset: int


class Spent(NamedTuple):
    """What a store's calls cost in nano-USD and tokens, and what calls may have cost of which nobody told the end."""

    settled_nusd: int
    settled_tokens: int
    unresolved_nusd: int
    unresolved_tokens: int


class Reserved(NamedTuple):
    """What was set aside for one call."""

    nusd: int
    tokens: int


class Index:
    """The index of one store folder. Every method raises `StorageError` when the database cannot be used (disk full)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: Piece | None = None
        self._is_behind = False
        self._waits_since = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "index.sqlite"
        with self._telling():
            try:
                self._database = self._open()
                self._catch_up()
            except sqlite3.OperationalError:  # full, locked, no permission: nothing is wrong with the file
                raise
            except sqlite3.DatabaseError:
                for path in folder.glob("index.sqlite*"):
                    path.unlink(missing_ok=True)
                self._database = self._open()
                self._catch_up()

    def catch_up(self) -> None:
        """Reads what any writer appended since the last time."""
        self.flush()
        with self._telling():
            self._catch_up()

    def add(self, number: int, start: int, lines: Iterable[tuple[str, str, Mapping[str, Any], int]]) -> None:
        """Notes what this process is about to append at `start`: kind, digest, value and length of every line.

        Raises `KeyError`, `TypeError` or `ValueError` when a record has not its fields. When it was not appended after
        all, `drop` must follow.
        """
        waiting = self._waiting
        if waiting is not None and (waiting.segment, waiting.end) != (number, start):
            self.flush()
            waiting = None
        if waiting is None:
            waiting = self._waiting = Piece(number, start)
            self._waits_since = time.monotonic()
        for kind, digest, value, length in lines:
            waiting.take(kind, digest, value, start, start + length)
            start += length

    def drop(self) -> None:
        """Forgets what waits in memory: whatever of it was appended is read from the segment before the next answer."""
        self._waiting, self._is_behind = None, True

    def flush_if_due(self) -> None:
        waiting = self._waiting
        if waiting is not None and (waiting.taken >= _WAITING or time.monotonic() - self._waits_since > _WAITS_S):
            self.flush()

    def flush(self) -> None:
        """Writes what waits in memory, or reads it back where somebody else has read it from the segment already."""
        waiting, self._waiting = self._waiting, None
        if waiting is None and not self._is_behind:
            return
        self._is_behind = True  # until it is done
        with self._telling():
            if waiting is None or not self._write(waiting):
                self._catch_up()
        self._is_behind = False

    def has(self, address: str) -> bool:
        with contextlib.suppress(ValueError):
            if self._waiting is not None and key_of(address) in self._waiting.answers:
                return True
        return self.find(address, flush=self._is_behind) is not None

    def find(self, address: str, *, flush: bool = True) -> Place | None:
        return next(iter(self.find_all([address], flush=flush).values()), None)

    def find_all(self, addresses: Iterable[str], *, flush: bool = True) -> dict[str, Place]:
        """Those of the addresses that are known."""
        if flush:
            self.flush()
        found: dict[str, Place] = {}
        remaining = iter(addresses)
        with self._telling():
            while asked := list(itertools.islice(remaining, AT_ONCE)):
                keys = {}
                for address in asked:
                    with contextlib.suppress(ValueError):  # no digest, so nothing's address
                        keys[key_of(address)] = address
                marks = ",".join("?" * len(keys))
                query = (
                    f"SELECT address, digest, segment, request_offset, offset FROM exchange WHERE address IN ({marks})"
                )
                for key, digest, *place in self._database.execute(query, list(keys)):
                    found[keys[key]] = Place(f"sha256:{digest.hex()}", *place)
        return found

    def listed(self, kind: str) -> Iterator[tuple[int, int]]:
        """Segment and offset of every line of that kind, in order."""
        self.flush()
        last = (-1, -1)
        query = """SELECT segment, offset FROM listed WHERE kind = ? AND (segment, offset) > (?, ?)
                   ORDER BY segment, offset LIMIT 1000"""
        while True:
            with self._telling():
                rows = self._database.execute(query, (kind, *last)).fetchall()
            yield from rows
            if not rows:
                return
            last = rows[-1]

    def reserved(self, address: str, attempt: int) -> Reserved | None:
        """The newest open reservation of a call."""
        self.flush()
        query = (
            "SELECT nusd, tokens FROM reservation WHERE request = ? AND attempt = ? ORDER BY segment DESC, offset DESC"
        )
        with self._telling():
            row = self._database.execute(query, (key_of(address), attempt)).fetchone()
        return None if row is None else Reserved(*row)

    def spent(self) -> Spent:
        self.flush()
        with self._telling(), _transaction(self._database, "DEFERRED"):  # one moment: a call ends in two tables
            totals = self._database.execute("SELECT nusd, tokens, open_nusd, open_tokens FROM segment").fetchall()
            opened = self._database.execute("SELECT nusd, tokens FROM reservation").fetchall()
            across = self._closed_across()
        columns = [sum(column) for column in zip(*totals, strict=True)] or [0, 0, 0, 0]
        left = [sum(column) for column in zip(*opened, strict=True)] or [0, 0]
        gone = [sum(column) for column in zip(*across, strict=True)] or [0, 0]
        return Spent(columns[0], columns[1], columns[2] + left[0] - gone[0], columns[3] + left[1] - gone[1])

    def close(self) -> None:
        """What waits is written if it can be: the segments have it in any case."""
        with contextlib.suppress(StorageError):
            self.flush()
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")  # with WAL: a power cut may take the newest, but damages nothing
        database.execute("PRAGMA cache_size=-65536")
        if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            with _transaction(database):
                if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:  # nobody else was faster
                    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                        database.execute(f'DROP TABLE "{name}"')
                    for statement in _SCHEMA.split(";"):
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version={_VERSION}")
        return database

    def _catch_up(self) -> None:
        # A closing line may lie in a later segment than its reservation, never in an earlier one. Sizes are taken from
        # the last segment to the first and read from the first to the last, so that no closing line is read without it.
        # How far others read is asked before: segments grow, so whoever adds in between makes none look too short.
        known = self._database.execute("SELECT number, offset FROM segment").fetchall()
        sizes = {segment.number_of(path): (path, path.stat().st_size) for path in reversed(segment.paths(self._folder))}
        if any(number not in sizes or sizes[number][1] < offset for number, offset in known):
            # A segment is gone or shorter than it was read (a copy restored, a power cut): what it said is void.
            with _transaction(self._database):
                for table in ("segment", "exchange", "reservation", "closing", "listed"):
                    self._database.execute(f"DELETE FROM {table}")
        for number, (path, size) in sorted(sizes.items()):
            while (start := self._read_to(number)) < size:
                piece = read_piece(path, number, start, size)
                if piece.end == start:  # a torn tail, or the beginning of what somebody is writing
                    break
                self._write(piece)  # if somebody else was faster: on from where he is

    def _read_to(self, number: int) -> int:
        row = self._database.execute("SELECT offset FROM segment WHERE number = ?", (number,)).fetchone()
        return row[0] if row else 0

    def _write(self, piece: Piece) -> bool:
        """Adds it in one transaction; False, and nothing added, when the segment was not read just up to its start."""
        database, number = self._database, piece.segment
        with _transaction(database):
            if self._read_to(number) != piece.start:
                return False
            answers = sorted((key, *place) for key, place in piece.answers.items())  # near each other in the tree
            rows = ((key, digest, number, request_at, at) for key, digest, request_at, at in answers)
            database.executemany(_ANSWER, rows)
            closed = sorted((request, attempt, number, offset) for request, attempt, offset in piece.closed)
            if database.execute("SELECT 1 FROM reservation LIMIT 1").fetchone():  # else they close nothing: free models
                closed = [call for call in closed if database.execute(_CLOSE, call[:3]).rowcount == 0]
            database.executemany("INSERT INTO closing VALUES (?, ?, ?, ?)", closed)
            for (request, attempt), opened in piece.reserved.items():
                rows = [(request, attempt, number, *one) for one in opened]
                database.executemany("INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?)", rows)
            listed = ((kind, number, offset) for kind, offset in piece.listed)
            database.executemany("INSERT INTO listed VALUES (?, ?, ?)", listed)
            database.execute("INSERT OR IGNORE INTO segment VALUES (?, 0, 0, 0, 0, 0)", (number,))
            database.execute(
                """UPDATE segment SET offset = ?, nusd = nusd + ?, tokens = tokens + ?, open_nusd = open_nusd + ?,
                   open_tokens = open_tokens + ? WHERE number = ?""",
                (piece.end, piece.nusd, piece.tokens, piece.open_nusd, piece.open_tokens, number),
            )
        return True

    def _closed_across(self) -> list[tuple[int, int]]:
        """Nano-USD and tokens of reservations that were closed in a later segment: each closing line the newest before."""
        left: dict[tuple[bytes, int], list[tuple[int, int, int, int]]] = {}
        for request, attempt, *row in self._database.execute(_ACROSS).fetchall():
            left.setdefault((request, attempt), []).append(tuple(row))
        gone = []
        for call, reserved in left.items():
            query = "SELECT segment, offset FROM closing WHERE request = ? AND attempt = ? ORDER BY segment, offset"
            for closing in self._database.execute(query, call).fetchall():
                before = [one for one in reserved if one[:2] < closing]
                if before:
                    newest = max(before)
                    reserved.remove(newest)
                    gone.append(newest[2:])
        return gone

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            fix = "free disk space and run again; everything stored so far is kept"
            if not isinstance(error, sqlite3.OperationalError):
                fix = f"delete {self._path}; it is built anew"
            raise StorageError(f"cannot use the index in {self._folder}: {error}", fix=fix) from error


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    database.execute(f"BEGIN {kind}")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # a full disk may have ended it
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
        raise
