"""Rows of ids and small integers as bytes: numpy and the standard library alone; docs/signals.md is the contract.

Shape legend: N rows (positions), E entries that have a value, M all entries, V vocabulary.

Each kind of number has a stream of its own, so that lzma's adaptive coder, which learns from the byte before, sees one
distribution at a time. Nothing is coded by a loop over rows: decoding works on whole columns.
"""

import lzma
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.signedinteger[Any]]

_ONE, _TWO = 208, 240  # first bytes below _ONE are the number; below _TWO one more byte follows; else two more
_TWO_FROM = _ONE
_THREE_FROM = _ONE + (_TWO - _ONE) * 256
LARGEST = _THREE_FROM + (256 - _TWO) * 65536 - 1
_BARE, _ABSENT = 254, 255  # where the following token is: a slot among the exact, among the bare, or not marked
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 4, "lp": 0, "pb": 0, "dict_size": 1 << 20}]


class Table(NamedTuple):
    """Rows of ids. Of each row, the first `exact_N` ids have a value in `values_E`, the other `bare_N` have none.

    `ids_M` are all ids, row by row, each at most once a row. `following_N` is the token that follows the position in its text,
    -1 where none does: texts mostly go on as their teacher expects, so that id is marked, not stored. A decoded table
    has -1 in its place and an empty `following_N`. `tail_N` is one more number a row, or empty.
    """

    exact_N: Array
    bare_N: Array
    ids_M: Array
    values_E: Array
    following_N: Array
    tail_N: Array


class Bounds(NamedTuple):
    """What the coder may expect. Values are 0 to `most`; where `total` is above 0, a row's values and `unit` for each bare id
    come to about `total`."""

    vocabulary: int
    most: int
    total: int = 0
    unit: int = 1


def join(tables: Iterable[Table]) -> Table:
    """One table of all their rows."""
    return Table(*(np.concatenate(column) for column in zip(*tables, strict=True)))


def encode(table: Table, bounds: Bounds) -> dict[str, bytes]:
    """The streams of a table, uncompressed; empty ones are left out. Within a row, order is not kept: exact ids come out by
    falling value, then by how common the id is; bare ids by that alone."""
    count_N = table.exact_N + table.bare_N
    row_M = np.repeat(np.arange(len(count_N)), count_N)
    slot_M = np.arange(len(row_M)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    exact_M = slot_M < table.exact_N[row_M]
    value_M = np.full(len(row_M), -1)
    value_M[exact_M] = table.values_E

    stored_M = table.ids_M != table.following_N[row_M]
    counts_V = np.bincount(table.ids_M[stored_M], minlength=bounds.vocabulary)
    classes_V = np.frexp(counts_V.astype(np.float64))[1].astype(np.uint8)  # 0 for 0, else 1 + floor(log2)
    order_V = _commonest_first(classes_V)
    rank_V = np.empty(bounds.vocabulary, np.int64)
    rank_V[order_V] = np.arange(bounds.vocabulary)

    order_M = np.lexsort((rank_V[table.ids_M], -value_M, row_M))
    ids_M, value_M, stored_M = table.ids_M[order_M], value_M[order_M], stored_M[order_M]
    stored_M |= exact_M & (slot_M >= _BARE)  # `exact_M`, `row_M`, `slot_M` are the same in either order
    marks_N = np.full(len(count_N), _ABSENT, np.uint8)
    marks_N[row_M[~stored_M]] = np.where(exact_M, np.minimum(slot_M, _BARE), _BARE)[~stored_M]

    gaps_E = _gaps(value_M[exact_M], table.exact_N, bounds)
    extra_N = table.bare_N - _bare_expected(value_M[exact_M], table.exact_N, bounds)
    streams = {"marks": marks_N.tobytes(), "classes": classes_V.tobytes()}
    streams |= (
        write_numbers("exact", table.exact_N)
        | write_numbers("bare", _zigzag(extra_N))
        | write_numbers("values", gaps_E)
    )
    streams |= write_numbers("ids", rank_V[ids_M[stored_M & exact_M]])
    streams |= write_numbers("bare_ids", rank_V[ids_M[stored_M & ~exact_M]])
    streams |= write_numbers("tail", table.tail_N)
    return {name: data for name, data in streams.items() if data}


def decode(streams: dict[str, bytes], bounds: Bounds) -> Table:
    """The table that `encode` was given, rows in the order it describes, -1 for each row's following token.

    Raises `ValueError` where the streams do not fit each other.
    """
    exact_N = read_numbers("exact", streams)
    marks_N = np.frombuffer(streams.get("marks", b""), np.uint8).astype(np.int64)
    classes_V = np.frombuffer(streams.get("classes", b""), np.uint8)
    if len(marks_N) != len(exact_N) or len(classes_V) != bounds.vocabulary:
        raise ValueError("streams of different lengths")
    values_E = _values(read_numbers("values", streams), exact_N, bounds)
    bare_N = _unzigzag(read_numbers("bare", streams)) + _bare_expected(values_E, exact_N, bounds)
    if (bare_N < 0).any():
        raise ValueError("a row with fewer ids than none")
    count_N = exact_N + bare_N
    row_M = np.repeat(np.arange(len(count_N)), count_N)
    slot_M = np.arange(len(row_M)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
    exact_M = slot_M < exact_N[row_M]
    marked_M = slot_M == np.where(marks_N == _BARE, exact_N, np.where(marks_N == _ABSENT, -1, marks_N))[row_M]
    order_V = _commonest_first(classes_V)
    ids_M = np.full(len(row_M), -1)
    ids_M[exact_M & ~marked_M] = order_V[read_numbers("ids", streams)]
    ids_M[~exact_M & ~marked_M] = order_V[read_numbers("bare_ids", streams)]
    return Table(exact_N, bare_N, ids_M, values_E, np.zeros(0, np.int64), read_numbers("tail", streams))


def compress(data: bytes, coding: str) -> bytes:
    """`lzma` (raw LZMA2), `zlib` or `none`."""
    if coding == "lzma":
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)
    return zlib.compress(data, 1) if coding == "zlib" else data


def expand(data: bytes, coding: str, size: int) -> bytes:
    """The other way. Raises `ValueError` when it does not give `size` bytes."""
    try:
        if coding == "lzma":
            found = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(data, size + 1)
        else:
            found = zlib.decompressobj().decompress(data, size + 1) if coding == "zlib" else data
    except (lzma.LZMAError, zlib.error) as error:
        raise ValueError(str(error)) from error
    if len(found) != size:
        raise ValueError(f"{len(found)} bytes instead of {size}")
    return found


def _commonest_first(classes_V: NDArray[np.uint8]) -> Array:
    return np.argsort(-classes_V.astype(np.int64), kind="stable")


def write_numbers(name: str, numbers: Array) -> dict[str, bytes]:
    """Streams of integers from 0 to `LARGEST`, the smaller the shorter: first bytes in `name`, what follows them in `name+`.

    Apart, second bytes are found without reading one number after the other, and first bytes stand beside their likes."""
    assert not len(numbers) or (numbers.min() >= 0 and numbers.max() <= LARGEST), "numbers out of range"
    two, three = numbers >= _TWO_FROM, numbers >= _THREE_FROM
    past = numbers - np.where(three, _THREE_FROM, _TWO_FROM)
    first = np.where(three, _TWO + (past >> 16), np.where(two, _ONE + (past >> 8), numbers)).astype(np.uint8)
    pairs = np.stack([past & 255, (past >> 8) & 255], 1).astype(np.uint8)
    return {name: first.tobytes(), f"{name}+": pairs[np.stack([two, three], 1)].tobytes()}


def read_numbers(name: str, streams: dict[str, bytes]) -> Array:
    """The numbers that `write_numbers` was given; none where there is no such stream."""
    first = np.frombuffer(streams.get(name, b""), np.uint8).astype(np.int64)
    rest = np.frombuffer(streams.get(f"{name}+", b""), np.uint8).astype(np.int64)
    two, three = first >= _ONE, first >= _TWO
    more = two.astype(np.int64) + three
    if more.sum() != len(rest):
        raise ValueError(f"{name}: {len(rest)} bytes follow, {more.sum()} should")
    at = np.cumsum(more) - more
    second = np.append(rest, [0, 0])  # so that indices of numbers without one stay inside
    low, high = second[at], second[np.minimum(at + 1, len(rest))]
    twos = ((first - _ONE) << 8) + low + _TWO_FROM
    threes = ((first - _TWO) << 16) + (high << 8) + low + _THREE_FROM
    return np.where(three, threes, np.where(two, twos, first))


def _zigzag(numbers: Array) -> Array:
    return np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)


