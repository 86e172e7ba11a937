"""What was taken, example by example: salted records, a Merkle tree and a Merkle-sum tree a source, and the table of sources.

A record is made for each example in each role it played. The records of one source lie in `ledger/examples/<row>.jsonl`,
one canonical line each, its trees beside it; `<row>` is the row of the source table, which is sorted by its key.
Nothing is held in memory but one tile a tree level, so the number of examples does not matter.
"""

import bisect
import hashlib
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from tutelage.canon import canonical
from tutelage.jsonl import writing
from tutelage.ledger import sumtree
from tutelage.ledger.merkle import EMPTY_ROOT, leaf_hash, root, salt
from tutelage.ledger.sources import UNKNOWN_UPSTREAM, SourceRow
from tutelage.ledger.tiles import Levels, LevelWriter
from tutelage.records import Role

_PLACE = struct.Struct(">QQ")  # position in the selection, offset of the record in its file; sorted by position
_BUFFER = 1 << 20  # bytes: one write call for about a thousand records

Key = tuple[str, str, str, str, str, str]


class Tokens(NamedTuple):
    """Loss tokens of one example in one role: summed over the times it was stepped on, its weight counted in."""

    loss: int
    passes: int
    weight: int = 1


class Taken(NamedTuple):
    """One example that was trained on: where it stands in the committed selection, the stored exchange and request as
    plain values, where its prompt came from (`source`, `source_digest`, `licence`), and its tokens by role."""

    position: int
    digest: str
    exchange: Mapping[str, Any]
    request: Mapping[str, Any]
    prompt: Mapping[str, Any]
    tokens: Mapping[str, Tokens]
    transforms: tuple[str, ...] = ()


class Lineage(NamedTuple):
    """Something taken whole rather than by examples: the weights the student starts from."""

    name: str
    weights: str
    licence: str


def field_salt(run_key: bytes, field: str, position: int) -> bytes:
    """SHA-256(example salt ‖ field name): opens this field of this example, in whichever role, and nothing else."""
    return hashlib.sha256(salt(run_key, "fields", position) + field.encode()).digest()


def leaf_salt(run_key: bytes, role: str, position: int) -> bytes:
    """The salt of the record of one example in one role."""
    return salt(run_key, "leaf/" + role, position)


def records(run_key: bytes, taken: Taken) -> Iterable[tuple[Key, dict[str, Any]]]:
    """The record of the example in each of its roles, and the key of the source row it belongs to.

    Values are canonical as they come from the store. What could be guessed is blinded: hexadecimal SHA-256(field salt ‖
    value).
    """
    exchange, request, prompt = taken.exchange, taken.request, taken.prompt
    model, at = exchange["model"], taken.position
    example_salt, sha256 = salt(run_key, "fields", at), hashlib.sha256

    def blinded(field: bytes, value: bytes) -> str:
        return sha256(sha256(example_salt + field).digest() + value).hexdigest()

    common: dict[str, Any] = {
        "position": at,
        "exchange": blinded(b"exchange", taken.digest.encode()),
        "prompt": blinded(b"prompt", _compact(request["messages"])),
        "prompt_source": {
            "source": prompt["source"],
            "digest": prompt["source_digest"],
            "licence": prompt["licence"],
        },
        "origin": exchange["origin"],
        "parents": [],
        "terms": exchange["terms_digest"],
        "twin": exchange["twin"],
    }
    answered = {
        **common,
        "teacher": {name: value for name, value in model.items() if name != "licence"},
        "licence": model["licence"],
        "generation": {"params": request["params"], "draw": request["draw"], "purpose": request["purpose"]},
        "asked_at": exchange["asked_at"],
        "request_id_hash": exchange["request_id_hash"],
        "answer": blinded(b"answer", exchange["answer"].encode()),
        "logprobs": blinded(b"logprobs", _compact(exchange["logprobs"])) if exchange["logprobs"] else "",
        "transforms": list(taken.transforms),
        "prompt_tokens": exchange["usage"]["prompt_tokens"],
    }
    passes = 0
    for role, tokens in taken.tokens.items():
        passes = max(passes, tokens.passes)
        if tokens.loss or role not in (Role.TEXT_TARGET, Role.SOFT_TARGET):
            key = (
                model["model_asked"], model["weights_digest"], model["provider"], model["route"], model["licence"], role,
            )  # fmt: skip
            yield key, {**answered, "role": role, "tokens": tokens._asdict()}
    author = (prompt["source"], prompt["source_digest"], "", "file", prompt["licence"], str(Role.PROMPT_AUTHOR))
    yield author, {**common, "role": author[5], "tokens": Tokens(0, passes)._asdict()}


