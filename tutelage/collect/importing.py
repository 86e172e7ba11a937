"""Answers that somebody else collected, into a store: declared, unverified, and never as written by people.

Nobody can check what model made them, so they say what the file or the person declares, and that it was declared. Columns
are those of `exporting`, or the usual names of question and answer; docs/exchanges.md has them. A `.json` file is a log of
Inspect (docs/interop.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from tutelage.canon import digest_bytes
from tutelage.collect.draws import MAX_DRAW, Draws
from tutelage.collect.inspected import inspect_rows
from tutelage.collect.questions import (
    UnusableRow,
    conversation_of,
    messages_of,
    parsed,
    schema_of,
    tools_of,
    with_system,
)
from tutelage.collect.rows import FileFormat, Row, format_of, listed, rows_of
from tutelage.collect.sources import BadRow
from tutelage.errors import DataError
from tutelage.models.exchange import now_utc
from tutelage.records import Exchange, Message, ModelId, Origin, Price, Request, Role, Usage
from tutelage.redact import Secrets
from tutelage.schema import one_line
from tutelage.store.store import Store

ANSWERS = ("completion", "answer", "response", "output")  # the first that is there is the answer
REASONING = ("reasoning", "reasoning_content", "thinking")
ROUTE = PURPOSE = "imported"
PRICE = Price(0, "not known: imported", "")
_PEOPLE = {"human", "humans", "person", "people"}


class Declared(NamedTuple):
    """What the person says of every row that does not say it itself. A row that says something else is bad."""

    model: str = ""
    provider: str = ""
    licence: str = ""


@dataclass(slots=True)
class Imported:
    """What came of a file: `added` answers are new, `known` were in the store already, `bad` rows were left out."""

    rows: int = 0
    added: int = 0
    known: int = 0
    bad: list[BadRow] = field(default_factory=list)


class Answer(NamedTuple):
    """One row: the question as a request, and what answered it."""

    request: Request
    text: str
    reasoning: str
    tool_calls: tuple[dict[str, Any], ...]
    finish_reason: str
    model: ModelId
    body: bytes  # the row as it stands in the file, secrets taken out


def import_file(
    path: Path, store: Store, declared: Declared, secrets: Secrets, file_format: FileFormat | None = None,
    bad_rows: Literal["stop", "skip"] = "stop",
) -> Imported:  # fmt: skip
    """Stores every answer of a file that the store does not have: importing twice adds nothing.

    Raises `DataError` before anything is stored: no such file, no usable row, or bad rows when `bad_rows` is "stop".
    """
    is_log = file_format is None and path.suffix.lower() == ".json"
    form = None if is_log else format_of(path, file_format)
    checked = Imported()
    usable = sum(1 for _ in _answers(path, form, declared, secrets, checked))
    if checked.bad and (bad_rows == "stop" or not usable):
        raise listed(path, checked.bad, checked.rows, "mend those lines, or go on without them: --bad-rows skip")
    if not usable:
        raise DataError(f"{path} has no row", fix="give a file with questions and answers; see docs/exchanges.md")
    found, draws = Imported(), Draws(store)
    for answer in _answers(path, form, declared, secrets, found):
        exchange = _exchange(answer)
        request = draws.place(answer.request, exchange)
        if request is None:
            found.known += 1
        else:
            store.put(request, replace(exchange, request_digest=request.digest), answer.body)
            found.added += 1
    return found


def _answers(
    path: Path, form: FileFormat | None, declared: Declared, secrets: Secrets, found: Imported
) -> Iterator[Answer]:
    for row in inspect_rows(path) if form is None else rows_of(path, form):
        found.rows += 1
        try:
            yield answer_of(row, declared, secrets)
        except UnusableRow as error:
            found.bad.append(BadRow(row.line, str(error)))


def answer_of(row: Row, declared: Declared, secrets: Secrets) -> Answer:
    """One row. Raises `UnusableRow`."""
    if row.problem:
        raise UnusableRow(row.problem)
    raw = row.raw or orjson.dumps(row.fields, default=str)
    body = secrets.scrub(raw)
    fields = row.fields if body is raw else orjson.loads(body)
    turns, reasoning = turns_of(fields)
    *asked, said = turns
    if said.role != "assistant" or not asked:
        raise UnusableRow("no answer of an assistant after the question")
    if not said.content.strip() and not said.tool_calls:
        raise UnusableRow("the answer is empty")
    told = fields.get("metadata") if isinstance(fields.get("metadata"), dict) else {}
    model, draw, finish = _model(fields, told, declared), told.get("draw"), told.get("finish_reason")
    draw = draw if type(draw) is int else 0
    if not 0 <= draw <= MAX_DRAW:
        raise UnusableRow(f"metadata.draw is {draw}, not from 0 to {MAX_DRAW}")
    request = Request(
        with_system(tuple(asked), fields.get("system"), ""), {}, model.model_asked, ROUTE, PURPOSE,
        draw, tools_of(fields), schema_of(fields),
    )  # fmt: skip
    finish = one_line(finish) if isinstance(finish, str) else ""
    return Answer(request, said.content, reasoning, said.tool_calls, finish, model, body)


def turns_of(fields: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    """All turns, the answer last, and its reasoning."""
    column = next((name for name in ANSWERS if fields.get(name) is not None), None)
    if column is None:
        asked = parsed(fields.get("messages"), "messages")
        asked = fields.get("prompt") if asked is None else asked
        if not isinstance(asked, list):
            raise UnusableRow(f"no answer: no column {', '.join(ANSWERS)}, and no messages that end with one")
        turns, last = messages_of(asked, "messages"), asked[-1]
    else:
        said = fields[column]
        said = [{"role": "assistant", "content": said}] if isinstance(said, str) else said
        if not isinstance(said, list) or not said:
            raise UnusableRow(f"{column} is {ascii(said)[:80]}, not text or a list of messages")
        asked = [message.to_json() for message in conversation_of(fields, None)]
        if asked[-1]["role"] == "assistant" and isinstance(said[0], dict) and said[0].get("role") == "assistant":
            raise UnusableRow(f"two answers: one at the end of the question, one in {column}")
        turns, last = messages_of([*asked, *said], column), said[-1]
    told = [source.get(name) for source in (last, fields) for name in REASONING]
    reasoning = next((text for text in told if isinstance(text, str) and text), "")
    return turns, reasoning


def _model(fields: dict[str, Any], told: dict[str, Any], declared: Declared) -> ModelId:
    """Whose answer it is, as declared. Every digest and fingerprint stays empty: nobody can tell."""
    named = {}
    for key, ours in declared._asdict().items():
        keys = ("licence", "license") if key == "licence" else (key,)
        candidates = [source.get(name) for source in (told, fields) for name in keys]
        own = next((text for text in candidates if isinstance(text, str) and text), "")
        if own and ours and own != ours:
            raise UnusableRow(f"it says {key} {ascii(own)[:60]}, you declare {ascii(ours)[:60]}: leave --{key} away")
        named[key] = one_line(own or ours)
    for key in ("model", "licence"):
        if not named[key]:
            raise UnusableRow(f"no {key} is declared: add --{key}")
    if people := _PEOPLE & {named["model"].casefold(), named["provider"].casefold()}:
        raise UnusableRow(f"{min(people)!r} is no model: imported answers are never taken for people's")
    return ModelId(named["provider"], ROUTE, named["model"], "", "", "", "", "", "", named["licence"])


def _exchange(answer: Answer) -> Exchange:
    """`asked_at` is when it was imported: when it was asked, nobody knows."""
    return Exchange(
        request_digest="",  # known when its draw is
        model=answer.model,
        answer=answer.text,
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        finish_reason=answer.finish_reason,
        logprobs=(),
        usage=Usage(0, 0, 0),
        price=PRICE,
        latency_ms=0,
        attempts=0,
        request_id_hash="",
        raw_body_digest=digest_bytes(answer.body),
        terms_digest="",
        twin=None,
        origin=Origin.IMPORTED,
        role=Role.TEXT_TARGET,
        asked_at=now_utc(),
    )
