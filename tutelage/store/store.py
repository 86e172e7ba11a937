"""The store: every exchange, its request and the raw body it came in, named by digest."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from tutelage.canon import digest_bytes
from tutelage.errors import StorageError
from tutelage.records import Exchange, Failure, Request
from tutelage.store import segment
from tutelage.store.index import AT_ONCE, Index, Place


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
    """An append-only store in a folder. Reading needs no lock; the first write opens a segment of its own."""

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

    def put(self, request: Request, exchange: Exchange, body: bytes) -> str:
        """Appends body, request and exchange in one write; returns the exchange's digest."""
        if exchange.request_digest != request.digest:
            raise ValueError(f"exchange answers {exchange.request_digest}, not {request.digest}")
        _, body_line = segment.encode("body", body_record(body))
        _, request_line = segment.encode("request", request.to_json())
        digest, exchange_line = segment.encode("exchange", exchange.to_json())
        writer = self._open_writer()
        offset = writer.append([body_line, request_line, exchange_line])
        request_at = offset + len(body_line)
        place = Place(digest, writer.path.name, request_at, request_at + len(request_line))
        self._index.add(exchange.request_digest, place, place.offset + len(exchange_line))
        return digest

    def put_failure(self, failure: Failure) -> str:
        digest, line = segment.encode("failure", failure.to_json())
        self._open_writer().append([line])
        return digest

    def has(self, address: str) -> bool:
        return self._index.find(address) is not None

    def get(self, address: str) -> Exchange:
        """The first answer stored under that address. Raises `StorageError` when there is none."""
        return Exchange.from_json(self._line(address).value)

    def digest_at(self, address: str) -> str:
        """Digest of the first exchange stored under that address. Raises `StorageError` when there is none."""
        return self._place(address).digest

    def pairs(self, addresses: Iterable[str]) -> Iterator[Pair]:
        """The first exchange under each address with its request, as plain values, in order; segments stay open.

        Raises `StorageError` when there is none, or a line is damaged.
        """
        remaining = iter(addresses)
        with contextlib.ExitStack() as stack:
            files: dict[str, tuple[Path, BinaryIO]] = {}
            while asked := list(itertools.islice(remaining, AT_ONCE)):
                places = self._index.find_all(asked)
                for address in asked:
                    place = places.get(address) or self._place(address)
                    if place.segment not in files:
                        path = self.folder / place.segment
                        files[place.segment] = path, stack.enter_context(path.open("rb"))
                    yield _pair(*files[place.segment], place, address)

    def lines(self) -> Iterator[tuple[Path, segment.Line]]:
        """Every whole record of every segment, in the order of the segments."""
        for path in sorted(self.folder.glob("*.seg")):
            for line in segment.read(path):
                yield path, line

    def sync(self) -> None:
        if self._writer is not None:
            self._writer.sync()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._index.close()

    def _open_writer(self) -> segment.SegmentWriter:
        if self._writer is None:
            self._writer = segment.SegmentWriter.open(self.folder)
            self._index.catch_up()  # another writer may have left records, or a torn tail was cut
        return self._writer

    def _place(self, address: str) -> Place:
        place = self._index.find(address)
        if place is None:
            raise StorageError(f"no exchange under {address}", fix="run the stage that asks this question first")
        return place

    def _line(self, address: str) -> segment.Line:
        place = self._place(address)
        return segment.read_at(self.folder / place.segment, place.offset)
