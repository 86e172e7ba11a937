"""No item of a proof may have been trained on: what is asked, compared with what was."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_of
from tutelage.collect.rows import format_of, rows_of
from tutelage.errors import DataError
from tutelage.jsonl import read_lines
from tutelage.records import Question

_ASKED = ("data/prompts.jsonl", "data/questions.jsonl", "data/conversations.jsonl")
_SHOWN = 3
Turns = Sequence[str]


class Asked(NamedTuple):
    """What was trained on: the user's turns of a conversation, or one text, and in which file they are."""

    turns: Turns
    where: str


class Trained(NamedTuple):
    """How many questions were trained on, and their digest."""

    questions: int
    digest: str


def require_unseen(held_out: Sequence[Turns], trained: Iterable[Asked]) -> Trained:
    """What was trained on; none of the held-out items may be among it.

    An item is known by all its user turns up to the last, in lower case, white space and punctuation between words aside. A
    conversation that was trained on is known up to each of its user turns. Raises `DataError` with the overlap.
    """
    known: dict[str, str] = {}
    for one in trained:
        for end in range(1, len(one.turns) + 1):
            known.setdefault(_plain(one.turns[:end]), one.where)
    found = [(turns, known[key]) for turns in held_out if (key := _plain(turns)) in known]
    if found:
        shown = "; ".join(f"{turns[-1][:60]!r} in {where}" for turns, where in found[:_SHOWN] if turns)
        raise DataError(
            f"{len(found)} of {len(held_out)} held-out items were trained on: {shown}",
            fix="take them out of the items, or out of the data: a proof on what was trained on proves nothing",
        )
    return Trained(len(known), digest_of(sorted(known)))


def asked_in(seen: Iterable[str]) -> Iterator[Asked]:
    """Every question of these files, and of the files of these run folders. Raises `DataError` for what cannot be read."""
    for name in seen:
        yield from (Asked(turns, name) for turns in _turns_of(Path(name)))


def user_turns(question: Question) -> list[str]:
    return [turn.content for turn in question.messages if turn.role in ("user", "raw")]


def _turns_of(path: Path) -> Iterator[Turns]:
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


def _turns_in(row: Mapping[str, Any]) -> Turns:
    """The user turns of a row in any of the usual forms."""
    turns = row.get("messages")
    if isinstance(turns, list):
        return [
            turn["content"]
            for turn in turns
            if isinstance(turn, dict) and turn.get("role") == "user" and isinstance(turn.get("content"), str)
        ]
    return [row[name] for name in ("prompt", "question", "instruction", "text") if isinstance(row.get(name), str)][:1]


def _plain(turns: Turns) -> str:
    """Words and signs that change a meaning (3 - 4 is not 3 + 4), in lower case; a text without either as it stands."""
    return "\n".join(
        " ".join(re.findall(r"\w+|[^\w\s.,;:!?'\"()]", plain)) or plain.strip()
        for plain in (unicodedata.normalize("NFKC", turn).casefold() for turn in turns)
    )
