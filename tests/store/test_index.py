"""The index says what the segments say, however they were written, cut, shared and read."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.store_naive import Naive
from tests.store.test_store import answer, question
from tutelage.canon import digest_bytes
from tutelage.records import Attempt, Failure, Origin, Price, Reservation
from tutelage.store import segment
from tutelage.store.fold import read_piece
from tutelage.store.store import Spent, Store

WHEN = "2026-01-01T00:00:00Z"


def reservation(number: int, attempt: int, nusd: int = 100) -> Reservation:
    return Reservation(question(number).digest, attempt, nusd, 10 * nusd, WHEN)


def attempt(number: int, nth: int, nusd: int = 0, open_nusd: int = 0, body: bytes = b"") -> Attempt:
    digest = digest_bytes(body) if body else ""
    return Attempt(question(number).digest, nth, "HTTP 500", nusd, 2 * nusd, open_nusd, 3 * open_nusd, digest, WHEN)


def put(store: Store, number: int, nth: int = 1, nusd: int = 7, note: Attempt | None = None, **changes: object) -> str:
    request, exchange, body = answer(number)
    return store.put(request, replace(exchange, attempts=nth, price=Price(nusd, "list", WHEN), **changes), body, note)


def agrees(store: Store, folder: Path, asked: Iterable[int] = range(4)) -> None:
    """Every question the index answers is answered as a reading of all lines answers it."""
    naive = Naive(folder)
    addresses = [question(number).digest for number in asked]
    assert store.known(addresses) == {address for address in addresses if address in naive.answers}
    assert {one: store.digest_at(one) for one in addresses if store.has(one)} == naive.answers
    assert store.spent() == Spent(*naive.settled, *naive.unresolved)
    for kind in ("attempt", "failure", "batch"):
        assert [line.digest for line in store.records(kind)] == naive.listed[kind]


def kill(store: Store) -> None:
    """What SIGKILL leaves of a store: locks are released, what waited in memory is gone."""
    store._index._waiting = None
    store._index._database.close()
    if store._writer is not None:
        os.close(store._writer._descriptor)


def without_index(folder: Path) -> Store:
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    return Store(folder)


@pytest.fixture
def small_segments() -> Iterator[None]:
    limit, segment.LIMIT = segment.LIMIT, 9000
    yield
    segment.LIMIT = limit


numbers, attempts = st.integers(0, 3), st.integers(1, 2)
steps = st.one_of(
    st.tuples(st.just("reserve"), numbers, st.integers(0, 2), st.integers(1, 9)),
    st.tuples(st.just("put"), numbers, attempts, st.integers(0, 9)),
    st.tuples(st.just("attempt"), numbers, st.integers(0, 2), st.integers(0, 9)),
    st.tuples(st.just("ours"), numbers, attempts, st.integers(0, 9)),
    st.tuples(st.just("other"), numbers, attempts, st.integers(0, 9)),
    st.tuples(st.sampled_from(["look", "kill", "kill torn", "lose"]), numbers, attempts, st.integers(0, 9)),
)


def step(store: Store, what: str, number: int, nth: int, amount: int) -> None:
    if what == "reserve":
        store.reserve(reservation(number, nth, amount))
    elif what == "put":
        put(store, number, nth, amount, attempt(number, 0, 0, amount) if amount > 7 else None)
    elif what == "attempt":
        store.put_attempt(attempt(number, nth, amount, amount // 2, b"{" * amount), b"{" * amount)
    elif what == "ours":
        put(store, number, nth, amount, origin=Origin.CAPTURED)
    elif what == "other":
        store.put_record("batch", {"number": number, "amount": amount})
        store.put_failure(Failure(question(number).digest, "refused", nth, WHEN, True))


@pytest.mark.usefixtures("small_segments")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), steps), max_size=30), st.integers(0, 2**20))
def test_any_interleaving_gives_what_a_reading_of_all_lines_gives(order: list, cut: int) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        stores = [Store(folder), Store(folder)]
        for who, (what, *rest) in order:
            if what == "look":
                agrees(stores[who], folder)
            elif what == "lose":
                stores[who].spent()
                stores[who]._index.drop()
            elif what.startswith("kill"):
                writer = stores[who]._writer
                kill(stores[who])
                if writer is not None and what == "kill torn":  # in the middle of a write: whole lines, then half a one
                    with writer.path.open("ab") as file:
                        file.write((b"".join(_written(9)) * 2)[: cut % 2000])
                stores[who] = Store(folder)
            else:
                step(stores[who], what, *rest)
        for store in stores:
            agrees(store, folder)
            store.close()
        with Store(folder) as store:
            agrees(store, folder)
        with without_index(folder) as store:
            agrees(store, folder)
        if found := segment.paths(folder):  # a power cut: a segment ends anywhere, the index knew more
            path = found[cut % len(found)]
            os.truncate(path, cut % (path.stat().st_size + 1))
            with Store(folder) as store:
                agrees(store, folder)
                put(store, 1)
                agrees(store, folder)
    finally:
        shutil.rmtree(folder)


def _written(number: int) -> list[bytes]:
    """The first two lines of an answer's write: they never count without the third."""
    request, _, _ = answer(number)
    body = {"digest": digest_bytes(b"x"), "encoding": "utf-8", "text": "x"}
    return [segment.encode("body", body)[1], segment.encode("request", request.to_json())[1]]


