"""The store: every exchange, its request and the raw body it came in, named by digest."""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from tutelage.canon import digest_bytes
from tutelage.errors import StorageError
from tutelage.records import Attempt, Exchange, Failure, Request, Reservation
from tutelage.store import segment
from tutelage.store.fold import SCANNED
from tutelage.store.index import AT_ONCE, Index, Place, Reserved, Spent

__all__ = ["Pair", "Spent", "Store", "body_record"]
_OWN_KINDS = {*SCANNED, "attempt", "failure"}  # written by methods of their own


class Pair(NamedTuple):
    """A stored exchange, its digest, and the request it answers, as plain values."""

    digest: str
    exchange: dict[str, Any]
    request: dict[str, Any]


def _pair(path: Path, file: BinaryIO, place: Place, address: str) -> Pair:
    file.seek(place.request_offset)
    request = segment.decode(file.readline(), path, place.request_offset)
    exchange = segment.decode(file.readline(), path, place.offset)
    if request.digest != address or exchange.kind != "exchange":
        raise StorageError(
            f"{path}: the line at byte {place.request_offset} is not the question of {address}",
            fix=f"delete {path.with_name('index.sqlite')}; it is built anew",
        )
    return Pair(exchange.digest, exchange.value, request.value)


def body_record(body: bytes) -> dict[str, str]:
    """A raw body as a record: as text when it is UTF-8 without lone surrogates, else in Latin-1 (one character a byte)."""
    try:
        return {"digest": digest_bytes(body), "encoding": "utf-8", "text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"digest": digest_bytes(body), "encoding": "latin-1", "text": body.decode("latin-1")}


class Store:
    """An append-only store in a folder. Reading needs no lock; the first write opens a segment of its own.

    What a method wrote is in the operating system's hands when it returns: a killed process loses nothing of it. It is
    on the disk (`fsync`) at most a second later while writing goes on, and after `sync` and `close`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = Index(folder)
        self._writer: segment.SegmentWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, request: Request, exchange: Exchange, body: bytes, note: Attempt | None = None) -> str:
        """Appends body, request and exchange in one write; returns the exchange's digest.

        `note` (an attempt of number 0, in the same write) says what may have been charged on top of the exchange's price:
        for answers that do not say their usage.
        """
        asked = _Written.of("request", request.to_json())
        if exchange.request_digest != asked.digest:
            raise ValueError(f"exchange answers {exchange.request_digest}, not {asked.digest}")
        answered = _Written.of("exchange", exchange.to_json())
        lines = [_Written.of("body", body_record(body)), asked, answered]
        if note is not None:
            if note.attempt != 0:
                raise ValueError(f"a note on an answer has number 0, not {note.attempt}")
            lines.append(_Written.of("attempt", note.to_json()))
        self._append(lines)
        return answered.digest

    def reserve(self, reservation: Reservation) -> None:
        """Appends what a call may cost, in one write, before the call is made."""
        self._append([_Written.of("reservation", reservation.to_json())])

    def put_attempt(self, attempt: Attempt, body: bytes = b"") -> None:
        """Appends a call that gave no usable answer, and what came instead, in one write; closes its reservation."""
        lines = [_Written.of("attempt", attempt.to_json())]
        if body:
            record = body_record(body)
            if record["digest"] != attempt.raw_body_digest:
                raise ValueError(f"the attempt names the body {attempt.raw_body_digest!r}, not {record['digest']}")
            lines.insert(0, _Written.of("body", record))
        self._append(lines)

    def put_failure(self, failure: Failure) -> str:
        """Appends a question that got no usable answer; returns the failure's digest."""
        return self._append([_Written.of("failure", failure.to_json())])

    def put_record(self, kind: str, value: dict[str, Any]) -> str:
        """Appends a record of another kind (small letters and hyphens); returns its digest.

        Raises `ValueError` for a kind that is none, or that has a method of its own.
        """
        if not re.fullmatch(r"[a-z-]+", kind) or kind in _OWN_KINDS:
            raise ValueError(f"{kind!r} is no kind for other records")
        return self._append([_Written.of(kind, value)])

    def has(self, address: str) -> bool:
        return self._index.has(address)

    def known(self, addresses: Sequence[str]) -> set[str]:
        """Those of the addresses that have an answer, from any process that wrote to this store until now."""
        self._index.catch_up()
        return set(self._index.find_all(addresses))

    def spent(self) -> Spent:
        """What asking cost so far, in all processes that wrote to this store: settled are exchanges and attempts;
        unresolved are reservations without either, and what attempts left open. Our own student's answers cost nothing."""
        self._index.catch_up()
        return self._index.spent()

    def reserved(self, address: str, attempt: int) -> Reserved | None:
        """What is still set aside for a call of whose end nobody knows; None when it has ended, or there was none."""
        return self._index.reserved(address, attempt)

    def get(self, address: str) -> Exchange:
        """The first answer stored under that address. Raises `StorageError` when there is none."""
        place = self._place(address)
        return Exchange.from_json(segment.read_at(self._path(place.segment), place.offset).value)

    def digest_at(self, address: str) -> str:
        """Digest of the first exchange stored under that address. Raises `StorageError` when there is none."""
        return self._place(address).digest

    def digests_at(self, addresses: Sequence[str]) -> dict[str, str]:
        """Digest of the first exchange stored under each of the addresses that have one."""
        return {address: place.digest for address, place in self._index.find_all(addresses).items()}

    def pairs(self, addresses: Iterable[str]) -> Iterator[Pair]:
        """The first exchange under each address with its request, as plain values, in order; segments stay open.

        Raises `StorageError` when there is none, or a line is damaged.
        """
        remaining = iter(addresses)
        with contextlib.ExitStack() as stack:
            files: dict[int, tuple[Path, BinaryIO]] = {}
            while asked := list(itertools.islice(remaining, AT_ONCE)):
                places = self._index.find_all(asked)
                for address in asked:
                    place = places.get(address) or self._place(address)
                    if place.segment not in files:
                        path = self._path(place.segment)
                        files[place.segment] = path, stack.enter_context(path.open("rb"))
                    yield _pair(*files[place.segment], place, address)

    def records(self, kind: str) -> Iterator[segment.Line]:
        """Every record of one kind, in the order of the segments. Only of bodies, requests, exchanges and reservations
        are the segments read whole; where any other record lies is known."""
        if kind in SCANNED:
            yield from (line for _, line in self.lines() if line.kind == kind)
            return
        self._index.catch_up()
        for number, offset in self._index.listed(kind):
            yield segment.read_at(self._path(number), offset)

    def lines(self) -> Iterator[tuple[Path, segment.Line]]:
        """Every whole record of every segment, in the order of the segments."""
        for path in segment.paths(self.folder):
            for line in segment.read(path):
                yield path, line

    def sync(self) -> None:
        """Everything appended is on the disk when this returns."""
        if self._writer is not None:
            self._writer.sync()
        self._index.flush()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        finally:
            self._index.close()

    def _append(self, lines: Sequence["_Written"]) -> str:
        writer = self._open_writer()
        added = ((line.kind, line.digest, line.value, len(line.data)) for line in lines)
        try:
            self._index.add(writer.number, writer.end, added)  # first: what it could not read back must not be written
            writer.append([line.data for line in lines])
        except BaseException:
            self._index.drop()
            raise
        self._index.flush_if_due()
        return lines[-1].digest

    def _open_writer(self) -> segment.SegmentWriter:
        if self._writer is not None and self._writer.is_full:
            full, self._writer = self._writer, segment.SegmentWriter.begin(self.folder)  # never an older segment
            full.close()
        elif self._writer is None:
            self._writer = segment.SegmentWriter.open(self.folder)
        return self._writer

    def _path(self, number: int) -> Path:
        return segment.path_of(self.folder, number)

    def _place(self, address: str) -> Place:
        place = self._index.find(address)
        if place is None:
            raise StorageError(f"no exchange under {address}", fix="run the stage that asks this question first")
        return place


class _Written(NamedTuple):
    """A record about to be appended, and its line."""

    kind: str
    digest: str
    value: dict[str, Any]
    data: bytes

    @classmethod
    def of(cls, kind: str, value: dict[str, Any]) -> Self:
        digest, data = segment.encode(kind, value)
        return cls(kind, digest, value, data)