class _Row:
    """The records and trees of one source, while they are written."""

    def __init__(self, folder: Path, key: Key, run_key: bytes) -> None:
        self.key = key
        self.folder = folder
        self._run_key = run_key
        self._role = key[5]
        folder.mkdir(parents=True)
        self._file: BinaryIO = (folder / "records").open("wb", buffering=_BUFFER)
        self._places: BinaryIO = (folder / "places").open("wb", buffering=_BUFFER)
        self._offset = 0
        self._leaves = LevelWriter(folder / "leaves").__enter__()
        self._sums = LevelWriter(folder / "sums", sumtree.combine).__enter__()

    def add(self, record: dict[str, Any]) -> None:
        line = _compact(record)
        leaf = leaf_hash(leaf_salt(self._run_key, self._role, record["position"]) + line)
        self._leaves.append(leaf)
        self._sums.append(sumtree.leaf_node(leaf, record["tokens"]["loss"]))
        self._file.write(line + b"\n")
        self._places.write(_PLACE.pack(record["position"], self._offset))
        self._offset += len(line) + 1

    def close(self) -> SourceRow:
        self._file.close()
        self._places.close()
        self._leaves.__exit__(None, None, None)
        self._sums.__exit__(None, None, None)
        sums = sumtree.taken_apart(self._sums.root)
        return _row(self.key, self._leaves.size, sums, self._leaves.root)


def write_examples(
    run_key: bytes, taken: Iterable[Taken], lineage: Iterable[Lineage], out: Path
) -> tuple[SourceRow, ...]:
    """Writes records and trees of every source under `out`, which is replaced, and returns the source table.

    An example is in a row once, however often it was stepped on. Raises `StorageError` when the disk is full.
    """
    scratch = out.with_name(out.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    rows: dict[Key, _Row] = {}
    with writing(out):
        scratch.mkdir(parents=True)
        for example in taken:
            for key, record in records(run_key, example):
                row = rows.get(key)
                if row is None:
                    row = rows[key] = _Row(scratch / f"open-{len(rows)}", key, run_key)
                row.add(record)
        made = {key: row.close() for key, row in rows.items()}
        for base in lineage:
            key = (base.name, base.weights, "", "file", base.licence, str(Role.BASE_LINEAGE))
            made[key] = _row(key, 0, sumtree.Sum(EMPTY_ROOT, 0), EMPTY_ROOT)
        for number, key in enumerate(sorted(made)):
            if key in rows:
                (rows[key].folder / "records").rename(scratch / f"{number}.jsonl")
                rows[key].folder.rename(scratch / str(number))
        shutil.rmtree(out, ignore_errors=True)
        scratch.rename(out)
    return tuple(made[key] for key in sorted(made))


class Opened(NamedTuple):
    """A record of a row as it is on disk: its leaf number, its position in the selection, and its canonical bytes."""

    index: int
    position: int
    line: bytes


def open_leaf(examples: Path, number: int, index: int) -> Opened:
    """The record of leaf `index` in row `number`."""
    with (examples / str(number) / "places").open("rb") as places, (examples / f"{number}.jsonl").open("rb") as file:
        places.seek(index * _PLACE.size)
        position, offset = _PLACE.unpack(places.read(_PLACE.size))
        file.seek(offset)
        return Opened(index, position, file.readline().rstrip(b"\n"))


def find_leaf(examples: Path, number: int, position: int) -> int | None:
    """The leaf in row `number` of the example at that position of the selection; None when it has none there."""
    path = examples / str(number) / "places"
    if not path.exists():
        return None
    with path.open("rb") as places:

        def position_at(index: int) -> int:
            places.seek(index * _PLACE.size)
            return _PLACE.unpack(places.read(_PLACE.size))[0]

        size = path.stat().st_size // _PLACE.size
        index = bisect.bisect_left(range(size), position, key=position_at)
        return index if index < size and position_at(index) == position else None


def leaf_tree(examples: Path, number: int) -> Levels:
    """The tree of a row's leaf hashes."""
    return Levels(examples / str(number) / "leaves")


def sum_tree(examples: Path, number: int) -> Levels:
    """The tree of a row's leaf hashes with their loss tokens."""
    return Levels(examples / str(number) / "sums", sumtree.NODE_BYTES)


def row_salt(run_key: bytes, number: int) -> bytes:
    """The salt of a row of the source table; it is published with the row, and kept back with a blinded one."""
    return salt(run_key, "sources", number)


def table_root(run_key: bytes, rows: Iterable[SourceRow]) -> bytes:
    """The root over the salted rows (RFC 6962): what the statement names."""
    return root(leaf_hash(row_salt(run_key, at) + canonical(row.to_json())) for at, row in enumerate(rows))


def source_table(run_key: bytes, rows: tuple[SourceRow, ...]) -> dict[str, Any]:
    """`provenance/sources.json`: every row with its salt, the totals, and the root over them."""
    return {
        "schema_version": 1,
        "rows": [{"row": row.to_json(), "salt": row_salt(run_key, number).hex()} for number, row in enumerate(rows)],
        "loss_tokens": sum(row.loss_tokens for row in rows),
        "root": "sha256:" + table_root(run_key, rows).hex(),
    }


def _row(key: Key, examples: int, sums: sumtree.Sum, leaves: bytes) -> SourceRow:
    teacher, weights, provider, route, licence, role = key
    return SourceRow(
        teacher=teacher,
        weights=weights,
        provider=provider,
        route=route,
        licence=licence,
        role=Role(role),
        upstream=UNKNOWN_UPSTREAM,
        examples=examples,
        loss_tokens=sums.total,
        leaves="sha256:" + leaves.hex(),
        sums="sha256:" + sums.hash.hex(),
    )


def _compact(value: Any) -> bytes:
    """Canonical bytes of values that are canonical already (they come from the store), without checking them again."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
