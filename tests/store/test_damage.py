"""Wrong records, damaged files, a locked index, processes in each other's way: told, and nothing lost."""

import os
import sqlite3
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.test_index import attempt, put, reservation, without_index
from tests.store.test_store import question
from tutelage.canon import digest_bytes
from tutelage.errors import StorageError
from tutelage.records import Usage
from tutelage.store import segment
from tutelage.store.store import Spent, Store


@pytest.mark.parametrize("kind", ["Batch", "a b", "", "batch\n", "exchange", "attempt", "body"])
def test_other_records_have_kinds_of_their_own(tmp_path: Path, kind: str) -> None:
    with Store(tmp_path) as store, pytest.raises(ValueError, match="no kind"):
        store.put_record(kind, {})


def test_a_record_that_the_index_could_not_read_back_is_not_written(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, 1)
        for wrong in (replace(reservation(1, 1), request_digest="sha256:1"), replace(reservation(1, 1), nusd=True)):
            with pytest.raises(ValueError, match="is no "):
                store.reserve(wrong)
        with pytest.raises(ValueError, match="names the body"):
            store.put_attempt(attempt(1, 1), b"surplus")
        with pytest.raises(ValueError, match="no integer"):
            put(store, 2, usage=Usage(True, 0, 1))
        assert not store.has(question(2).digest)
        assert store.has(question(1).digest)
        assert store.spent() == Spent(7, 4, 0, 0)


@pytest.mark.parametrize(
    ("kind", "change"),
    [("exchange", (b'"attempts":1', b'"attempts":2')), ("reservation", (b'"nusd":100', b'"nusd":900')),
     ("body", (b"sha256:", b"sha257:")), ("request", (b"}\n", b"]\n")), ("attempt", (b" attempt ", b" batch "))],
)  # fmt: skip
def test_a_damaged_line_is_told_with_its_place_when_the_index_is_built(
    tmp_path: Path, kind: str, change: tuple[bytes, bytes]
) -> None:
    with Store(tmp_path) as store:
        store.reserve(reservation(1, 1))
        put(store, 1)
        store.put_attempt(attempt(1, 2))
    path = tmp_path / "000001.seg"
    offset, lines = 0, path.read_bytes().splitlines(keepends=True)
    for at, line in enumerate(lines):
        if f" {kind} ".encode() in line:
            lines[at] = line.replace(*change)
            assert lines[at] != line
            break
        offset += len(line)
    path.write_bytes(b"".join(lines))
    if kind == "attempt":  # a digest says nothing of the kind: what a line counts as is the locator's to vouch for
        with without_index(tmp_path) as store:
            assert len(list(store.records("batch"))) == 1
        return
    with pytest.raises(StorageError, match=f"000001.seg is damaged at byte {offset}"):
        without_index(tmp_path)


@pytest.mark.parametrize("body", [b"[]", b'{"a":', b"[" * 5000, b'{"request_digest":[]}'])
def test_a_line_that_is_no_record_is_told(tmp_path: Path, body: bytes) -> None:
    line = f"{digest_bytes(body)} exchange ".encode() + body + b"\n"
    (tmp_path / "000001.seg").write_bytes(line)
    with pytest.raises(StorageError, match=r"000001\.seg is damaged at byte 0"):
        Store(tmp_path)
    with pytest.raises(StorageError, match=r"000001\.seg is damaged at byte 0") if body[-1:] != b"}" else nullcontext():
        list(segment.read(tmp_path / "000001.seg"))


def test_a_file_that_is_no_segment_is_told(tmp_path: Path) -> None:
    (tmp_path / "copy.seg").write_bytes(b"")
    with pytest.raises(StorageError, match="no segment"):
        Store(tmp_path)


def test_an_index_damaged_inside_is_told_or_built_anew(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(300):
            put(store, number)
    path = tmp_path / "index.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)  # the schema still stands
    path.write_bytes(data)
    with Store(tmp_path) as store:
        assert store.spent().settled_nusd == 2100


def test_a_locked_index_is_told_and_loses_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, 1)
        store._index._database.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            store.spent()
        put(store, 2)
        other.execute("ROLLBACK")
        other.close()
        assert store.has(question(1).digest)
        assert store.spent().settled_nusd == 14


def test_what_another_adds_while_sizes_are_taken_makes_no_segment_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index taken for one of a longer store would be emptied, and whoever sums in that moment counts too little."""
    with Store(tmp_path) as reads, Store(tmp_path) as writes, Store(tmp_path) as sums:
        put(writes, 1)
        writes.sync()
        reads.spent()
        sized, said = Path.stat, []
        reads._index._database.set_trace_callback(said.append)

        def stat(path: Path, **asked: bool) -> os.stat_result:
            before = sized(path, **asked)
            if path.suffix == ".seg" and not sums.has(question(2).digest):
                put(writes, 2)
                writes.sync()
            return before

        monkeypatch.setattr(Path, "stat", stat)
        assert reads.spent().settled_nusd in (7, 14)
        monkeypatch.undo()
        assert sums.has(question(2).digest) and not [one for one in said if one.startswith("DELETE FROM segment")]
        assert reads.spent().settled_nusd == 14


def test_sums_are_of_one_moment(tmp_path: Path) -> None:
    """A call that ends while they are read is counted as open or as ended, never as neither."""
    with Store(tmp_path) as reads, Store(tmp_path) as writes:
        writes.reserve(reservation(1, 1))
        writes.sync()
        reads.spent()

        def ends(statement: str) -> None:
            if statement.startswith("SELECT nusd, tokens FROM reservation"):
                put(writes, 1)
                writes.sync()

        reads._index._database.set_trace_callback(ends)
        during = reads._index.spent()
        reads._index._database.set_trace_callback(None)
        assert (during.settled_nusd, during.unresolved_nusd) == (0, 100)
        assert reads.spent() == Spent(7, 4, 0, 0)


def test_processes_that_open_read_and_write_at_once(tmp_path: Path) -> None:
    """Each process writes 100 answers and asks for the sums in between; all begin on an index of an older form."""
    with Store(tmp_path) as store:
        for number in range(200):
            put(store, number)
    database = sqlite3.connect(tmp_path / "index.sqlite")
    database.execute("PRAGMA user_version=2")
    database.close()
    script = """
import sys
from pathlib import Path
from tests.store.test_index import put, reservation
from tutelage.records import Usage
from tutelage.store import segment
from tutelage.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100):
    store.reserve(reservation(number, 1))
    put(store, number)
    if number % 7 == 0:
        assert store.spent().settled_nusd >= 7 * 200
store.close()
"""
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(1000 * at)]) for at in (1, 2, 3)]
    assert [one.wait() for one in running] == [0, 0, 0]
    with Store(tmp_path) as store:
        assert store.spent() == Spent(3500, 2000, 0, 0)
        assert store.known([question(2050).digest])
