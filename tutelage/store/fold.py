"""What the lines of a segment say to the index: where each answer lies, and what was spent. No database here.

A reservation is closed by what came of its call: the `attempt` of the same request and number, or the `exchange` of that
request whose `attempts` is that number. When a request was reserved more than once under one number (a process was
killed, and the next began anew), the newest before the closing line is meant; the older ones stay open, for they may
have been charged. An `attempt` of number 0 closes nothing: it notes what may have come on top of a stored answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.records import Origin
from tutelage.store.segment import damaged, decode

OURS = "tutelage"  # provider of our own student: it costs nothing and is never reserved for
SCANNED = ("body", "request", "exchange", "reservation")  # kinds whose lines are not listed one by one
_SLICE_LINES = 20_000
_SLICE_BYTES = 64 << 20

Call = tuple[bytes, int]  # a request's address, and the number of the attempt


def key_of(digest: str) -> bytes:
    """The 32 bytes of a tagged digest. Raises `ValueError` when it is none."""
    try:
        key = bytes.fromhex(digest[7:])
    except ValueError:
        key = b""
    if len(key) != 32 or len(digest) != 71 or not digest.startswith("sha256:"):
        raise ValueError(f"{digest[:80]!r} is no SHA-256 digest")
    return key


@dataclass(slots=True)
class Piece:
    """What some lines in a row of one segment add to the index, from byte `start` to byte `end`."""

    segment: int
    start: int
    end: int = field(init=False)
    request_at: int = field(init=False)
    taken: int = 0
    nusd: int = 0
    tokens: int = 0
    open_nusd: int = 0
    open_tokens: int = 0
    answers: dict[bytes, tuple[bytes, int, int]] = field(default_factory=dict)  # digest, offset of the request, own
    listed: list[tuple[str, int]] = field(default_factory=list)  # kind and offset
    reserved: dict[Call, list[tuple[int, int, int]]] = field(default_factory=dict)  # open: offset, nano-USD, tokens
    closed: list[tuple[bytes, int, int]] = field(default_factory=list)  # call and offset; reserved before `start`

    def __post_init__(self) -> None:
        self.end = self.request_at = self.start

    def take(self, kind: str, digest: str, value: Mapping[str, Any], offset: int, end: int) -> None:
        """Adds the line at `offset`. Raises `KeyError`, `TypeError` or `ValueError` when the record has not its fields."""
        if kind == "request":
            self.request_at = offset
        if kind in ("request", "body"):
            return  # parts of what follows: a piece never ends between them
        if kind == "exchange":
            self._exchange(digest, value, offset)
        elif kind == "reservation":
            call = key_of(value["request_digest"]), _integer(value["attempt"])
            self.reserved.setdefault(call, []).append((offset, _integer(value["nusd"]), _integer(value["tokens"])))
        elif kind == "attempt":
            self.nusd += _integer(value["nusd"])
            self.tokens += _integer(value["tokens"])
            self.open_nusd += _integer(value["open_nusd"])
            self.open_tokens += _integer(value["open_tokens"])
            if value["attempt"] != 0:
                self._close(key_of(value["request_digest"]), value["attempt"], offset)
        if kind not in SCANNED:
            self.listed.append((kind, offset))
        self.end = end
        self.taken += 1

    def _exchange(self, digest: str, value: Mapping[str, Any], offset: int) -> None:
        address = key_of(value["request_digest"])
        self.answers.setdefault(address, (key_of(digest), self.request_at, offset))
        if value["origin"] == Origin.ASKED.value and value["model"]["provider"] != OURS:
            usage = value["usage"]
            self.nusd += _integer(value["price"]["cost_nusd"])
            self.tokens += _integer(usage["prompt_tokens"]) + _integer(usage["completion_tokens"])
            self._close(address, value["attempts"], offset)

    def _close(self, request: bytes, attempt: int, offset: int) -> None:
        call = request, _integer(attempt)
        open_ = self.reserved.get(call)
        if not open_:
            self.closed.append((*call, offset))
            return
        open_.pop()
        if not open_:
            del self.reserved[call]


def read_piece(path: Path, segment: int, start: int, stop: int) -> Piece:
    """What the whole lines from byte `start`, and not beyond `stop`, add; at most a slice of them, to bound memory.

    Lines that count (answers, attempts, reservations, other records) are held against their digest. Bodies and questions
    are only looked at from outside: they are checked whenever they are read. Raises `StorageError` for a damaged line.
    """
    piece = Piece(segment, start)
    with path.open("rb", buffering=1 << 20) as file:
        file.seek(start)
        offset = start
        for line in file:
            end = offset + len(line)
            if end > stop or line[-1] != 0x0A:
                break
            if line.startswith((b" body {", b" request {"), 71):
                if not line.startswith(b"sha256:") or line[-2] != 0x7D:
                    raise damaged(path, offset, "no record")
                if line[72] == 0x72:
                    piece.request_at = offset
            else:
                found = decode(line, path, offset)
                try:
                    piece.take(found.kind, found.digest, found.value, offset, end)
                except (KeyError, TypeError, ValueError) as error:
                    raise damaged(path, offset, f"{type(error).__name__} {error}") from error
                if piece.taken >= _SLICE_LINES or end - start >= _SLICE_BYTES:
                    break
            offset = end
    return piece


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no integer")
    return value
