"""A shard of a signal cache: one file, its sequences' keys and positions first, then their rows; docs/signals.md."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tutelage.canon import digest_bytes
from tutelage.errors import StorageError
from tutelage.store import segment
from tutelage.store import signal_codec as codec
from tutelage.store.signal_codec import Array
from tutelage.store.signal_kinds import Error, Kind

KEY_BYTES = 16
_KIND = "signal-shard"
_INDEX = ("keys", "runs", "runs+")


class Waiting(NamedTuple):
    """A sequence's rows as its kind packed them, and their positions."""

    positions_N: Array
    columns: Any
    error: Error


class Where(NamedTuple):
    """Where a sequence's rows are."""

    shard: int
    first: int
    positions_N: Array


class Shard(NamedTuple):
    """A shard's head as read: its header, where its streams begin, and which sequences it holds."""

    path: Path
    header: dict[str, Any]
    body: int
    sequences: dict[bytes, Where]


class Torn(StorageError):
    """A shard that ends before its header says: it was being written when the machine stopped."""


def key_of(ids_T: torch.Tensor) -> bytes:
    """A sequence's key: the first 16 bytes of SHA-256 over its token ids, 4 bytes each, little-endian."""
    return hashlib.sha256(ids_T.cpu().numpy().astype("<u4").tobytes()).digest()[:KEY_BYTES]


def shard_bytes(kind: Kind, vocabulary: int, cache: str, waiting: dict[bytes, Waiting]) -> bytes:
    """A shard file of these sequences, by key; `cache` is the digest of the identity it belongs to."""
    positions = [each.positions_N for each in waiting.values()]
    count = sum(map(len, positions))
    index = {"keys": b"".join(waiting), **codec.write_numbers("runs", _runs(positions))}
    streams = kind.streams([each.columns for each in waiting.values()], vocabulary)
    packed: dict[str, bytes] = {}
    listed = []
    for name, data in (*index.items(), *streams.items()):
        if data:
            coding = "none" if name == "keys" else "lzma" if name in _INDEX else kind.coding
            packed[name] = codec.compress(data, coding)
            listed.append([name, coding, len(packed[name]), len(data)])
    parts = [b"".join(packed[name] for name in packed if (name in _INDEX) is chosen) for chosen in (True, False)]
    errors = [each.error for each in waiting.values()]
    kl = sum(error.kl_nats * len(at_N) for error, at_N in zip(errors, positions, strict=True)) / max(count, 1)
    header = {
        "cache": cache, "positions": count, "sequences": len(waiting), "streams": listed,
        "index": digest_bytes(parts[0]), "rows": digest_bytes(parts[1]),
        "error": {"log_nats": f"{max(error.log_nats for error in errors):.3g}", "kl_nats": f"{kl:.3g}"},
    }  # fmt: skip
    return segment.encode(_KIND, header)[1] + parts[0] + parts[1]


def _runs(positions: list[Array]) -> Array:
    """Of each sequence: how many runs, then each one's distance from the end of the one before and its length."""
    numbers: list[int] = []
    for at_N in positions:
        cuts = np.flatnonzero(np.diff(at_N) != 1) + 1
        runs = np.split(at_N, cuts) if len(at_N) else []
        numbers.append(len(runs))
        end = 0
        for run in runs:
            numbers += [int(run[0]) - end, len(run)]
            end = int(run[-1]) + 1
    return np.array(numbers, np.int64)


def _from_runs(numbers: Iterator[int]) -> Array:
    found = [np.zeros(0, np.int64)]
    end = 0
    for _ in range(next(numbers)):
        start, length = end + next(numbers), next(numbers)
        end = start + length
        found.append(np.arange(start, end))
    return np.concatenate(found)


def open_shard(path: Path, cache: str) -> Shard:
    """The head of a shard, its digests checked. Raises `Torn` when it ends too early, `StorageError` when it is damaged or
    another cache's."""
    with path.open("rb") as file:
        line = file.readline()
        if not line.endswith(b"\n"):
            raise Torn(f"{path} ends within its header", fix="capture again")
        found = segment.decode(line, path, 0)
        if found.kind != _KIND:
            raise segment.damaged(path, 0, f"{found.kind!r} is no {_KIND}")
        header = found.value
        size = len(line) + sum(stored for _, _, stored, _ in header["streams"])
        if path.stat().st_size < size:
            raise Torn(f"{path} has {path.stat().st_size} bytes of {size}", fix="capture again")
        if header["cache"] != cache:
            raise StorageError(f"{path} belongs to another cache ({header['cache']})", fix="move it out of the folder")
        shard = Shard(path, header, len(line), {})
        streams = _read_streams(file, shard, index=True)
    try:
        numbers = iter(codec.read_numbers("runs", streams).tolist())
        first = 0
        for at in range(header["sequences"]):
            positions_N = _from_runs(numbers)
            shard.sequences[streams["keys"][at * KEY_BYTES : (at + 1) * KEY_BYTES]] = Where(0, first, positions_N)
            first += len(positions_N)
        if first != header["positions"] or next(numbers, None) is not None:
            raise ValueError(f"{first} positions in the index, {header['positions']} in the header")
    except (ValueError, StopIteration) as error:
        raise damaged(path, "index", error) from error
    return shard


def read_columns(shard: Shard, kind: Kind, vocabulary: int) -> Any:
    """Everything in it, as its kind decodes it. Raises `StorageError` when it is damaged."""
    try:
        with shard.path.open("rb") as file:
            streams = _read_streams(file, shard, index=False)
        return kind.columns(streams, vocabulary)
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, StorageError):
            raise
        raise damaged(shard.path, "rows", error) from error


def _read_streams(file: Any, shard: Shard, index: bool) -> dict[str, bytes]:
    """The streams of one part, its digest checked first: nothing that was changed is ever decoded."""
    listed = [stream for stream in shard.header["streams"] if (stream[0] in _INDEX) is index]
    start = shard.body + (0 if index else sum(size for name, _, size, _ in shard.header["streams"] if name in _INDEX))
    file.seek(start)
    part = file.read(sum(size for _, _, size, _ in listed))
    name = "index" if index else "rows"
    if digest_bytes(part) != shard.header[name]:
        raise StorageError(
            f"{shard.path} is damaged between bytes {start} and {start + len(part)} ({name}): {digest_bytes(part)} instead "
            f"of {shard.header[name]}",
            fix="delete the file and capture again: only its sequences are asked for again",
        )
    streams, at = {}, 0
    for stream, coding, stored, size in listed:
        streams[stream] = codec.expand(part[at : at + stored], coding, size)
        at += stored
    return streams


def damaged(path: Path, part: str, why: object) -> StorageError:
    """What to say of a shard whose digests are right and whose content is not."""
    return StorageError(f"{path} is damaged ({part}): {why}", fix="delete the file and capture again")
