"""A big store in a minute: more exchanges like the first one that a real run stored, as segment lines (docs/formats.md)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

SEGMENT_BYTES = 1 << 30


def grow(store: Path, count: int) -> None:
    """Appends segments until `count` more exchanges are there. Answers stay as long as the first one is."""
    segments = sorted(store.glob("*.seg"))
    body, request, exchange = _first_answer(segments[0])
    number = int(segments[-1].stem)
    lines = _lines(body, request, exchange, count)
    line: bytes | None = next(lines, None)
    while line is not None:
        number += 1
        with (store / f"{number:06d}.seg").open("wb", buffering=1 << 20) as file:
            while line is not None and file.tell() < SEGMENT_BYTES - (1 << 20):
                file.write(line)
                line = next(lines, None)


def _lines(body: dict[str, Any], request: dict[str, Any], exchange: dict[str, Any], count: int) -> Iterator[bytes]:
    """The three lines of one answer at a time."""
    answer = exchange["answer"]
    for at in range(count):
        said = f"{at:08d}{answer[8:]}"
        raw = body["text"].replace(answer, said)
        raw_digest = _digest(raw.encode())
        _, body_line = _stored(b"body", {**body, "text": raw, "digest": raw_digest})
        messages = [{**request["messages"][-1], "content": f"{at}: {request['messages'][-1]['content']}"}]
        address, request_line = _stored(b"request", {**request, "messages": messages})
        _, exchange_line = _stored(
            b"exchange", {**exchange, "request_digest": address, "answer": said, "raw_body_digest": raw_digest}
        )
        yield body_line + request_line + exchange_line


def _first_answer(segment: Path) -> tuple[dict[str, Any], ...]:
    found: dict[str, dict[str, Any]] = {}
    with segment.open("rb") as file:
        for line in file:
            _, kind, value = line.split(b" ", 2)
            found[kind.decode()] = orjson.loads(value)
            if kind == b"exchange":
                break
    return found["body"], found["request"], found["exchange"]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _stored(kind: bytes, value: dict[str, Any]) -> tuple[str, bytes]:
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    digest = _digest(data)
    return digest, b"%s %s %s\n" % (digest.encode(), kind, data)
