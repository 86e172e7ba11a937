"""The viewer's own index of one run: tables, where it lies, and how it is opened. Delete it at any time.

It lies in the person's cache folder, never in the run: a run folder is evidence. It holds words of the answers, so only
its owner may read it.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tutelage.errors import StorageError

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE segment (number INTEGER PRIMARY KEY, offset INTEGER NOT NULL, head BLOB NOT NULL,
                      last INTEGER NOT NULL, tail BLOB NOT NULL, examples INTEGER NOT NULL);
CREATE TABLE file (name TEXT PRIMARY KEY, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE example (
  id INTEGER PRIMARY KEY, request_offset INTEGER NOT NULL, body_offset INTEGER NOT NULL,
  address BLOB NOT NULL, digest BLOB NOT NULL,
  role TEXT NOT NULL, purpose TEXT NOT NULL, model TEXT NOT NULL, finish TEXT NOT NULL, origin TEXT NOT NULL,
  maker TEXT NOT NULL, who TEXT NOT NULL, cost_nusd INTEGER NOT NULL, tokens INTEGER NOT NULL, asked_at TEXT NOT NULL,
  stage TEXT NOT NULL DEFAULT '', prompt TEXT NOT NULL DEFAULT '', fate TEXT NOT NULL DEFAULT '',
  why TEXT NOT NULL DEFAULT '', place INTEGER NOT NULL DEFAULT -1,
  correct TEXT NOT NULL DEFAULT '', differs TEXT NOT NULL DEFAULT '');
CREATE INDEX example_address ON example (address);
CREATE INDEX example_digest ON example (digest);
CREATE INDEX example_prompt ON example (prompt, who);
CREATE TABLE said (id INTEGER PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (question, answer, content='', tokenize='unicode61');
CREATE TABLE failure (reason TEXT NOT NULL, refused INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (reason, refused));
CREATE TABLE taken (digest BLOB, role TEXT, tokens INTEGER NOT NULL, steps INTEGER NOT NULL, PRIMARY KEY (digest, role))
  WITHOUT ROWID;
CREATE TABLE prompt (id TEXT PRIMARY KEY, kind TEXT NOT NULL, source TEXT NOT NULL, licence TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE proved (prompt TEXT, who TEXT, address BLOB NOT NULL, PRIMARY KEY (prompt, who)) WITHOUT ROWID;
CREATE TABLE judged (address BLOB, item TEXT, who TEXT NOT NULL, PRIMARY KEY (address, item)) WITHOUT ROWID;
CREATE INDEX judged_item ON judged (item);
CREATE TABLE score (place INTEGER PRIMARY KEY, prompt TEXT UNIQUE NOT NULL, gold TEXT NOT NULL, outcomes TEXT NOT NULL,
                    teacher_ppm INTEGER, student_ppm INTEGER, differs INTEGER NOT NULL);
"""
_SHAPE = 4  # of what is put into them; raise it when old rows would mean something else
VERSION = int.from_bytes(hashlib.sha256(f"{_SHAPE} {_TABLES}".encode()).digest()[:3])  # another one is made anew


def cache_path(folder: Path, cache: Path | None = None) -> Path:
    """The index file of a run folder: in `cache`, by default the person's own cache folder."""
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("tutelage") / "view"
    return cache / f"{hashlib.sha256(str(folder.resolve()).encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.sqlite"


def open_index(path: Path, folder: Path) -> sqlite3.Connection:
    """A connection that may write; tables of this version are there. Raises `StorageError` when it cannot be used."""
    with telling(path):
        try:
            return _opened(path, folder)
        except sqlite3.OperationalError:  # full, locked, no permission: nothing is wrong with the file
            raise
        except sqlite3.DatabaseError:
            remove_index(path)
            return _opened(path, folder)


def remove_index(path: Path) -> None:
    """Deletes the file with what SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def forget_gone(cache: Path) -> int:
    """Removes indexes of folders that are no longer there; returns how many."""
    gone = 0
    for path in cache.glob("*.sqlite"):
        with contextlib.suppress(sqlite3.Error, TypeError, OSError):
            with contextlib.closing(sqlite3.connect(path, timeout=1)) as database:
                folder = database.execute("SELECT value FROM about WHERE name = 'folder'").fetchone()[0]
            if not Path(folder).is_dir():
                remove_index(path)
                gone += 1
    return gone


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Within: what SQLite or the disk refuse becomes a `StorageError` that names the index."""
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"cannot use the viewer's index {path}: {error}", fix="free disk space, or name another folder with --cache"
        ) from error


def _opened(path: Path, folder: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        path.touch(mode=0o600)
    database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=OFF")  # what a power cut takes is made anew
    if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in sorted(tables, key=lambda row: row[0] != "words"):  # its shadow tables go with it
                database.execute(f'DROP TABLE IF EXISTS "{name}"')
            for statement in _TABLES.split(";\n"):
                database.execute(statement)
            database.execute("INSERT INTO about VALUES ('folder', ?)", (str(folder.resolve()),))
            database.execute(f"PRAGMA user_version={VERSION}")
        database.execute("COMMIT")
    return database
