"""Answers out of a store as JSON Lines or Parquet, in the columns that Hugging Face's trainers read.

Source: TRL, dataset formats (conversational prompt-completion, and conversational language modelling). The file is written
whole or not at all, and a row at a time: no number of answers fills the memory.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import orjson

from tutelage.collect.rows import need_pyarrow
from tutelage.errors import DataError
from tutelage.jsonl import writing
from tutelage.records import NUSD_PER_USD, RAW, Role
from tutelage.store.store import Pair, Store

Form = Literal["prompt-completion", "messages"]
_BATCH_ROWS, _BATCH_BYTES = 4096, 32 << 20  # of a Parquet row group, whichever comes first


class Exported(NamedTuple):
    """How many rows were written; left out were answers to `held_out` questions, kept for a proof, and `completions` of
    plain text, which have no messages. For `unchecked` of the rows no terms were checked when they came."""

    rows: int
    held_out: int
    completions: int
    unchecked: int


def export(
    store: Store, out: Path, file_format: Literal["jsonl", "parquet"], addresses: Iterable[str] | None = None,
    form: Form = "prompt-completion",
) -> Exported:  # fmt: skip
    """Writes the first answer under each address (default: all there are, in the order of the store).

    Columns are `prompt` and `completion`, or `messages`: lists of messages; where there are any `tools` (a list; in
    Parquet, whose columns have one type, its JSON text) and `schema` (JSON text); and `metadata`. Raises `DataError` when
    there is nothing to write or pyarrow is missing, `StorageError` when the disk is full or the store is damaged.
    """
    pairs = _first_answers(store) if addresses is None else store.pairs(addresses)
    counts: Counter[str] = Counter()
    rows = _rows(pairs, form, counts)
    pyarrow = need_pyarrow(out) if file_format == "parquet" else None
    with _whole(out) as file:
        if pyarrow is not None:
            _write_parquet(pyarrow, file, rows, form)
        else:
            for row in rows:
                file.write(orjson.dumps(row) + b"\n")
        if not counts["rows"]:
            raise DataError(
                f"{store.folder} has no answer to export", fix="give a run folder whose teacher has answered something"
            )
    return Exported(counts["rows"], counts["held_out"], counts["completions"], counts["unchecked"])


def _first_answers(store: Store) -> Iterator[Pair]:
    """Every address once. In a segment the question stands just before its answer (docs/formats.md)."""
    digest, request = "", {}
    for _, line in store.lines():
        if line.kind == "request":
            digest, request = line.digest, line.value
        elif line.kind == "exchange":
            address = line.value["request_digest"]
            if store.digest_at(address) != line.digest:
                continue  # another process asked the same question at the same time: the first answer counts
            if address == digest:
                yield Pair(line.digest, line.value, request)
            else:
                yield from store.pairs([address])


def _rows(pairs: Iterable[Pair], form: Form, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        if pair.exchange["role"] == Role.EVALUATION:
            counts["held_out"] += 1
        elif pair.request["messages"][0]["role"] == RAW:
            counts["completions"] += 1
        else:
            counts["rows"] += 1
            counts["unchecked"] += not pair.exchange["terms_digest"]
            yield row_of(pair, form)


def row_of(pair: Pair, form: Form) -> dict[str, Any]:
    """One answer as a row of JSON Lines."""
    request, exchange = pair.request, pair.exchange
    answer = {"role": "assistant", "content": exchange["answer"]}
    answer |= {key: exchange[key] for key in ("reasoning", "tool_calls") if exchange[key]}
    asked = request["messages"]
    row: dict[str, Any] = {"messages": [*asked, answer]}
    if form == "prompt-completion":
        row = {"prompt": asked, "completion": [answer]}
    if request.get("tools"):
        row["tools"] = orjson.loads(request["tools"])
    if request.get("schema"):
        row["schema"] = request["schema"]
    model = exchange["model"]
    row["metadata"] = {
        "model": model["model_reported"] or model["model_asked"],
        "provider": model["provider"],
        "address": exchange["request_digest"],
        "exchange": pair.digest,
        "draw": request["draw"],
        "finish_reason": exchange["finish_reason"],
        "cost_usd": usd(exchange["price"]["cost_nusd"]),
        "licence": model["licence"],
        "terms": exchange["terms_digest"],
        "origin": exchange["origin"],
        "asked_at": exchange["asked_at"],
    }
    return row


def usd(nusd: int) -> str:
    """Nano-USD as dollars in decimal digits, exactly."""
    whole, rest = divmod(nusd, NUSD_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _write_parquet(pyarrow: Any, file: BinaryIO, rows: Iterable[dict[str, Any]], form: Form) -> None:
    schema = _schema(pyarrow, form)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            size += len(orjson.dumps(row))
            if "tools" in row:
                row["tools"] = orjson.dumps(row["tools"]).decode()
            batch.append(row)
            if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
                batch, size = [], 0
        if batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))


def _schema(pyarrow: Any, form: Form) -> Any:
    text = pyarrow.string()
    function = pyarrow.struct([("name", text), ("arguments", text)])
    call = pyarrow.struct([("id", text), ("type", text), ("function", function)])
    asked = [
        ("role", text),
        ("content", text),
        ("tool_calls", pyarrow.list_(call)),
        ("tool_call_id", text),
        ("name", text),
    ]
    message = pyarrow.struct([*asked, ("reasoning", text)])
    names = ("messages",) if form == "messages" else ("prompt", "completion")
    keys = ("model", "provider", "address", "exchange", "finish_reason", "cost_usd", "licence", "terms", "origin")
    metadata = pyarrow.struct([*((key, text) for key in (*keys, "asked_at")), ("draw", pyarrow.int64())])
    columns = [(name, pyarrow.list_(message)) for name in names]
    return pyarrow.schema([*columns, ("tools", text), ("schema", text), ("metadata", metadata)])


@contextmanager
def _whole(out: Path) -> Iterator[BinaryIO]:
    """A file that is there when everything was written, and not before."""
    fresh = out.with_name(out.name + ".new")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        fresh.replace(out)
