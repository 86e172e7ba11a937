"""The locator: where a file differs, not only that it does. No part of any proof; `ledger.verify` uses it to point.

For each block of a file it keeps a hash, the sum of the bytes, and the sum of each byte times its place (from 1). Where one
byte of a block changed, the change of both sums tells which and from what: the place is their ratio, and the file's own
digest in the record confirms it. The last line is the digest of the lines before, so that damage to the locator itself
is known as such.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tutelage.canon import canonical, digest_bytes
from tutelage.jsonl import write_whole

LOCATOR = "ledger/locator.jsonl"
SMALL_BLOCK, LARGE_BLOCK, LARGE_FILE = 4096, 1 << 20, 1 << 24  # bytes


def write_locator(run: Path, names: Iterable[str]) -> None:
    """One line a file, in the order given: name, bytes, block size, and `[hash (16 hexadecimal digits), sum, weighted
    sum]` for each block."""
    lines = [canonical(_file(run, name)) for name in names]
    body = b"".join(line + b"\n" for line in lines)
    write_whole(run / LOCATOR, body + canonical({"digest": digest_bytes(body)}) + b"\n")


def _file(run: Path, name: str) -> dict[str, object]:
    size = (run / name).stat().st_size
    block = LARGE_BLOCK if size > LARGE_FILE else SMALL_BLOCK
    return {"file": name, "bytes": size, "block": block, "blocks": list(_blocks(run / name, block))}


def _blocks(path: Path, block: int) -> Iterator[tuple[str, int, int]]:
    with path.open("rb") as file:
        while data := file.read(block):
            yield hashlib.sha256(data).hexdigest()[:16], *_sums(data)


def _sums(data: bytes) -> tuple[int, int]:
    """Sum of the bytes, and of each byte times its place from 1. By rows and columns of a table 4096 wide: the sum over
    rows r and columns c of (4096 r + c + 1) times the byte."""
    padded = np.frombuffer(data.ljust(-(-len(data) // 4096) * 4096, b"\0"), np.uint8).reshape(-1, 4096)
    rows, columns = padded.sum(1, dtype=np.uint32).astype(np.int64), padded.sum(0, dtype=np.uint32).astype(np.int64)
    weighted = 4096 * (rows @ np.arange(len(rows))) + columns @ np.arange(1, 4097)
    return int(rows.sum()), int(weighted)
