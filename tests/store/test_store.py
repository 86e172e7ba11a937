import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_records import REQUEST, exchange
from tutelage.canon import digest_bytes
from tutelage.errors import StorageError
from tutelage.records import Exchange, Failure, Message, Request
from tutelage.store import segment
from tutelage.store.store import Store

WRITER = """
import sys
from pathlib import Path
from tests.store.test_store import answer, question
from tutelage.store.store import Store
store = Store(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    store.put(*answer(number))
    print(number, flush=True)
"""


def question(number: int) -> Request:
    return Request((Message("user", f"question {number}"),), {}, "m", "embedded", "train", 0)


def answer(number: int) -> tuple[Request, Exchange, bytes]:
    body = b'{"answer": %d}' % number
    request = question(number)
    one = exchange(request, f"answer {number}")
    return request, Exchange.from_json({**one.to_json(), "raw_body_digest": digest_bytes(body)}), body


def test_put_and_get(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        digest = store.put(*answer(1))
        assert store.has(question(1).digest)
        assert not store.has(question(2).digest)
        assert store.get(question(1).digest).digest == digest == store.digest_at(question(1).digest)
    with Store(tmp_path) as again:
        assert again.get(question(1).digest).answer == "answer 1"


def test_an_answer_belongs_to_its_question(tmp_path: Path) -> None:
    _, one, body = answer(1)
    with Store(tmp_path) as store, pytest.raises(ValueError, match="not"):
        store.put(question(2), one, body)


def test_bodies_that_are_not_text_are_kept_byte_for_byte(tmp_path: Path) -> None:
    body = bytes(range(256))
    with Store(tmp_path) as store:
        one = Exchange.from_json({**exchange().to_json(), "raw_body_digest": digest_bytes(body)})
        store.put(REQUEST, one, body)
        record = next(line.value for _, line in store.lines() if line.kind == "body")
    assert record["text"].encode(record["encoding"]) == body


def test_the_index_can_be_lost_or_damaged(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(20):
            store.put(*answer(number))
    (tmp_path / "index.sqlite").write_bytes(b"this is no database at all, " * 40)
    with Store(tmp_path) as store:
        assert all(store.get(question(number).digest).answer == f"answer {number}" for number in range(20))
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    with Store(tmp_path) as store:
        assert store.get(question(7).digest).answer == "answer 7"


@pytest.mark.parametrize("cut", [1, 7, 400])
def test_a_torn_tail_is_cut_off_and_written_over(tmp_path: Path, cut: int) -> None:
    with Store(tmp_path) as store:
        store.put(*answer(1))
        size = (tmp_path / "000001.seg").stat().st_size
        store.put(*answer(2))
    with (tmp_path / "000001.seg").open("r+b") as file:
        file.truncate(size + cut)
    (tmp_path / "index.sqlite").unlink()
    with Store(tmp_path) as store:
        assert store.has(question(1).digest)
        assert not store.has(question(2).digest)
        store.put(*answer(2))
        store.put(*answer(3))
        assert [line.kind for _, line in store.lines()].count("exchange") == 3


def test_damage_in_the_middle_is_an_error_with_its_place(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(*answer(1))
        store.put(*answer(2))
    data = bytearray((tmp_path / "000001.seg").read_bytes())
    data[200] ^= 1
    (tmp_path / "000001.seg").write_bytes(data)
    with pytest.raises(StorageError, match=r"000001.seg is damaged at byte \d+"):
        list(segment.read(tmp_path / "000001.seg"))


def test_two_writers_share_a_store(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        first.put(*answer(1))
        second.put(*answer(2))
        first.put(*answer(3))
    assert len(list(tmp_path.glob("*.seg"))) == 2
    with Store(tmp_path) as store:
        assert all(store.has(question(number).digest) for number in (1, 2, 3))


def test_trap_e3_sigkill_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(acknowledged + 1)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(25):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        acknowledged = int(rest[-1]) if rest and rest[-1].isdigit() else acknowledged
        writer.wait()
        with Store(tmp_path) as store:
            assert all(store.get(question(number).digest).answer for number in range(acknowledged + 1))
            while store.has(question(acknowledged + 1).digest):  # written, but killed before it could say so
                acknowledged += 1


def test_a_full_disk_is_told_and_leaves_whole_records(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: both make `write` come up short."""
    script = f"""
import resource, signal
from pathlib import Path
from tests.store.test_store import answer
from tutelage.errors import StorageError
from tutelage.store.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path({str(tmp_path)!r}))
store.put(*answer(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try:
    for number in range(1, 100):
        store.put(*answer(number))
except StorageError as error:
    print(error.fix)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "free disk space" in done.stdout
    with Store(tmp_path) as store:
        kinds = [line.kind for _, line in store.lines()]
        assert kinds.count("exchange") == kinds.count("body") >= 1
        store.put(*answer(500))


def test_failures_are_kept_and_are_no_answers(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_failure(Failure(question(1).digest, "HTTP 500", 6, "2026-01-01T00:00:00Z", False))
        assert not store.has(question(1).digest)
        assert [line.kind for _, line in store.lines()] == ["failure"]


def test_missing_answer_is_an_error(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(StorageError, match="no exchange"):
        store.get(question(1).digest)


def test_segments_are_private(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(*answer(1))
    assert (tmp_path / "000001.seg").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("rebuilt", [False, True], ids=["as written", "index rebuilt"])
def test_pairs_come_in_the_order_asked_with_their_questions(tmp_path: Path, rebuilt: bool) -> None:
    with Store(tmp_path) as store:
        for number in range(1200):  # more than one question to the index
            store.put(*answer(number))
    if rebuilt:
        (tmp_path / "index.sqlite").unlink()
    order = [*range(1199, -1, -3), 0, 5, 5]
    with Store(tmp_path) as store:
        pairs = list(store.pairs(question(number).digest for number in order))
        assert [pair.exchange["answer"] for pair in pairs] == [f"answer {number}" for number in order]
        assert [pair.request["messages"][0]["content"] for pair in pairs] == [f"question {number}" for number in order]
        assert pairs[0].digest == store.digest_at(question(1199).digest)
        with pytest.raises(StorageError, match="no exchange"):
            list(store.pairs([question(5000).digest]))


def test_an_index_of_an_older_form_is_built_anew(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(*answer(1))
    database = sqlite3.connect(tmp_path / "index.sqlite")
    database.execute("PRAGMA user_version=1")
    database.execute("DROP TABLE exchange")
    database.execute("CREATE TABLE exchange (address TEXT PRIMARY KEY, digest TEXT, segment TEXT, offset INTEGER)")
    database.close()
    with Store(tmp_path) as store:
        assert next(store.pairs([question(1).digest])).exchange["answer"] == "answer 1"
