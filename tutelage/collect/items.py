"""The items of a proof out of a file: questions with gold beside some of them, none that was trained on."""

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_file, digest_of
from tutelage.collect.questions import UnusableRow, question_of
from tutelage.collect.rows import Row, format_of, listed, rows_of
from tutelage.collect.sources import BadRow
from tutelage.config import PromptsTable
from tutelage.errors import DataError
from tutelage.jsonl import read_lines
from tutelage.records import Question

_MODEL_COLUMNS = {"exchange", "address", "finish_reason"}  # of an export: its answers are a model's
_ASKED = ("data/prompts.jsonl", "data/questions.jsonl", "data/conversations.jsonl")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A held-out question and its gold; `gold` is empty where there is none."""

    question: Question
    gold: str


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a checked file in its order, each question once; `repeated` rows said one again."""

    items: tuple[Item, ...]
    digest: str
    repeated: int
    bad: tuple[BadRow, ...]


def read_items(path: Path, table: PromptsTable, gold: str | None) -> Items:
    """Every usable row; `gold` names the column with the gold answer, which may be empty or missing in some rows.

    Raises `DataError`: no such file, no usable row, bad rows when `bad_rows` is "stop", one question with two golds, and gold
    in a file of exported answers: a model wrote it.
    """
    form, found, bad = format_of(path, table.format), dict[str, Item](), list[BadRow]()
    total = repeated = 0
    columns: set[str] = set()
    for row in rows_of(path, form):
        total += 1
        columns |= row.fields.keys()
        try:
            item = _item(row, table, path.name, gold)
        except UnusableRow as error:
            bad.append(BadRow(row.line, str(error)))
            continue
        known = found.setdefault(item.question.prompt_id, item)
        if known is not item:
            repeated += 1
            if not known.gold or not item.gold:
                found[item.question.prompt_id] = item if item.gold else known
            elif known.gold != item.gold:
                raise DataError(
                    f"{path}, line {row.line}: the same question has the gold {known.gold!r:.60} and {item.gold!r:.60}",
                    fix="keep one of the rows",
                )
        if len(found) == table.limit:
            break
    if total and not bad and gold is not None and gold not in columns:
        near = difflib.get_close_matches(gold, columns, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"{path} has no column {gold!r} for the gold{meant}", fix=f"its columns: {', '.join(sorted(columns))[:200]}"
        )
    if bad and table.bad_rows == "stop":
        raise listed(path, bad, total, 'mend those lines, or go on without them: bad_rows = "skip" under [items]')
    if not found:
        raise DataError(f"{path} has no usable row", fix="one item a row; see docs/prove.md")
    return Items(tuple(found.values()), digest_file(path), repeated, tuple(bad))


def _item(row: Row, table: PromptsTable, source: str, column: str | None) -> Item:
    question = question_of(row, table, source, "")
    if column is None:
        return Item(question, "")
    if written := sorted(_MODEL_COLUMNS & row.fields.keys()):
        raise UnusableRow(f"has the column {written[0]}: an exported answer is a model's, and no gold")
    return Item(question, gold_text(row.fields.get(column)))


def gold_text(value: Any) -> str:
    """Gold as text: words as they stand, anything else as JSON. Raises `UnusableRow` for what is not JSON (NaN)."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise UnusableRow(f"its gold is {value!r:.40}, which is no number") from None


class Trained(NamedTuple):
    """How many questions were trained on, and their digest."""

    questions: int
    digest: str


def require_provable(items: Sequence[Item], *, is_binary: bool) -> None:
    """Raises `DataError` for what no interval can be made of: sessions named in some rows only, or one session; one gold answer
    for all items where an answer is right or wrong."""
    sessions = [item.question.group for item in items]
    if any(sessions) and not all(sessions):
        raise DataError(
            f"{sum(map(bool, sessions))} of {len(sessions)} items name a session", fix="name it in all rows, or in none"
        )
    if len(items) > 1 and sessions[0] and len(set(sessions)) == 1:
        raise DataError(
            f"all {len(items)} items are of one session {sessions[0]!r:.60}",
            fix="add sessions, or name none: within one session nothing says how sessions differ",
        )
    gold = [item.gold for item in items if item.gold]
    if is_binary and len(gold) > 1 and len(set(gold)) == 1:
        raise DataError(
            f"all {len(gold)} gold answers are {gold[0]!r:.60}: one class only",
            fix="a model that always says this would be perfect: add items with other answers",
        )


def require_unseen(items: Iterable[Item], seen: Iterable[str]) -> Trained:
    """What was trained on; none of the items may be among it. `seen`: files of questions or run folders.

    A question is known by all its user turns up to the last, in lower case, white space and punctuation between words aside. A
    conversation that was trained on is known up to each of its user turns. Raises `DataError` with the overlap, and for what
    cannot be read.
    """
    trained: dict[str, str] = {}
    for name in seen:
        for turns in _asked_in(Path(name)):
            for end in range(1, len(turns) + 1):
                trained.setdefault(_plain(turns[:end]), name)
    found = [(item, trained[key]) for item in items if (key := _plain(_turns(item.question))) in trained]
    if found:
        shown = "; ".join(f"{words_of(item.question)[:60]!r} in {where}" for item, where in found[:_SHOWN])
        raise DataError(
            f"{len(found)} items were trained on: {shown}",
            fix="take them out of the items: a proof on questions that were trained on proves nothing",
        )
    return Trained(len(trained), digest_of(sorted(trained)))


def words_of(question: Question) -> str:
    """The last user turn."""
    return next(reversed(_turns(question)), "")


def _turns(question: Question) -> list[str]:
    return [turn.content for turn in question.messages if turn.role in ("user", "raw")]


def _asked_in(path: Path) -> Iterator[list[str]]:
    if path.is_dir():
        files = [path / name for name in _ASKED if (path / name).is_file()]
        if not files:
            raise DataError(
                f"{path} names no questions", fix="give a run folder, or a file of questions, under items.seen"
            )
        for file in files:
            for row in read_lines(file):
                if row.get("kind") in (None, "train", "validation"):
                    yield _turns_in(row)
    elif path.is_file():
        for row in rows_of(path, format_of(path, None)):
            if not row.problem:
                yield _turns_in(row.fields)
    else:
        raise DataError(f"items.seen names {path}, which is not there", fix="check the path")


def _turns_in(row: Mapping[str, Any]) -> list[str]:
    """The user turns of a row in any of the usual forms."""
    turns = row.get("messages")
    if isinstance(turns, list):
        return [
            turn["content"]
            for turn in turns
            if isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str)
        ]
    return [row[name] for name in ("prompt", "question", "instruction", "text") if isinstance(row.get(name), str)][:1]


def _plain(turns: Sequence[str]) -> str:
    """Words and signs that change a meaning (3 - 4 is not 3 + 4), in lower case; a text without either as it stands."""
    return "\n".join(
        " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", plain)) or plain.strip()
        for plain in (unicodedata.normalize("NFKC", turn).casefold() for turn in turns)
    )