def test_money(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.reserve(reservation(1, 1))
        assert store.spent() == Spent(0, 0, 100, 1000)
        store.put_attempt(attempt(1, 1, 5, 20, b"half"), b"half")
        assert store.spent() == Spent(5, 10, 20, 60)
        assert [line.kind for _, line in store.lines()] == ["reservation", "body", "attempt"]
        store.reserve(reservation(1, 2))
        put(store, 1, 2)
        assert store.spent() == Spent(12, 14, 20, 60)
        put(store, 2, model=replace(answer(2)[1].model, provider="tutelage"))  # our own student
        put(store, 2, origin=Origin.IMPORTED)
        assert store.spent() == Spent(12, 14, 20, 60)


def test_a_killed_call_stays_open_when_the_next_process_repeats_its_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.reserve(reservation(1, 1))
    kill(store)
    with Store(tmp_path) as store:
        store.reserve(reservation(1, 1, 70))
        assert store.spent() == Spent(0, 0, 170, 1700)
        put(store, 1)  # closes the newest, which waits no longer
        assert store.spent() == Spent(7, 4, 100, 1000)
    with without_index(tmp_path) as store:
        assert store.spent() == Spent(7, 4, 100, 1000)


def test_an_answer_without_usage_leaves_its_call_open_and_closes_no_other(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.reserve(reservation(1, 1))
        store.reserve(reservation(1, 1))
        put(store, 1, 1, 0, note=attempt(1, 0, 0, 100))
        assert store.spent() == Spent(0, 4, 200, 1300)
        store.reserve(reservation(1, 0))
        store.put_attempt(attempt(1, 0))
        assert store.spent() == Spent(0, 4, 300, 2300)
        with pytest.raises(ValueError, match="number 0"):
            put(store, 2, 1, 0, note=attempt(2, 1, 0, 100))
        assert not store.has(question(2).digest)


@pytest.mark.usefixtures("small_segments")
def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    with Store(tmp_path) as other, Store(tmp_path) as store:
        put(other, 0)
        for number in range(1, 30):
            store.reserve(reservation(number, 1))
        for number in range(1, 30):  # each closes a reservation in an earlier segment
            put(store, number)
        assert store.spent() == Spent(210, 120, 0, 0)
        sizes = [path.stat().st_size for path in segment.paths(tmp_path)]
        assert len(sizes) > 4
        assert max(sizes) < 9000 + 2000
    with without_index(tmp_path) as store:
        assert store.spent() == Spent(210, 120, 0, 0)
        assert len(store.known([question(number).digest for number in range(40)])) == 30
        assert store._open_writer().path.stat().st_size < 9000


@pytest.mark.usefixtures("small_segments")
def test_a_full_segment_is_not_taken_up_again(tmp_path: Path) -> None:
    for number in range(3):
        with Store(tmp_path) as store:
            put(store, number, answer="long " * 3000)
    assert [path.name for path in segment.paths(tmp_path)] == ["000001.seg", "000002.seg", "000003.seg"]


@pytest.mark.usefixtures("small_segments")
def test_a_writer_goes_on_in_a_later_segment_never_in_an_older_one(tmp_path: Path) -> None:
    """Else a call could be closed in an older segment than it was reserved in, and stay open."""
    with Store(tmp_path) as second:
        with Store(tmp_path) as first:
            put(first, 1)
            second.reserve(reservation(2, 1))
            put(second, 3, answer="long " * 3000)
        put(second, 2)  # the first segment is free by now, and has room
        assert second.spent().unresolved_nusd == 0
        assert len(segment.paths(tmp_path)) == 3


@pytest.mark.usefixtures("small_segments")
def test_a_call_closed_in_a_later_segment_is_the_newest_of_its_number(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.reserve(reservation(1, 1, 100))
        store.reserve(reservation(1, 1, 70))
        for number in range(2, 9):
            put(store, number, nusd=0, answer="long " * 200)
        assert len(segment.paths(tmp_path)) > 1
        put(store, 1)
        assert store.spent().unresolved_nusd == 100
        put(store, 1)
        assert store.spent().unresolved_nusd == 0


def test_an_answer_closes_no_call_of_a_later_segment(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        put(first, 1)
        second.reserve(reservation(1, 1))
        assert second.spent() == Spent(7, 4, 100, 1000)


def test_a_segment_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        put(first, 1)
        put(second, 2)
    (tmp_path / "000001.seg").unlink()
    with Store(tmp_path) as store:
        assert store.known([question(1).digest, question(2).digest]) == {question(2).digest}
        assert store.spent().settled_nusd == 7


def test_the_first_answer_is_the_same_whoever_read_it_first(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        put(first, 0)
        second_digest = put(second, 1, nusd=8)
        assert second.digest_at(question(1).digest) == second_digest
        first_digest = put(first, 1, nusd=9)  # in the lower segment
        assert first.digest_at(question(1).digest) == first_digest
    with Store(tmp_path) as store, without_index(tmp_path) as anew:
        assert store.digest_at(question(1).digest) == anew.digest_at(question(1).digest) == first_digest


def test_what_waits_in_memory_is_not_counted_twice_when_another_process_reads_it(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, 1)
        assert store._index._waiting is not None
        with Store(tmp_path) as other:
            assert other.spent().settled_nusd == 7
            put(store, 2)
            assert other.spent().settled_nusd == 14
            assert other.known([question(2).digest])
        put(store, 3)
        assert store.has(question(3).digest)
        assert store.spent().settled_nusd == 21
    with Store(tmp_path) as store:
        assert store.spent().settled_nusd == 21


def test_an_answer_read_while_it_is_being_written_is_read_whole_later(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, 1)
    path = tmp_path / "000001.seg"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    with without_index(tmp_path) as store:
        assert not store.known([question(1).digest])
        with path.open("ab") as file:
            file.write(lines[2][9:])
        assert store.known([question(1).digest])
        assert next(store.pairs([question(1).digest])).request == question(1).to_json()


def test_a_segment_is_not_read_beyond_the_size_it_had(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, 1)
        size = (tmp_path / "000001.seg").stat().st_size
        put(store, 2)
    assert read_piece(tmp_path / "000001.seg", 1, 0, size).end == size
    assert len(read_piece(tmp_path / "000001.seg", 1, 0, 2 * size).answers) == 2


def test_thousands_of_other_records_come_in_order(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(2100):
            store.put_record("batch", {"number": number})
        assert [line.value["number"] for line in store.records("batch")] == list(range(2100))
        assert not list(store.records("probe"))
        put(store, 1)
        assert [line.kind for line in store.records("request")] == ["request"]


def test_many_addresses_and_what_is_no_address(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(1200):
            put(store, number)
        asked = [question(number).digest for number in range(600, 1800)]
        assert store.known([*asked, "", "sha256:", "sha256:zz", "md5:" + 64 * "0", asked[0] + "00"]) == set(asked[:600])
        assert not store.has("sha256:zz")
