"""Every exchange of a run, indexed while it is looked at: where it lies, what to list and search, whence it came.

A thread of its own reads the segments from where it stopped, in small transactions, so that the first page is there
before a large store is read. What is shown of one example is read from its segment, and held against its digest there.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import StorageError, TutelageError
from tutelage.store import segment
from tutelage.view.facets import count_facets
from tutelage.view.lineage import Lineage
from tutelage.view.schema import open_index, remove_index, telling
from tutelage.view.slices import MARK, Place, Slice
from tutelage.view.talks import TALKS, TalkSlice, mark_of, talks_in

__all__ = ["Known", "Place", "ViewIndex"]

_SLICE = 2000  # exchanges in one transaction; the first ones are few, since somebody waits for them
_FIRST_SLICE = 200
_COUNTED_EVERY_S = 3.0  # facets, while a store is being read
_FIRST_WAIT_S = 2.0  # at most, for the first examples of a store that nobody looked at before


class Known(NamedTuple):
    """How far the segments were read, in bytes, and what stopped the reading, if anything did."""

    read: int
    size: int
    examples: int
    is_whole: bool
    problem: TutelageError | None


class ViewIndex:
    """The index of one run. `refresh` before each page; `reading` for queries. Methods raise `StorageError`."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop, self._first = threading.Event(), threading.Event()
        self._problem: TutelageError | None = None
        self._idle_at: tuple[Any, ...] | None = None
        self._is_open = False

    def refresh(self, wait_s: float) -> Known:
        """Begins to read what was added, waits at most `wait_s` seconds for it, and says how far it is."""
        with self._lock:
            if not self._is_open:
                open_index(self.path, self.folder).close()
                self._is_open = True
            state = self._state()
            if self._thread is None and state != self._idle_at:
                self._thread = threading.Thread(target=self._work, name=f"view {self.folder.name}", daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            until = time.monotonic() + wait_s
            if wait_s:
                self._first.wait(_FIRST_WAIT_S)  # a page with nothing on it helps nobody
            thread.join(max(0.0, until - time.monotonic()))
        size = sum(path.stat().st_size for path in self._segments())
        with self.reading() as database:
            read, examples = database.execute(
                "SELECT coalesce(sum(offset), 0), coalesce(sum(examples), 0) FROM segment"
            ).fetchone()
        is_whole = self._thread is None and self._problem is None
        return Known(read, size, examples, is_whole, self._problem)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for one page: what it sees stays the same while it is open."""
        with telling(self.path):
            database = sqlite3.connect(f"file:{_quoted(self.path)}?mode=ro", uri=True, timeout=30)
            try:
                database.execute("BEGIN")
                yield database
            finally:
                database.close()

    def line_at(self, number: int, offset: int) -> segment.Line:
        """The record there, held against its digest. Raises `StorageError` when it is damaged or gone."""
        path = segment.path_of(self.folder / "store", number)
        try:
            return segment.read_at(path, offset)
        except FileNotFoundError:
            raise StorageError(f"{path} is gone", fix="restore it from a copy") from None

    def close(self) -> None:
        """Ends the reading; what is read so far is kept."""
        self._stop.set()
        if (thread := self._thread) is not None:
            thread.join(10)

    def _segments(self) -> list[Path]:
        """What examples are read from: the conversations of a training, then the store."""
        return [*talks_in(self.folder), *segment.paths(self.folder / "store")]

    def _state(self) -> tuple[Any, ...]:
        """What tells that something changed: sizes of segments, sizes and times of what lineage is read from."""
        sizes = tuple((path.name, path.stat().st_size) for path in self._segments())
        marks = tuple(mark_of(path) for path in talks_in(self.folder))
        return sizes, marks, tuple(Lineage(self.folder).files().items())

    def _work(self) -> None:
        problem: TutelageError | None = None
        state: tuple[Any, ...] | None = None
        try:
            state = self._state()
            with telling(self.path), contextlib.closing(self._opened()) as database:
                is_longer = self._read_segments(database)
                if not self._stop.is_set() and (Lineage(self.folder).load(database, self._stop) or is_longer):
                    count_facets(database)
        except TutelageError as error:
            problem = error
        except FileNotFoundError as error:  # somebody removes what is looked at
            problem = StorageError(f"{error.filename} is gone", fix="look again")
        except Exception as error:  # a reader thread must not end in silence
            problem = StorageError(f"cannot index {self.folder}: {error!r:.200}", fix="report this as a bug")
        self._first.set()
        with self._lock:
            self._problem, self._idle_at, self._thread = problem, state, None

    def _opened(self) -> sqlite3.Connection:
        """The index, made anew when the segments are not those it was made from."""
        database = open_index(self.path, self.folder)
        if _is_of(database, self.folder):
            return database
        database.close()
        remove_index(self.path)
        return open_index(self.path, self.folder)

    def _read_segments(self, database: sqlite3.Connection) -> bool:
        """Whether anything was added."""
        if _examples(database):
            self._first.set()
        is_longer, counted_at = False, 0.0
        for path in self._segments():
            while not self._stop.is_set() and _read_slice(database, path):
                self._first.set()
                is_longer = True
                if time.monotonic() - counted_at > _COUNTED_EVERY_S:
                    count_facets(database)
                    counted_at = time.monotonic()
        return is_longer


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.resolve()))


def _is_of(database: sqlite3.Connection, folder: Path) -> bool:
    for number, offset, head, last, tail, _ in database.execute("SELECT * FROM segment").fetchall():
        if number == TALKS:
            if [head] != [mark_of(path) for path in talks_in(folder)]:
                return False
            continue
        try:
            with segment.path_of(folder / "store", number).open("rb") as file:
                if file.read(MARK) != head:
                    return False
                file.seek(last)
                if file.read(MARK) != tail or file.seek(0, 2) < offset:
                    return False
        except FileNotFoundError:
            return False
    return True


def _read_slice(database: sqlite3.Connection, path: Path) -> bool:
    """Adds the next exchanges of a segment; False when there is nothing more to read."""
    is_talks = path.suffix == ".jsonl"
    number = TALKS if is_talks else segment.number_of(path)
    start, examples = _read_to(database, number)
    found = TalkSlice(path, start) if is_talks else Slice(number, start)
    most = _SLICE if examples else _FIRST_SLICE
    with path.open("rb", buffering=1 << 20) as file:
        head = mark_of(path) if is_talks else file.read(MARK)
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                break  # torn, or being written
            found.take(line, path)
            if len(found.examples) >= most:
                break
    if found.end == start:
        return False
    database.execute("BEGIN IMMEDIATE")
    try:
        if _read_to(database, number) == (start, examples):  # nobody else was faster
            found.write(database)
            keep = (number, found.end, head, found.last, found.tail, examples + len(found.examples))
            database.execute("INSERT OR REPLACE INTO segment VALUES (?, ?, ?, ?, ?, ?)", keep)
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    return True


def _examples(database: sqlite3.Connection) -> int:
    return database.execute("SELECT coalesce(sum(examples), 0) FROM segment").fetchone()[0]


def _read_to(database: sqlite3.Connection, number: int) -> tuple[int, int]:
    row = database.execute("SELECT offset, examples FROM segment WHERE number = ?", (number,)).fetchone()
    return row or (0, 0)
