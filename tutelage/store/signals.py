"""The cache of teacher signals: a folder of shards, written once, read in any order; docs/signals.md is the contract.

Rows belong to the sequence of token ids they were captured on and are found by its digest alone, never by a step or a row
number. A folder says in `cache.json` what was captured, and opens only to who asks for just that. Shards are written beside
and renamed: a killed capture loses what no shard holds yet, and goes on from there.
"""

import fcntl
import math
import os
from collections import OrderedDict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import orjson
import torch

from tutelage.canon import canonical, digest_of
from tutelage.errors import SignalError, StorageError
from tutelage.jsonl import write_whole
from tutelage.signals import Signal
from tutelage.store.signal_codec import Array
from tutelage.store.signal_kinds import Error, Full, HiddenStates, Kind, Sampled, TopKTail
from tutelage.store.signal_shard import (
    Torn,
    Waiting,
    damaged,
    key_of,
    open_shard,
    read_columns,
    shard_bytes,
)

FORMAT = "tutelage-signals"
VERSION = 1
SHARD_POSITIONS = 16_384  # a kill loses less than that; smaller shards code worse
MEMORY_BYTES = 256 << 20  # of decoded shards kept


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that decides what stands in a cache, digests as `sha256:…`: another value of any of them is another cache.

    `logprobs` is `raw` for those of the model's own distribution, else what was done to them (`temperature 0.7, top_p 0.95`).
    `dataset` is the digest of the examples in their order, `sampling` says how the text was made. `vocabulary` is the
    number of ids that rows may name: the student's.
    """

    kind: Kind
    teacher: str
    tokenizer: str
    student_tokenizer: str
    template: str
    dataset: str
    sampling: str
    logprobs: str
    vocabulary: int

    def described(self) -> dict[str, Any]:
        """As `cache.json` holds it."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**own, "kind": self.kind.described()}


class Rows(NamedTuple):
    """What a cache holds of one sequence: the positions, rising, and their signal, row for row."""

    positions_N: torch.Tensor
    signal: Signal


