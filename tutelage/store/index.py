"""A SQLite index over the segments: address -> where the answer lies. Always rebuildable; delete it at any time.

It remembers how far each segment was read, so opening a store reads only what was appended since.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tutelage.errors import StorageError
from tutelage.store import segment

_SCHEMA = """
CREATE TABLE IF NOT EXISTS exchange (address TEXT PRIMARY KEY, digest TEXT NOT NULL, segment TEXT NOT NULL,
                                     request_offset INTEGER NOT NULL, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read_to (segment TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
"""
AT_ONCE = 500  # variables in one statement that every SQLite takes
_VERSION = 2  # of the schema: an index of another version is built anew


class Place(NamedTuple):
    """Where an exchange lies, and its request: both are written at once, the request's line just before."""

    digest: str
    segment: str
    request_offset: int
    offset: int


class Index:
    """The index of one store folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "index.sqlite"
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)  # only a cache: built anew from the segments
            self._database = self._open(path)
        self.catch_up()

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=30, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        if database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            database.executescript("DROP TABLE IF EXISTS exchange; DROP TABLE IF EXISTS read_to;")
            database.execute(f"PRAGMA user_version={_VERSION}")
        database.executescript(_SCHEMA)
        return database

    def catch_up(self) -> None:
        """Reads what any writer appended since the last time."""
        known = dict(self._database.execute("SELECT segment, offset FROM read_to"))
        for path in sorted(self._folder.glob("*.seg")):
            start = known.get(path.name, 0)
            size = path.stat().st_size
            if size < start:  # the segment was cut or replaced: forget what was known of it
                self._database.execute("DELETE FROM exchange WHERE segment = ?", (path.name,))
                start = 0
            if size > start:
                self._read(path, start)

    def _read(self, path: Path, start: int) -> None:
        end = request_at = start
        self._database.execute("BEGIN")
        for line in segment.read(path, start):
            if line.kind == "request":
                request_at = line.offset
            elif line.kind == "exchange":
                place = Place(line.digest, path.name, request_at, line.offset)
                self._database.execute(
                    "INSERT OR IGNORE INTO exchange VALUES (?, ?, ?, ?, ?)", (line.value["request_digest"], *place)
                )
            end = line.end
        self._database.execute("INSERT OR REPLACE INTO read_to VALUES (?, ?)", (path.name, end))
        self._database.execute("COMMIT")

    def add(self, address: str, place: Place, end: int) -> None:
        """Records one exchange just appended; `end` is the offset after its last line.

        Raises `StorageError` when the disk is full: the exchange itself is stored, the index catches up later.
        """
        try:
            self._database.execute("INSERT OR IGNORE INTO exchange VALUES (?, ?, ?, ?, ?)", (address, *place))
            self._database.execute("INSERT OR REPLACE INTO read_to VALUES (?, ?)", (place.segment, end))
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"cannot write the index in {self._folder}: {error}",
                fix="free disk space and run again; everything stored so far is kept",
            ) from error

    def find(self, address: str) -> Place | None:
        row = self._database.execute(
            "SELECT digest, segment, request_offset, offset FROM exchange WHERE address = ?", (address,)
        ).fetchone()
        return Place(*row) if row else None

    def find_all(self, addresses: Sequence[str]) -> dict[str, Place]:
        """Those of the addresses that are known, in one question to the database; at most `AT_ONCE` of them."""
        marks = ",".join("?" * len(addresses))
        query = f"SELECT address, digest, segment, request_offset, offset FROM exchange WHERE address IN ({marks})"
        return {row[0]: Place(*row[1:]) for row in self._database.execute(query, addresses)}

    def close(self) -> None:
        self._database.close()
