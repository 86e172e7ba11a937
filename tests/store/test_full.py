"""A disk that is full: told, nothing torn, and the same store goes on when there is room again."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.test_index import agrees, put, reservation, without_index
from tests.store.test_store import question
from tutelage.errors import StorageError
from tutelage.store.segment import SegmentWriter, encode, read
from tutelage.store.store import Store


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(store: Store, start: int) -> int:
    """Reserves and answers until the disk is full; the number of the question that met it."""
    for number in range(start, start + 5000):
        try:
            store.reserve(reservation(number, 1))
            put(store, number)
        except StorageError as error:
            assert "free disk space" in error.fix
            return number
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("reopened", [False, True], ids=["goes on", "reopened"])
def test_a_full_disk_and_room_again(disk: Path, reopened: bool) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    folder = disk / "store"
    store = Store(folder)
    last = fill(store, 0)
    acknowledged = range(last)
    later = fill(store, 10_000)  # still full: every further try is told and changes nothing
    asked = [*range(last + 1), *range(10_000, later + 1), 20_000]
    if reopened:
        store.close()
    ballast.unlink()
    if reopened:
        store = Store(folder)
    assert len(store.known([question(number).digest for number in acknowledged])) == last
    agrees(store, folder, asked)
    put(store, 20_000)
    assert store.has(question(20_000).digest)
    agrees(store, folder, asked)
    store.close()
    with without_index(folder) as store:
        agrees(store, folder, asked)


def test_the_index_has_no_room_but_the_answer_has(disk: Path) -> None:
    with Store(disk / "store") as store:
        put(store, 0)
        store.sync()
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 4096))
        for number in range(1, 4):
            put(store, number)  # in one page
        with pytest.raises(StorageError, match="index"):
            store.spent()
        with pytest.raises(StorageError, match="index"):
            store.has(question(3).digest)  # it must be read from the segment: no wrong answer instead
        (disk / "ballast").unlink()
        assert store.has(question(3).digest)
        agrees(store, disk / "store")


def test_a_segment_that_cannot_even_be_cut_is_cut_before_anything_follows(tmp_path: Path) -> None:
    writer = SegmentWriter.begin(tmp_path)
    _, line = encode("failure", {"number": 1})
    writer.append([line])
    good = os.dup(writer._descriptor)
    bad = os.open(writer.path, os.O_RDONLY)
    os.dup2(bad, writer._descriptor)  # neither written nor cut
    with pytest.raises(StorageError, match="cannot cut"):
        writer.append([line])
    os.write(good, line[:40])  # what a full disk had taken of it
    with pytest.raises(StorageError, match="cannot cut"):
        writer.append([line])
    os.dup2(good, writer._descriptor)
    assert writer.end == len(line)
    assert writer.append([line, line]) == len(line)
    writer.close()
    assert len(list(read(writer.path))) == 3


def test_a_disk_that_fails_while_syncing_is_told(tmp_path: Path) -> None:
    writer = SegmentWriter.begin(tmp_path)
    reading, writing = os.pipe()
    os.dup2(writing, writer._descriptor)  # what a pipe is asked to do, it refuses
    with pytest.raises(StorageError, match=os.strerror(errno.EINVAL)):
        writer.sync()
    os.close(reading)
    os.close(writing)


def test_kills_lose_no_reservation(tmp_path: Path) -> None:
    """A process is killed again and again between writing that it will call and writing what came."""
    script = """
import sys
from pathlib import Path
from tests.store.test_index import put, reservation
from tutelage.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    if not store.has(reservation(number, 1).request_digest):
        store.reserve(reservation(number, 1))
        print("reserved", flush=True)
        put(store, number)
        print("stored", flush=True)
"""
    reserved = stored = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(stored)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(39):
                word = process.stdout.readline().strip()
                reserved += word == "reserved"
                stored += word == "stored"
            process.kill()
            rest = process.stdout.read().split("\n")[:-1]
            reserved += rest.count("reserved")
            stored += rest.count("stored")
        with Store(tmp_path) as store:
            spent = store.spent()
            assert spent.settled_nusd % 7 == spent.unresolved_nusd % 100 == 0
            answers, open_ = spent.settled_nusd // 7, spent.unresolved_nusd // 100
            assert stored <= answers <= stored + 1  # one may be in the store without having been told
            assert reserved <= answers + open_ <= reserved + 1
            reserved, stored = answers + open_, answers
