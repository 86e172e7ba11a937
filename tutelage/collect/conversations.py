"""Conversations to train on: out of a file in the usual forms, or out of the answers in a store; and which are set aside.

A conversation ends with an answer. Near-duplicate questions are all on one side of the split (`collect.groups`).
"""

import random
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_of
from tutelage.collect.groups import group_of_each
from tutelage.collect.importing import ANSWERS, turns_of
from tutelage.collect.questions import COLUMNS, UnusableRow, with_system
from tutelage.collect.rationales import told_apart
from tutelage.collect.rows import Row, format_of, listed, rows_of
from tutelage.collect.sources import BadRow
from tutelage.errors import DataError
from tutelage.records import RAW, Message, Role
from tutelage.store.store import Pair
from tutelage.training_config import ConversationsTable

LENGTH = "length"  # the finish reason of an answer that was cut at its limit


class Author(NamedTuple):
    """Whose words an answer is, as the source table names it; `provider` and `route` of a file are empty and "file"."""

    teacher: str
    weights: str
    provider: str
    route: str
    licence: str


class Talk(NamedTuple):
    """A conversation: `id` is the digest of its turns, `author` a place in `Talks.authors`; `cut`: its answer has no end;
    `teacher`: which of several teaches it; `rationale`: the reasoning that leads to the answer, where it is learnt too; `said`:
    of a collected answer with log-probabilities its tokens, each as bytes in base64 and how likely it was in micro-nats."""

    id: str
    messages: tuple[dict[str, Any], ...]
    cut: bool
    author: int
    teacher: str = ""
    rationale: str = ""
    said: tuple[tuple[str, int], ...] = ()


class Talks(NamedTuple):
    """Every conversation once. `repeated` said again what an earlier one says, `bad` rows were left out, `unchecked` answers
    came without a verdict on their terms, `shaped` ones were drawn at another temperature than 1 or with `top_p`."""

    talks: tuple[Talk, ...]
    authors: tuple[Author, ...]
    repeated: int = 0
    bad: tuple[BadRow, ...] = ()
    unchecked: int = 0
    shaped: int = 0


class Split(NamedTuple):
    """Places of the conversations to train on and to judge by, and how many groups of near-duplicates there are."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    groups: int


def read_talks(path: Path, table: ConversationsTable, digest: str, teachers: Collection[str] = ()) -> Talks:
    """Those of a file; `digest` is its own, `teachers` are the names that a row may be taught by. Raises `DataError`: no such
    file, no usable row, bad rows when they stop it."""
    author = Author(path.name, digest, "", "file", table.licence or "")
    found, bad, count, repeated = dict[str, Talk](), list[BadRow](), 0, 0
    for row in rows_of(path, format_of(path, table.format)):
        count += 1
        try:
            talk = talk_of(row, table)
            talk = talk._replace(teacher=_teacher_of(row, table, teachers)) if teachers else talk
            if talk.id in found and found[talk.id].teacher != talk.teacher:
                raise UnusableRow(f"taught by {talk.teacher!r}, and an earlier row that says the same by another")
        except UnusableRow as error:
            bad.append(BadRow(row.line, str(error)))
            continue
        if talk.id in found:
            repeated += 1
            continue
        found[talk.id] = talk
        if len(found) == table.limit:
            break
    if bad and (table.bad_rows == "stop" or not found):
        raise listed(path, bad, count, _fix(table, bool(found)))
    if not found:
        raise DataError(f"{path} is empty", fix="give messages, or a question and its answer, in each row")
    return Talks(tuple(found.values()), (author,), repeated, tuple(bad))


def _fix(table: ConversationsTable, some_are_good: bool) -> str:
    if some_are_good:
        return 'mend those lines, or go on without them: bad_rows = "skip" under [data]'
    routed = ", data.route (the column that names each row's teacher), data.teacher (for rows that name none)"
    keys = f"data.format, data.question, data.answer{routed if table.route else ''}"
    return f"mend those lines, or what tells their columns apart: {keys}"


def talk_of(row: Row, table: ConversationsTable) -> Talk:
    """One row as a conversation. Raises `UnusableRow`."""
    if row.problem:
        raise UnusableRow(row.problem)
    fields = row.fields
    if table.question is not None or table.answer is not None:
        fields = _renamed(fields, table.question, table.answer)
    if fields.get("tools"):
        raise UnusableRow("it has tools, which the student's prompt would not show")
    turns, _ = turns_of(fields)
    told = fields["metadata"] if isinstance(fields.get("metadata"), dict) else fields
    turns = with_system(turns, fields.get("system"), table.system)
    return _talk(*told_apart(turns, fields, table), told.get("finish_reason") == LENGTH)


def _teacher_of(row: Row, table: ConversationsTable, teachers: Collection[str]) -> str:
    """The teacher that the row's column names, else the usual one. Raises `UnusableRow` for a name that none has."""
    metadata = row.fields.get("metadata")
    told = row.fields | metadata if isinstance(metadata, dict) else row.fields
    name = (told.get(table.route) if table.route else None) or table.teacher
    if name is None and table.route not in told:
        raise UnusableRow(f"it has no column {table.route!r} (data.route), and there is no data.teacher")
    if name is None:
        raise UnusableRow(f"column {table.route!r} names no teacher, and there is no data.teacher")
    if name not in teachers:
        raise UnusableRow(f"column {table.route!r} is {name!r:.80}, none of the teachers {', '.join(teachers)}")
    return name


