"""Segment files: one line a record, `<digest> <kind> <canonical JSON>` and a newline; docs/formats.md is the contract.

A writer appends to a segment of its own, held by an advisory lock, so any number of processes can write to one store.
Each append is one `write` call: a killed process loses nothing it was told is stored. `fsync` runs at most every
`FSYNC_EVERY_S` seconds and at close: a power cut loses at most that much. A torn last line (no newline) is cut off by
the next writer; a damaged line anywhere else is an error, never skipped. A segment of `LIMIT` bytes is full: its writer
goes on in a new one.
"""

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import StorageError

FSYNC_EVERY_S = 1.0
LIMIT = 1 << 30  # bytes; the write that reaches it is the last
_FREE_SPACE = "free disk space and run again; everything stored so far is kept"


class Line(NamedTuple):
    """A stored record and the bytes its line takes (from `offset` up to `end`)."""

    offset: int
    end: int
    digest: str
    kind: str
    value: dict[str, Any]


def paths(folder: Path) -> list[Path]:
    """The segments of a store, oldest first."""
    return sorted(folder.glob("*.seg"), key=number_of)


def number_of(path: Path) -> int:
    """The number in a segment's name. Raises `StorageError` when there is none."""
    if not re.fullmatch(r"[0-9]{6,}", path.stem):
        raise StorageError(f"{path} is no segment: its name is not its number", fix="move it out of the store")
    return int(path.stem)


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.seg"


def encode(kind: str, value: dict[str, Any]) -> tuple[str, bytes]:
    """The record's digest and its line."""
    body = canonical(value)
    digest = digest_bytes(body)
    return digest, b"%s %s %s\n" % (digest.encode(), kind.encode(), body)


def decode(line: bytes, path: Path, offset: int) -> Line:
    """Raises `StorageError` with file and byte offset when the line is not what its digest says."""
    try:
        digest, kind, body = line.rstrip(b"\n").split(b" ", 2)
        if digest_bytes(body) != digest.decode():
            raise ValueError("the digest differs")
        value = orjson.loads(body)
        if not isinstance(value, dict):
            raise ValueError("no JSON object")
        return Line(offset, offset + len(line), digest.decode(), kind.decode(), value)
    except ValueError as error:
        raise damaged(path, offset, error) from error


def damaged(path: Path, offset: int, why: object) -> StorageError:
    return StorageError(
        f"{path} is damaged at byte {offset}: {why}", fix="restore the file from a copy; `tutelage verify` shows more"
    )


def read(path: Path, start: int = 0) -> Iterator[Line]:
    """The whole records of a segment from byte `start`; a torn last line is left out."""
    with path.open("rb") as file:
        file.seek(start)
        offset = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            found = decode(line, path, offset)
            yield found
            offset = found.end


def read_at(path: Path, offset: int) -> Line:
    """The record whose line begins at that byte."""
    with path.open("rb") as file:
        file.seek(offset)
        return decode(file.readline(), path, offset)


class SegmentWriter:
    """Appends to one segment file that no other writer holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.number = number_of(path)
        self._descriptor = descriptor
        self.is_full = False
        self._torn_at: int | None = None
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Takes the newest segment that is neither locked nor full (its torn tail cut off), else begins the next one."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(paths(folder)):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
            if os.fstat(descriptor).st_size < LIMIT and _lock(descriptor):
                _cut_torn_tail(path, descriptor)
                return cls(path, descriptor)
            os.close(descriptor)
        return cls.begin(folder)

    @classmethod
    def begin(cls, folder: Path) -> Self:
        """Begins a segment after all there are."""
        number = max(map(number_of, folder.glob("*.seg")), default=0)
        while True:
            number += 1
            path = path_of(folder, number)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            except OSError as error:
                raise StorageError(f"cannot begin {path}: {error.strerror}", fix=_FREE_SPACE) from error
            if _lock(descriptor):
                return cls(path, descriptor)
            os.close(descriptor)

    @property
    def end(self) -> int:
        """Where the next line begins. Asked of the system: an interrupt may fall between a write and any note of it."""
        return os.fstat(self._descriptor).st_size if self._torn_at is None else self._torn_at

    def append(self, lines: Sequence[bytes]) -> int:
        """Appends whole lines in one write; returns the offset of the first. Raises `StorageError` on a full disk,
        with the segment cut back to whole records (if even that fails, before anything else is appended)."""
        data = b"".join(lines)
        if self._torn_at is not None:
            self._cut(self._torn_at)
        offset = self.end
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._cut(offset)
            raise StorageError(
                f"cannot write {len(data)} bytes to {self.path}: {error.strerror}", fix=_FREE_SPACE
            ) from error
        self.is_full = offset + len(data) >= LIMIT
        if time.monotonic() - self._synced_at > FSYNC_EVERY_S:
            self.sync()
        return offset

    def sync(self) -> None:
        """Raises `StorageError` when the disk does not take what was written."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path} to disk: {error.strerror}", fix=_FREE_SPACE) from error
        self._synced_at = time.monotonic()

    def close(self) -> None:
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def _cut(self, offset: int) -> None:
        self._torn_at = offset
        try:
            os.ftruncate(self._descriptor, offset)
        except OSError as error:
            raise StorageError(f"cannot cut {self.path} at byte {offset}: {error.strerror}", fix=_FREE_SPACE) from error
        self._torn_at = None


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _cut_torn_tail(path: Path, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    whole = size
    with path.open("rb") as file:
        while whole > 0:
            start = max(0, whole - 65536)
            file.seek(start)
            block = file.read(whole - start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
    if whole != size:
        os.ftruncate(descriptor, whole)