class SignalWriter:
    """Adds to a cache; one writer at a time. A context manager: at its end what is left becomes a shard."""

    def __init__(self, folder: Path, identity: Identity, shard_positions: int = SHARD_POSITIONS) -> None:
        """Begins the cache or goes on with it: torn shards are dropped. Raises `SignalError` when the folder holds a cache of
        another identity, `StorageError` when another writer has it, a whole shard is damaged or the disk is full."""
        self.folder, self.identity, self._shard_positions = folder, identity, shard_positions
        self._own = digest_of(identity.described())
        self._waiting: dict[bytes, Waiting] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take_lock()
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise

    def __contains__(self, ids_T: torch.Tensor) -> bool:
        """Whether the sequence is there or waits for its shard."""
        key = key_of(ids_T)
        return key in self._held or key in self._waiting

    def add(self, ids_T: torch.Tensor, positions_N: torch.Tensor, signal: Signal) -> None:
        """The signal at these positions of the sequence (rising; the logits at t speak of the token at t + 1). A sequence
        that is there already is left as it is. Raises `SignalError` for another kind of signal, or ids beyond the
        vocabulary."""
        kind, key = self.identity.kind, key_of(ids_T)
        if key in self._held or key in self._waiting:
            return
        if not isinstance(signal, kind.takes):
            raise SignalError(
                f"a {kind.name} cache holds {kind.takes.__name__} signals, not {type(signal).__name__}",
                fix="capture what the cache's kind names, or begin another cache",
            )
        at_N = positions_N.cpu().numpy().astype(np.int64)
        if (
            len(at_N) != len(signal)
            or (np.diff(at_N) < 1).any()
            or (len(at_N) and not 0 <= at_N[0] <= at_N[-1] < len(ids_T))
        ):
            raise SignalError(
                f"{len(signal)} rows at {len(at_N)} positions of a sequence of {len(ids_T)} tokens",
                fix="give one row a position, positions rising and inside the sequence",
            )
        named = getattr(signal, "ids_NK", torch.zeros(1))
        if named.numel() and not 0 <= named.min() <= named.max() < self.identity.vocabulary:
            raise SignalError(
                f"ids from {int(named.min())} to {int(named.max())} in a cache for {self.identity.vocabulary}",
                fix="map the teacher's ids to the student's first",
            )
        draw = np.random.default_rng(np.frombuffer(key, np.uint32))
        packed = kind.pack(signal.to("cpu"), _following(ids_T, at_N), draw)
        self._waiting[key] = Waiting(at_N, packed.columns, packed.error)
        if sum(len(each.positions_N) for each in self._waiting.values()) >= self._shard_positions:
            self.flush()

    def flush(self) -> None:
        """Writes what waits as a shard. Raises `StorageError` when the disk does not take it."""
        if not self._waiting:
            return
        data = shard_bytes(self.identity.kind, self.identity.vocabulary, self._own, self._waiting)
        write_whole(self.folder / f"{self._next:06d}.signals", data)
        self._held |= self._waiting.keys()
        self.positions += sum(len(each.positions_N) for each in self._waiting.values())
        self.bytes += len(data)
        self._next += 1
        self._waiting = {}
        self._describe()

    def close(self) -> None:
        """Gives the folder free; what waits is lost unless it was flushed."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or not issubclass(kind, OSError):
                self.flush()
        finally:
            self.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"{self.folder} is being written by another process", fix="wait for it, or capture into another folder"
            ) from error

    def _begin(self) -> None:
        if (self.folder / "cache.json").exists():
            _require_same(self.folder, self.identity)
        self._held: set[bytes] = set()
        self._next, self.positions, self.bytes = 1, 0, 0
        for path in _paths(self.folder):
            try:
                shard = open_shard(path, self._own)
            except Torn:
                path.unlink()
                continue
            self._held |= shard.sequences.keys()
            self._next = int(path.stem) + 1
            self.positions += shard.header["positions"]
            self.bytes += path.stat().st_size
        for path in self.folder.glob("*.new"):
            path.unlink()
        self._describe()

    def _describe(self) -> None:
        said = {"format": FORMAT, "version": VERSION, "identity": self.identity.described()}
        said |= {"positions": self.positions, "sequences": len(self._held), "bytes": self.bytes}
        write_whole(self.folder / "cache.json", canonical(said) + b"\n")


class SignalCache:
    """Reads a cache. Decoded shards are kept, least recently used first out, up to `memory_bytes`."""

    def __init__(self, folder: Path, identity: Identity, memory_bytes: int = MEMORY_BYTES) -> None:
        """Raises `SignalError` when there is no cache or its identity is another, naming what differs; `StorageError` when
        a shard is missing, torn or damaged, or was written for another cache."""
        self.folder, self.identity, self._memory_bytes = folder, identity, memory_bytes
        said = _require_same(folder, identity)
        own = digest_of(identity.described())
        try:
            self._shards = [open_shard(path, own) for path in _paths(folder)]
        except Torn as error:
            raise StorageError(error.message, fix="capture again: what is whole is kept") from error
        self._where = {
            key: where._replace(shard=number)
            for number, shard in enumerate(self._shards)
            for key, where in shard.sequences.items()
        }
        self.positions: int = sum(shard.header["positions"] for shard in self._shards)
        self.bytes = sum(shard.path.stat().st_size for shard in self._shards)
        if self.positions < said["positions"]:
            raise StorageError(
                f"{folder} lacks {said['positions'] - self.positions} of {said['positions']} positions: a shard is gone",
                fix="put it back, or capture again: what is there is kept",
            )
        self._decoded: OrderedDict[int, Any] = OrderedDict()
        self._decoded_bytes = dict[int, int]()

    def __len__(self) -> int:
        """Sequences held."""
        return len(self._where)

    def __contains__(self, ids_T: torch.Tensor) -> bool:
        return key_of(ids_T) in self._where

    def read(self, ids_T: torch.Tensor, positions_N: torch.Tensor | None = None) -> Rows:
        """The rows of this sequence, all or those at some positions. Raises `SignalError` when the sequence, or one of the
        positions, was not captured, `StorageError` when the shard is damaged."""
        key = key_of(ids_T)
        where = self._where.get(key)
        if where is None:
            raise SignalError(
                f"{self.folder} holds no sequence {key.hex()} ({len(ids_T)} tokens)",
                fix="capture it: signals are found by token ids alone, and these ids were not seen",
            )
        chosen_N = np.arange(len(where.positions_N))
        if positions_N is not None:
            wanted_N = positions_N.cpu().numpy().astype(np.int64)
            chosen_N = np.searchsorted(where.positions_N, wanted_N)
            missing = wanted_N[~np.isin(wanted_N, where.positions_N)]
            if len(missing):
                raise SignalError(
                    f"{self.folder} holds no position {missing[0]} of sequence {key.hex()}",
                    fix="capture again with the positions that carry loss",
                )
        at_N = where.positions_N[chosen_N]
        columns = self._columns(where.shard)
        try:
            signal = self.identity.kind.signal(columns, where.first + chosen_N, _following(ids_T, at_N))
        except (ValueError, IndexError) as error:
            raise damaged(self._shards[where.shard].path, "rows", error) from error
        return Rows(torch.from_numpy(at_N), signal)

    def errors(self) -> list[Error]:
        """What coding cost in each shard."""
        return [Error(*(float(shard.header["error"][name]) for name in Error._fields)) for shard in self._shards]

    def verify(self) -> None:
        """Reads and decodes everything. Raises `StorageError` at the first damage."""
        for shard in self._shards:
            read_columns(shard, self.identity.kind, self.identity.vocabulary)

    def _columns(self, number: int) -> Any:
        if number not in self._decoded:
            self._decoded[number] = read_columns(self._shards[number], self.identity.kind, self.identity.vocabulary)
            self._decoded_bytes[number] = _size(self._decoded[number])
            while len(self._decoded) > 1 and sum(self._decoded_bytes.values()) > self._memory_bytes:
                self._decoded_bytes.pop(self._decoded.popitem(last=False)[0])
        self._decoded.move_to_end(number)
        return self._decoded[number]


def estimate_bytes(kind: Kind, positions: int, vocabulary: int, ids: float | None = None) -> int:
    """What a capture will take on disk, to be said before it begins: rough, within a third on ordinary text.

    `ids` is the mean number of kept ids a position, which `signals.thin.expected` gives exactly for a few hundred of them;
    kinds that keep rows of ids need it. Fitted to SmolLM2's rows on GSM8K answers (docs/log.md).
    """
    if isinstance(kind, Full):
        return round(positions * vocabulary * 1.7)
    if isinstance(kind, HiddenStates):
        return round(positions * kind.width * 1.8)
    if ids is None:
        raise ValueError(f"{kind.name} needs the mean number of ids a position")
    id_bytes = math.log2(max(vocabulary, 2)) / 16
    value_bytes = 1.0 if isinstance(kind, TopKTail | Sampled) else 0.35
    return round(positions * (1 + ids * (id_bytes + value_bytes)))


def identity_in(folder: Path) -> dict[str, Any]:
    """The identity written in a cache. Raises `SignalError` when there is none, or a later format's."""
    path = folder / "cache.json"
    try:
        said = orjson.loads(path.read_bytes())
        if said["format"] != FORMAT or said["version"] != VERSION:
            raise SignalError(
                f"{path} is {said['format']} version {said['version']}, not {FORMAT} {VERSION}",
                fix="read it with the version that wrote it, or capture again",
            )
        return dict(said)
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SignalError):
            raise
        raise SignalError(f"no cache in {folder}: {error}", fix="capture into it first") from error


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.signals") if path.stem.isdigit())


def _following(ids_T: torch.Tensor, at_N: Array) -> Array:
    """The token after each position, -1 after the last."""
    return np.append(ids_T.cpu().numpy().astype(np.int64), -1)[at_N + 1]


def _require_same(folder: Path, identity: Identity) -> dict[str, Any]:
    said = identity_in(folder)
    asked, found = identity.described(), said["identity"]
    differ = [name for name in asked if asked[name] != found.get(name)]
    if differ:
        raise SignalError(
            f"the signals in {folder} are not these: "
            + "; ".join(f"{name} was {found.get(name)}, now {asked[name]}" for name in differ),
            fix="capture into another folder; ids and probabilities of one cannot stand for the other's",
        )
    return said


def _size(columns: Any) -> int:
    if isinstance(columns, np.ndarray):
        return columns.nbytes
    return sum(_size(part) for part in columns) if isinstance(columns, tuple) else 0
