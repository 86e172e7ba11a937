"""Trees on disk, 256 nodes a tile: C2SP tlog-tiles for the public log, flat level files for the private trees.

Level k holds the nodes over 256^k leaves each, whole ones only. A proof reads a few hundred of them, whatever the size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from tutelage.jsonl import write_whole
from tutelage.ledger.merkle import EMPTY_ROOT, node_hash, root, split

WIDTH = 256  # nodes in a whole tile (C2SP tlog-tiles: tile height 8)
Combine = Callable[[bytes, bytes], bytes]


class Nodes(Protocol):
    """Stored nodes: `count` of them at `level`, from number `start`."""

    def read(self, level: int, start: int, count: int) -> list[bytes]: ...


def perfect(nodes: Sequence[bytes], combine: Combine = node_hash) -> bytes:
    """The node over a power of two of nodes."""
    level = list(nodes)
    while len(level) > 1:
        level = [combine(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def subtree(nodes: Nodes, start: int, end: int, combine: Combine = node_hash) -> bytes:
    """The node over leaves start … end − 1, a subtree of RFC 6962: `start` is a multiple of the power of two it begins with."""
    peaks: list[bytes] = []
    while start < end:
        width = 1 << ((end - start).bit_length() - 1)
        level, unit = 0, 1
        while unit * WIDTH <= width:
            level, unit = level + 1, unit * WIDTH
        peaks.append(perfect(nodes.read(level, start // unit, width // unit), combine))
        start += width
    node = peaks.pop()
    while peaks:
        node = combine(peaks.pop(), node)
    return node


class LevelWriter:
    """Writes a tree as flat files `0`, `1`, … in a folder; use as a context manager. Memory: one tile a level.

    Raises `OSError` when the disk is full.
    """

    def __init__(self, folder: Path, combine: Combine = node_hash) -> None:
        self.size = 0
        self._folder = folder
        self._combine = combine
        self._files: list[BinaryIO] = []
        self._open: list[list[bytes]] = []  # nodes of each level that do not fill a tile yet

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in self._folder.iterdir():
            stale.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for level in range(len(self._files)):
            self._files[level].write(b"".join(self._open[level]))
            self._files[level].close()

    def append(self, node: bytes) -> None:
        self.size += 1
        if self._open and len(rest := self._open[0]) < WIDTH - 1:
            rest.append(node)
        else:
            self._append(0, node)

    @property
    def root(self) -> bytes:
        """The root over everything appended; of nothing, SHA-256 of nothing."""
        peaks: list[
            bytes
        ] = []  # from the left: whole tiles of the highest level first, then what is left of each lower one
        for level in reversed(range(len(self._open))):
            rest = self._open[level]
            while rest:
                width = 1 << (len(rest).bit_length() - 1)
                peaks.append(perfect(rest[:width], self._combine))
                rest = rest[width:]
        if not peaks:
            return EMPTY_ROOT
        node = peaks.pop()
        while peaks:
            node = self._combine(peaks.pop(), node)
        return node

    def _append(self, level: int, node: bytes) -> None:
        if level == len(self._open):
            self._files.append((self._folder / str(level)).open("wb"))
            self._open.append([])
        rest = self._open[level]
        rest.append(node)
        if len(rest) == WIDTH:
            self._files[level].write(b"".join(rest))
            above = perfect(rest, self._combine)
            rest.clear()
            self._append(level + 1, above)


class Levels:
    """Reads what `LevelWriter` wrote."""

    def __init__(self, folder: Path, node_bytes: int = 32) -> None:
        self._folder = folder
        self._bytes = node_bytes

    @property
    def size(self) -> int:
        path = self._folder / "0"
        return path.stat().st_size // self._bytes if path.exists() else 0

    def read(self, level: int, start: int, count: int) -> list[bytes]:
        with (self._folder / str(level)).open("rb") as file:
            file.seek(start * self._bytes)
            data = file.read(count * self._bytes)
        return [data[at : at + self._bytes] for at in range(0, len(data), self._bytes)]


def tile_name(level: int, number: int, count: int) -> str:
    """`<level>/<number>[.p/<count>]` (C2SP tlog-tiles): the number in groups of three digits, all but the last behind an x."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"{level}/{path}" + ("" if count == WIDTH else f".p/{count}")


class Tiles:
    """The tiles of a public log in a folder, for a tree of `size` leaves."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size

    def read(self, level: int, start: int, count: int) -> list[bytes]:
        found: list[bytes] = []
        for number in range(start // WIDTH, (start + count - 1) // WIDTH + 1):
            held = min(WIDTH, self._size // WIDTH**level - number * WIDTH)
            data = (self._folder / tile_name(level, number, held)).read_bytes()
            found += [data[at : at + 32] for at in range(0, len(data), 32)]
        skipped = start // WIDTH * WIDTH
        return found[start - skipped : start - skipped + count]


def write_tiles(folder: Path, leaves: Sequence[bytes], kept: int) -> None:
    """The tiles of a log whose first `kept` leaves are on disk already; partial tiles that were outgrown are removed."""
    nodes, level = list(leaves), 0
    while nodes:
        for number in range(kept // WIDTH, -(-len(nodes) // WIDTH)):
            tile = nodes[number * WIDTH : (number + 1) * WIDTH]
            path = folder / tile_name(level, number, len(tile))
            write_whole(path, b"".join(tile))
            partial = folder / (tile_name(level, number, WIDTH) + ".p")
            for stale in partial.iterdir() if partial.is_dir() else ():
                if stale != path:
                    stale.unlink()
        whole = len(nodes) // WIDTH
        nodes = [root(nodes[at * WIDTH : (at + 1) * WIDTH]) for at in range(whole)]
        kept, level = kept // WIDTH, level + 1


def leaf_under(nodes: Nodes, size: int, place: int, value: Callable[[bytes], int], combine: Combine) -> int:
    """Number of the leaf on which `place` falls when leaves are laid end to end, each as long as its `value`."""
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        left = value(subtree(nodes, start, middle, combine))
        if place < left:
            end = middle
        else:
            start, place = middle, place - left
    return start
