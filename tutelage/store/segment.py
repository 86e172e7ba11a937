"""Segment files: one line a record, `<digest> <kind> <canonical JSON>` and a newline; docs/formats.md is the contract.

A writer appends to a segment of its own, held by an advisory lock, so any number of processes can write to one store.
Each append is one `write` call: a killed process loses nothing it was told is stored. `fsync` runs at most every
`FSYNC_EVERY_S` seconds and at close: a power cut loses at most that much. A torn last line (no newline) is cut off by
the next writer; a damaged line anywhere else is an error, never skipped.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from tutelage.canon import canonical, digest_bytes
from tutelage.errors import StorageError

FSYNC_EVERY_S = 1.0


class Line(NamedTuple):
    """A stored record and the bytes its line takes (from `offset` up to `end`)."""

    offset: int
    end: int
    digest: str
    kind: str
    value: dict[str, Any]


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
        return Line(offset, offset + len(line), digest.decode(), kind.decode(), orjson.loads(body))
    except (ValueError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path} is damaged at byte {offset}: {error}",
            fix="restore the file from a copy; `tutelage verify` shows more",
        ) from error


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
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Takes the newest unlocked segment (its torn tail cut off), else begins the next one."""
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for path in sorted(folder.glob("*.seg"), reverse=True):
            number = max(number, int(path.stem))
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
            if _lock(descriptor):
                _cut_torn_tail(path, descriptor)
                return cls(path, descriptor)
            os.close(descriptor)
        while True:
            number += 1
            path = folder / f"{number:06d}.seg"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            if _lock(descriptor):
                return cls(path, descriptor)
            os.close(descriptor)

    def append(self, lines: Sequence[bytes]) -> int:
        """Appends whole lines in one write; returns the offset of the first. Raises `StorageError` on a full disk,
        with the segment cut back to whole records."""
        data = b"".join(lines)
        offset = self._size
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            os.ftruncate(self._descriptor, offset)
            raise StorageError(
                f"cannot write {len(data)} bytes to {self.path}: {error.strerror}",
                fix="free disk space and run again; everything stored so far is kept",
            ) from error
        self._size += len(data)
        if time.monotonic() - self._synced_at > FSYNC_EVERY_S:
            self.sync()
        return offset

    def sync(self) -> None:
        os.fsync(self._descriptor)
        self._synced_at = time.monotonic()

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)


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
