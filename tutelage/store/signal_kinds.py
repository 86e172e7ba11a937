"""Kinds of teacher signals a cache can hold: how each becomes columns of small integers, and tensors again.

Shape legend: N positions, K kept ids, V vocabulary, D hidden width, E entries with a value, M all entries.

Estimates that are unbiased stay so: their weights are rounded at random, up or down with the probabilities that make the mean
right. What is revealed as log-probabilities is rounded to the nearest step.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from tutelage.canon import decimals
from tutelage.errors import SignalError
from tutelage.signals import Dense, Head, Hidden, Signal, Sparse, TopK
from tutelage.store import signal_codec as codec
from tutelage.store.signal_codec import Array, Bounds, Table

_STEPS = 256  # codes a nat, of candidates' log-probabilities
_DENSE_STEPS = 1024
_FULL = 65535
_CHECKED = 16  # positions of a sequence whose hidden states are decoded to logits for the error that is reported


class Error(NamedTuple):
    """What coding cost: the largest |ln decoded − ln original| of an id, and the mean of Σ p ln(p / p̂) − p + p̂ over
    positions, which is KL(original ‖ decoded) where both sum to 1."""

    log_nats: float
    kl_nats: float


class Packed(NamedTuple):
    """One sequence's signal as integers: a `Table`, or 16-bit codes [N, width]."""

    columns: Any
    error: Error


