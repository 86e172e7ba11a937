"""Slow twins: the estimators one id after another, and a reader of shards written from docs/signals.md alone."""

import hashlib
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path


def threshold_naive(p: Sequence[float], c: float, uniform: float) -> dict[int, float]:
    """Systematic sampling: a wheel that turns by p/c at each small id, and stops where it passes a whole number."""
    kept, turned = {}, uniform
    for token, probability in enumerate(p):
        if probability >= c:
            kept[token] = probability
        elif probability > 0:
            before, turned = turned, turned + probability / c
            if int(turned) > int(before):
                kept[token] = c
    return kept


def draw_naive(p: Sequence[float], uniform: float) -> int:
    """The first id at which the cumulative probability reaches uniform × Σp, uniform in (0, 1]."""
    goal, so_far, last = uniform * sum(p), 0.0, 0
    for token, probability in enumerate(p):
        if probability > 0:
            so_far, last = so_far + probability, token
            if so_far >= goal:
                return token
    return last


def read_naive(folder: Path, ids: Sequence[int]) -> dict[int, list[tuple[int, int | None]]]:
    """For each position of the sequence its ids with their values, None where bare; a tail as id -1."""
    key = hashlib.sha256(b"".join(token.to_bytes(4, "little") for token in ids)).digest()[:16]
    identity = json.loads((folder / "cache.json").read_bytes())["identity"]
    for path in sorted(folder.glob("*.signals")):
        data = path.read_bytes()
        line, _, body = data.partition(b"\n")
        header = json.loads(line.split(b" ", 2)[2])
        streams, at = {}, 0
        for name, coding, stored, size in header["streams"]:
            streams[name] = _expanded(body[at : at + stored], coding)
            assert len(streams[name]) == size
            at += stored
        runs = _numbers(streams, "runs")
        row = 0
        for number in range(header["sequences"]):
            positions, end = [], 0
            for _ in range(next(runs)):
                start = end + next(runs)
                end = start + next(runs)
                positions += range(start, end)
            if streams["keys"][16 * number : 16 * number + 16] == key:
                rows = list(_rows(streams, identity["kind"], header["positions"]))[row : row + len(positions)]
                return {t: _with_following(each, ids, t) for t, each in zip(positions, rows, strict=True)}
            row += len(positions)
    raise KeyError(key.hex())


def _expanded(data: bytes, coding: str) -> bytes:
    if coding == "lzma":
        chosen = [{"id": lzma.FILTER_LZMA2, "lc": 4, "lp": 0, "pb": 0, "dict_size": 1 << 20}]
        return lzma.decompress(data, lzma.FORMAT_RAW, filters=chosen)
    return zlib.decompress(data) if coding == "zlib" else data


def _numbers(streams: dict[str, bytes], name: str) -> Iterator[int]:
    more = iter(streams.get(f"{name}+", b""))
    for first in streams.get(name, b""):
        if first < 208:
            yield first
        elif first < 240:
            yield 208 + 256 * (first - 208) + next(more)
        else:
            low = next(more)
            yield 8400 + 65536 * (first - 240) + low + 256 * next(more)


def _rows(streams: dict[str, bytes], kind: dict, positions: int) -> Iterator[list[tuple[int | str, int | None]]]:
    most, total, unit = 65535, 0, 1
    if kind["name"] == "threshold":
        per_one = kind["parts"] / float(kind["c"])
        most, total, unit = -int(-per_one // 1) + kind["parts"], round(per_one), kind["parts"]
    if kind["name"] == "random":
        most = total = kind["draws"]
    exact, gaps, bare = _numbers(streams, "exact"), _numbers(streams, "values"), _numbers(streams, "bare")
    ids, bare_ids, tails = _numbers(streams, "ids"), _numbers(streams, "bare_ids"), _numbers(streams, "tail")
    classes = streams["classes"]
    by_rank = sorted(range(len(classes)), key=lambda token: (-classes[token], token))
    for mark in streams["marks"][:positions]:
        row: list[tuple[int | str, int | None]] = []
        bound, left = most, total
        for slot in range(next(exact)):
            highest = min(bound, max(left, 0)) if total else bound
            bound = (highest - next(gaps)) % (most + 1)
            left -= bound
            row.append(("following" if slot == mark else by_rank[next(ids)], bound))
        z = next(bare)
        for slot in range((z // 2 if z % 2 == 0 else -(z + 1) // 2) + max(left, 0) // unit):
            row.append(("following" if mark == 254 and slot == 0 else by_rank[next(bare_ids)], None))
        if kind["name"] == "topk+tail":
            row.append((-1, next(tails)))
        yield row


def _with_following(row: list, ids: Sequence[int], position: int) -> list:
    return [(ids[position + 1] if token == "following" else token, value) for token, value in row]