def _unzigzag(numbers: Array) -> Array:
    return np.where(numbers & 1, -(numbers + 1) // 2, numbers // 2)


def _row_sums(values_E: Array, exact_N: Array) -> Array:
    sums = np.concatenate([[0], np.cumsum(values_E)])
    ends = np.cumsum(exact_N)
    return sums[ends] - sums[ends - exact_N]


def _bare_expected(values_E: Array, exact_N: Array, bounds: Bounds) -> Array:
    return np.maximum(bounds.total - _row_sums(values_E, exact_N), 0) // bounds.unit


def _gaps(values_E: Array, exact_N: Array, bounds: Bounds) -> Array:
    """How far each value is below what it can be at most: the value before it, and what those before it left of the total;
    modulo `most` + 1, since rounding may pass the total."""
    before_E = np.concatenate([[0], values_E[:-1]]) if len(values_E) else values_E
    start_N = np.cumsum(exact_N) - exact_N
    first_E = np.zeros(len(values_E), bool)
    first_E[start_N[exact_N > 0]] = True
    sums = np.concatenate([[0], np.cumsum(values_E)])
    spent_E = sums[:-1] - np.repeat(sums[start_N], exact_N)
    bound_E = np.where(first_E, bounds.most, before_E)
    if bounds.total:
        bound_E = np.minimum(bound_E, np.maximum(bounds.total - spent_E, 0))
    return (bound_E - values_E) % (bounds.most + 1)


def _values(gaps_E: Array, exact_N: Array, bounds: Bounds) -> Array:
    """`_gaps` undone, one slot of all rows at a time."""
    if len(gaps_E) != exact_N.sum():
        raise ValueError("streams of different lengths")
    values_E = np.empty(len(gaps_E), np.int64)
    start_N = np.cumsum(exact_N) - exact_N
    bound_N = np.full(len(exact_N), bounds.most)
    left_N = np.full(len(exact_N), bounds.total)
    for slot in range(int(exact_N.max(initial=0))):
        rows = np.flatnonzero(exact_N > slot)
        most = np.minimum(bound_N[rows], np.maximum(left_N[rows], 0)) if bounds.total else bound_N[rows]
        found = (most - gaps_E[start_N[rows] + slot]) % (bounds.most + 1)
        values_E[start_N[rows] + slot] = bound_N[rows] = found
        left_N[rows] -= found
    return values_E