@dataclass(frozen=True, slots=True)
class Kind:
    """What is kept of a distribution. Its fields are the parameters that a cache's identity names."""

    name: ClassVar[str]
    takes: ClassVar[type[Signal]]
    coding: ClassVar[str] = "lzma"

    def described(self) -> dict[str, Any]:
        """Name and parameters as records hold them."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.compare}
        return {"name": self.name, **decimals(own)}

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        """Integers of a signal. Raises `SignalError` when it is no signal of this kind."""
        raise NotImplementedError

    def streams(self, parts: Sequence[Any], vocabulary: int) -> dict[str, bytes]:
        """Uncompressed streams of what `pack` gave, sequence after sequence."""
        raise NotImplementedError

    def columns(self, streams: dict[str, bytes], vocabulary: int) -> Any:
        """Everything in a shard's streams. Raises `ValueError` when they do not fit each other."""
        raise NotImplementedError

    def signal(self, columns: Any, rows_N: Array, following_N: Array) -> Signal:
        """Some rows as tensors."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Rows(Kind):
    """Kinds that keep ids."""

    def bounds(self, vocabulary: int) -> Bounds:
        return Bounds(vocabulary, _FULL)

    def streams(self, parts: Sequence[Any], vocabulary: int) -> dict[str, bytes]:
        return codec.encode(codec.join(parts), self.bounds(vocabulary))

    def columns(self, streams: dict[str, bytes], vocabulary: int) -> "_Decoded":
        return _Decoded.of(codec.decode(streams, self.bounds(vocabulary)))

    def weights(self, value_M: Array) -> np.ndarray:
        """Weights of values, -1 where a bare id stands."""
        raise NotImplementedError

    def signal(self, columns: Any, rows_N: Array, following_N: Array) -> Signal:
        ids_NK, value_NK, used_NK = columns.rows(rows_N, following_N)
        weights_NK = np.where(used_NK, self.weights(value_NK), 0).astype(np.float32)
        return Sparse(torch.from_numpy(ids_NK), torch.from_numpy(weights_NK))


@dataclass(frozen=True, slots=True)
class Threshold(_Rows):
    """`signals.thin.threshold` at `c`: weights above c as multiples of c / `parts`, rounded at random; ids at c without one.

    Rounding adds (c / parts)² / 6 to E ‖t − p‖² for each id above c, on average.
    """

    c: float
    parts: int = 3
    name: ClassVar[str] = "threshold"
    takes: ClassVar[type[Signal]] = Sparse

    def bounds(self, vocabulary: int) -> Bounds:
        return Bounds(vocabulary, math.ceil(self.parts / self.c) + self.parts, round(self.parts / self.c), self.parts)

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        rows_M, ids_M, weights_M = _entries(signal)
        c = float(np.float32(self.c))
        if (weights_M < c).any():
            raise SignalError(
                f"a weight of {weights_M.min():.6g} in a threshold estimate at c = {self.c}",
                fix="capture with signals.thin.threshold at this c, or name the kind that was captured",
            )
        step = self.c / self.parts
        exact_M = weights_M > c
        scaled_E = weights_M[exact_M] / step
        values_E = np.floor(scaled_E).astype(np.int64)
        values_E += draw.random(len(values_E)) < scaled_E - values_E
        table = _table(len(signal), rows_M, ids_M, exact_M, values_E, following_N)
        return Packed(table, _error(weights_M[exact_M], values_E * step, len(signal)))

    def weights(self, value_M: Array) -> np.ndarray:
        return np.where(value_M < 0, self.c, value_M * (self.c / self.parts))


@dataclass(frozen=True, slots=True)
class Draws(_Rows):
    """`signals.thin.random_draws`: how many of `draws` fell on each id, exactly; ids that were drawn once without a number."""

    draws: int
    name: ClassVar[str] = "random"
    takes: ClassVar[type[Signal]] = Sparse

    def bounds(self, vocabulary: int) -> Bounds:
        return Bounds(vocabulary, self.draws, self.draws)

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        rows_M, ids_M, weights_M = _entries(signal)
        counts_M = np.rint(weights_M * self.draws).astype(np.int64)
        if np.abs(counts_M - weights_M * self.draws).max(initial=0) > 1e-3:
            raise SignalError(
                f"a weight is not a count of {self.draws} draws",
                fix="capture with signals.thin.random_draws at this number",
            )
        table = _table(len(signal), rows_M, ids_M, counts_M > 1, counts_M[counts_M > 1], following_N)
        return Packed(table, Error(0.0, 0.0))

    def weights(self, value_M: Array) -> np.ndarray:
        return np.where(value_M < 0, 1, value_M) / self.draws


@dataclass(frozen=True, slots=True)
class Sampled(_Rows):
    """`signals.thin.with_sampled`: candidates at their p, in steps of 1/256 nat rounded at random, and the sampled token, where
    it is none of them, at weight 1."""

    k: int
    name: ClassVar[str] = "sampled"
    takes: ClassVar[type[Signal]] = Sparse

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        rows_M, ids_M, weights_M = _entries(signal)
        exact_M = weights_M < 1
        p_E = weights_M[exact_M]
        values_E = _FULL - np.ceil(-np.log(p_E) * _STEPS).astype(np.int64)
        low_E, high_E = _p(values_E), _p(values_E + 1)
        values_E += draw.random(len(p_E)) * (high_E - low_E) < p_E - low_E
        table = _table(len(signal), rows_M, ids_M, exact_M, values_E, following_N)
        return Packed(table, _error(p_E, _p(values_E), len(signal)))

    def weights(self, value_M: Array) -> np.ndarray:
        return np.where(value_M < 0, 1.0, _p(value_M))


@dataclass(frozen=True, slots=True)
class TopKTail(_Rows):
    """`TopK`: log-probabilities of at most `k` candidates and of the tail, in steps of 1/256 nat. Rows may hold fewer."""

    k: int
    name: ClassVar[str] = "topk+tail"
    takes: ClassVar[type[Signal]] = TopK

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        logp_NK = signal.logp_NK.double().numpy()
        rows_M, at_M = (logp_NK > -math.inf).nonzero()
        values_M = _nearest(logp_NK[rows_M, at_M], _STEPS)
        ids_M = signal.ids_NK.numpy()[rows_M, at_M]
        every_M = np.ones(len(rows_M), bool)
        table = _table(len(signal), rows_M, ids_M, every_M, values_M, following_N)
        table = table._replace(tail_N=_nearest(signal.tail_N.double().numpy(), _STEPS))
        same = np.arange(len(signal))
        found: Any = self.signal(_Decoded.of(table), same, following_N)
        before, after = (torch.cat([each.logp_NK, each.tail_N[:, None]], -1).double() for each in (signal, found))
        before, after = before.sort(descending=True).values, after.sort(descending=True).values
        return Packed(table, _log_error(before[:, : after.shape[1]], after))

    def signal(self, columns: Any, rows_N: Array, following_N: Array) -> TopK:
        ids_NK, value_NK, used_NK = columns.rows(rows_N, following_N)
        tail_N = columns.table.tail_N[rows_N]
        logp_NK = np.where(used_NK, (value_NK - _FULL) / _STEPS, -math.inf)
        tail_N = np.where(tail_N > 0, (tail_N - _FULL) / _STEPS, -math.inf)
        both = torch.from_numpy(np.concatenate([logp_NK, tail_N[:, None]], -1)).log_softmax(-1).float()
        return TopK(torch.from_numpy(ids_NK), both[:, :-1], both[:, -1])


@dataclass(frozen=True, slots=True)
class Full(Kind):
    """`Dense`: every log-probability in steps of 1/1024 nat down to -63.9, smaller ones as that; 2 bytes an id before
    coding."""

    name: ClassVar[str] = "dense"
    takes: ClassVar[type[Signal]] = Dense
    coding: ClassVar[str] = "zlib"

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        codes_NV = np.maximum(_nearest(signal.logp_NV.double().numpy(), _DENSE_STEPS), 1)
        codes_NV[signal.logp_NV.numpy() == -math.inf] = 0
        codes_NV = codes_NV.astype(np.uint16)
        kept = (signal.logp_NV > -60).any(0)  # an id nobody will ever see has no error worth a name
        after = self.signal(codes_NV, np.arange(len(signal)), following_N).logp_NV
        return Packed(codes_NV, _log_error(signal.logp_NV[:, kept].double(), after[:, kept].double()))

    def streams(self, parts: Sequence[Any], vocabulary: int) -> dict[str, bytes]:
        return _planes(np.concatenate(parts))

    def columns(self, streams: dict[str, bytes], vocabulary: int) -> np.ndarray:
        return _from_planes(streams, vocabulary)

    def signal(self, columns: Any, rows_N: Array, following_N: Array) -> Dense:
        codes_NV = columns[rows_N].astype(np.float32)
        logp_NV = np.where(codes_NV > 0, (codes_NV - _FULL) / _DENSE_STEPS, np.float32(-math.inf))
        return Dense(torch.from_numpy(logp_NV).log_softmax(-1))


@dataclass(frozen=True, slots=True)
class HiddenStates(Kind):
    """`Hidden`: last hidden states in `dtype` (bfloat16 or float16), and the digest of the head that makes logits of them."""

    width: int
    head_digest: str
    dtype: str = "bfloat16"
    head: Head | None = field(default=None, compare=False, repr=False)  # needed to read; its digest is the identity's
    name: ClassVar[str] = "hidden"
    takes: ClassVar[type[Signal]] = Hidden
    coding: ClassVar[str] = "zlib"

    @classmethod
    def of(cls, head: Head, dtype: str = "bfloat16") -> "HiddenStates":
        """The kind for teachers with this head."""
        return cls(head.weight_VD.shape[1], head_digest(head), dtype, head)

    def pack(self, signal: Any, following_N: Array, draw: np.random.Generator) -> Packed:
        kept_ND = signal.hidden_ND.detach().to(getattr(torch, self.dtype))
        first = replace(signal, hidden_ND=signal.hidden_ND[:_CHECKED])
        after = replace(first, hidden_ND=kept_ND[:_CHECKED].to(first.hidden_ND.dtype))
        error = _log_error(first.dense().logp_NV.double(), after.dense().logp_NV.double())
        return Packed(kept_ND.contiguous().view(torch.int16).numpy().view(np.uint16), error)

    def streams(self, parts: Sequence[Any], vocabulary: int) -> dict[str, bytes]:
        return _planes(np.concatenate(parts))

    def columns(self, streams: dict[str, bytes], vocabulary: int) -> np.ndarray:
        return _from_planes(streams, self.width)

    def signal(self, columns: Any, rows_N: Array, following_N: Array) -> Hidden:
        assert self.head is not None
        bits_ND = torch.from_numpy(columns[rows_N].view(np.int16))
        return Hidden(bits_ND.view(getattr(torch, self.dtype)).to(self.head.weight_VD.dtype), self.head)


def head_digest(head: Head) -> str:
    """Tagged SHA-256 over what a head does: its shape and weights in float32, its bias, scale and softcap."""
    hasher = hashlib.sha256(repr((tuple(head.weight_VD.shape), head.scale, head.softcap)).encode())
    for part in (head.weight_VD, head.bias_V):
        hasher.update(b"none" if part is None else part.detach().float().contiguous().cpu().numpy().tobytes())
    return f"sha256:{hasher.hexdigest()}"


class _Decoded(NamedTuple):
    """A shard's rows, and where each begins."""

    table: Table
    start_N: Array
    value_start_N: Array

    @classmethod
    def of(cls, table: Table) -> "_Decoded":
        count_N = table.exact_N + table.bare_N
        start_N = np.cumsum(count_N) - count_N
        small = Table(*(column.astype(np.int32) for column in table))
        return cls(small, start_N, np.cumsum(table.exact_N) - table.exact_N)

    def rows(self, rows_N: Array, following_N: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, values (-1 where bare) and which slots are used, [N, K]; the following token put where it was marked."""
        exact_N = self.table.exact_N[rows_N]
        count_N = exact_N + self.table.bare_N[rows_N]
        slots_NK = np.arange(int(count_N.max(initial=0)))[None, :]
        used_NK, exact_NK = slots_NK < count_N[:, None], slots_NK < exact_N[:, None]
        at_NK = np.where(used_NK, self.start_N[rows_N][:, None] + slots_NK, 0)
        values_at_NK = np.where(exact_NK, self.value_start_N[rows_N][:, None] + slots_NK, 0)
        ids_NK = np.where(used_NK, self.table.ids_M[at_NK] if len(self.table.ids_M) else 0, 0).astype(np.int64)
        ids_NK = np.where(ids_NK < 0, following_N[:, None], ids_NK)
        value_NK = np.where(exact_NK, self.table.values_E[values_at_NK] if len(self.table.values_E) else 0, -1)
        return ids_NK, value_NK, used_NK


def _entries(signal: Sparse) -> tuple[Array, Array, np.ndarray]:
    """Rows, ids and weights (float64) of a sparse signal, by row and id, an id's weights added."""
    weights_NK = signal.weights_NK.double().numpy()
    rows_M, at_M = (weights_NK > 0).nonzero()
    ids_M = signal.ids_NK.numpy()[rows_M, at_M]
    span = int(ids_M.max(initial=0)) + 1
    keys, inverse = np.unique(rows_M * span + ids_M, return_inverse=True)
    return keys // span, keys % span, np.bincount(inverse, weights_NK[rows_M, at_M], minlength=len(keys))


def _table(count: int, rows_M: Array, ids_M: Array, exact_M: np.ndarray, values_E: Array, following_N: Array) -> Table:
    """Entries in row order as a table: in each row the exact ones first."""
    exact_N = np.bincount(rows_M[exact_M], minlength=count)
    bare_N = np.bincount(rows_M[~exact_M], minlength=count)
    order_M = np.lexsort((~exact_M, rows_M))
    return Table(exact_N, bare_N, ids_M[order_M], values_E, following_N, np.zeros(0, np.int64))


def _nearest(logp: np.ndarray, steps: int) -> Array:
    """65535 for a probability of 1, one less for each step below it; 0 for none."""
    finite = np.where(logp > -math.inf, logp, 0)
    return np.where(logp > -math.inf, np.clip(_FULL + np.rint(finite * steps), 1, _FULL), 0).astype(np.int64)


def _p(values: Array) -> np.ndarray:
    return np.exp((values - _FULL) / _STEPS)


def _error(before_E: np.ndarray, after_E: np.ndarray, count: int) -> Error:
    if not len(before_E):
        return Error(0.0, 0.0)
    log_E = np.log(before_E) - np.log(after_E)
    total = (before_E * log_E - before_E + after_E).sum() / max(count, 1)
    return Error(float(np.abs(log_E).max()), float(max(total, 0.0)))


def _log_error(before: torch.Tensor, after: torch.Tensor) -> Error:
    """From log-probabilities of the same ids."""
    gap = torch.where(before > -math.inf, before - after, 0.0)
    kl = (torch.where(before > -math.inf, before.exp(), 0.0) * gap).sum(-1).mean() if len(before) else torch.zeros(())
    return Error(float(gap.abs().max()) if gap.numel() else 0.0, max(float(kl), 0.0))


def _planes(codes: np.ndarray) -> dict[str, bytes]:
    """High bytes and low bytes apart: the high ones repeat, the low ones hardly do."""
    return {"high": (codes >> 8).astype(np.uint8).tobytes(), "low": (codes & 255).astype(np.uint8).tobytes()}


def _from_planes(streams: dict[str, bytes], width: int) -> np.ndarray:
    high, low = (np.frombuffer(streams[name], np.uint8).astype(np.uint16) for name in ("high", "low"))
    if len(high) != len(low) or len(high) % width:
        raise ValueError("streams of different lengths")
    return ((high << 8) | low).reshape(-1, width)