def stored_talks(pairs: Iterable[Pair], table: ConversationsTable) -> Talks:
    """Those of answers in a store; the answers kept for a proof and plain completions are left out. Raises `DataError` when
    there is none."""
    found, authors, repeated, unchecked, shaped = dict[str, Talk](), dict[Author, int](), 0, 0, 0
    bad = list[BadRow]()
    for count, pair in enumerate(pairs, 1):
        request, exchange = pair.request, pair.exchange
        if exchange["role"] == Role.EVALUATION or request["messages"][0]["role"] == RAW or request.get("tools"):
            continue
        model = exchange["model"]
        author = Author(
            model["model_reported"] or model["model_asked"],
            model["weights_digest"],
            model["provider"],
            model["route"],
            model["licence"],
        )
        if not exchange["answer"].strip():
            continue
        said = Message("assistant", exchange["answer"])
        turns = (*(Message.from_json(message) for message in request["messages"]), said)
        try:
            told = told_apart(with_system(turns, None, table.system), {}, table)
        except UnusableRow as error:
            bad.append(BadRow(count, f"answer {count}: {error}"))
            continue
        talk = _talk(*told, exchange["finish_reason"] == LENGTH)
        if talk.id in found:
            repeated += 1
            continue
        tokens = tuple((at["chosen"]["bytes_b64"], at["chosen"]["logprob_unats"]) for at in exchange["logprobs"])
        found[talk.id] = talk._replace(author=authors.setdefault(author, len(authors)), said=tokens)
        unchecked += not exchange["terms_digest"]
        shaped += any(float(request["params"].get(name, 1)) != 1 for name in ("temperature", "top_p"))
        if len(found) == table.limit:
            break
    if bad and (table.bad_rows == "stop" or not found):
        raise DataError(
            f"{len(bad):,} of {len(bad) + len(found) + repeated:,} collected answers teach nothing, the first {bad[0].problem}",
            fix=_fix(table, bool(found)).replace("mend those lines", "mend data.rationale_marker"),
        )
    if not found:
        raise DataError("there is no answer to learn from", fix="name a folder whose teacher has answered something")
    return Talks(tuple(found.values()), tuple(authors), repeated, tuple(bad), unchecked, shaped)


def split(talks: Sequence[Talk], validation: float, seed: int) -> Split:
    """Sets aside at least one group of near-duplicate questions, and no more conversations than `validation` says if any group
    is that small: a share below 1, or how many. Raises `DataError` when nothing is left to train on."""
    wanted = round(validation * len(talks)) if validation < 1 else int(validation)
    group = group_of_each([_asked(talk) for talk in talks])
    members: dict[int, list[int]] = {}
    for at, first in enumerate(group):
        members.setdefault(first, []).append(at)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    aside: list[int] = []
    for first in order[::-1]:
        if len(aside) + len(members[first]) <= wanted:
            aside += members[first]
    chosen = set(aside or min(members.values(), key=len))
    train = tuple(at for at in range(len(talks)) if at not in chosen)
    if len(train) < len(chosen):
        raise DataError(
            f"{len(talks)} conversations in {len(order)} groups of near-duplicates: {len(chosen)} to judge by would leave "
            f"{len(train)} to train on",
            fix="lower data.validation, or bring more conversations that differ",
        )
    return Split(train, tuple(sorted(chosen)), len(order))


def _talk(turns: Sequence[Message], rationale: str, cut: bool) -> Talk:
    messages = tuple(turn.to_json() for turn in turns)
    if messages[-1]["role"] != "assistant" or len(messages) < 2:
        raise UnusableRow("no answer of an assistant at the end of the conversation")
    if not messages[-1]["content"].strip():
        raise UnusableRow("the answer is empty")
    said = {"messages": list(messages)} | ({"rationale": rationale} if rationale else {})
    return Talk(digest_of(said), messages, cut, 0, rationale=rationale)


def _renamed(fields: dict[str, Any], question: str | None, answer: str | None) -> dict[str, Any]:
    """The row with the columns that were named in the places of the usual ones."""
    for column in (question, answer):
        if column is not None and fields.get(column) is None:
            raise UnusableRow(f"no column {column!r}; it has {', '.join(sorted(fields))[:80] or 'none'}")
    usual = {*(COLUMNS if question else ()), *(ANSWERS if answer else ())}
    kept = {name: value for name, value in fields.items() if name not in usual}
    return kept | ({"question": fields[question]} if question else {}) | ({"answer": fields[answer]} if answer else {})


def _asked(talk: Talk) -> str:
    return "\n".join(message["content"] for message in talk.messages if message["role"] == "user")
