"""The conversations of a training: answers that were collected, what the data stage wrote, what the steps took of whom."""

import base64
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.canon import digest_file, digest_of
from tutelage.collect.conversations import Author, Talks, stored_talks
from tutelage.errors import ConfigError
from tutelage.jsonl import read_lines
from tutelage.records import UNATS_PER_NAT, Role
from tutelage.store.store import Store
from tutelage.training_config import ConversationsTable

BEFORE, SIGNALS = "before", "signals"
TALKS = Path("data") / "conversations.jsonl"
AUTHORS = Path("data") / "authors.json"
SOURCES = Path("train") / "sources.json"
CONSUMED = Path("train") / "consumed.jsonl"
QUESTIONS, ANSWERS = Path("data") / "questions.jsonl", Path("collect") / "exchanges.jsonl"  # of a collection


def is_recorded(folder: Path) -> bool:
    """Whether a folder of answers is one of `tutelage collect`, asked under a verdict on their terms. Raises `ConfigError` when
    there is no such folder, or it holds no answers, or those to label questions."""
    fix = "data.collected names a folder that `tutelage collect` made"
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "is not there"
        raise ConfigError(f"data.collected = {str(folder)!r} {problem}", fix=f"{fix}; it counts from where you are")
    if not (folder / "store").is_dir():
        raise ConfigError(f"{folder} holds no answers", fix=fix)
    if not (folder / "ledger" / "log.jsonl").exists():
        return False
    if not all((folder / file).exists() for file in (QUESTIONS, ANSWERS)):
        raise ConfigError(
            f"{folder} is no finished collection of open questions",
            fix="finish `tutelage collect`, or name another folder",
        )
    return True


def digest_of_answers(folder: Path) -> str:
    """Of a collection's answers and questions, or of all that is in a store."""
    files = [folder / ANSWERS, folder / QUESTIONS] if is_recorded(folder) else sorted((folder / "store").glob("*.seg"))
    return digest_of({file.name: digest_file(file) for file in files})


class Answers(NamedTuple):
    """What was collected, and who wrote the questions: their file; of captured and imported answers nobody knows."""

    talks: Talks
    asked_by: Author


def answers_in(folder: Path, table: ConversationsTable) -> Answers:
    """Those of a collection, or of all of a store. Raises `ConfigError` as `is_recorded` does, and for answers to questions that
    are not in the folder; `DataError` when there is no answer."""
    recorded = is_recorded(folder)
    rows = list(read_lines(folder / ANSWERS)) if recorded else []
    with Store(folder / "store") as store:
        addresses = [row["address"] for row in rows]
        if not recorded:
            addresses = list(dict.fromkeys(line.value["request_digest"] for line in store.records("exchange")))
        talks = stored_talks(store.pairs(addresses), table)
    if not recorded:
        return Answers(talks, Author(f"questions in {folder.name}", "", "", "file", ""))
    return Answers(talks, _author_of({row["prompt"] for row in rows}, folder))


def _author_of(asked: set[str], folder: Path) -> Author:
    """The file that a collection's questions come from; it has one."""
    authors = {}
    for line in read_lines(folder / QUESTIONS):
        if line["prompt_id"] in asked:
            author = Author(line["source"], line["source_digest"], "", "file", line["licence"])
            authors[author] = authors.get(author, 0) + 1
    if len(authors) != 1 or sum(authors.values()) != len(asked):
        raise ConfigError(
            f"{folder} was begun again with other questions than those that were answered",
            fix="finish `tutelage collect` there, or name another folder",
        )
    return next(iter(authors))


def texts_in(folder: Path) -> list[str]:
    """What is said in the conversations that are trained on."""
    rows = (row for row in read_lines(folder / TALKS) if row["kind"] == "train")
    return [
        "\n".join([*(message["content"] for message in row["messages"]), *filter(None, [row.get("rationale")])])
        for row in rows
    ]


class Sides(NamedTuple):
    """Conversations as (id, messages), to train on and to judge by, those whose answer was cut, and by id, where there are any,
    the name of the one of several teachers that teaches it, and the reasoning that is learnt beside its answer."""

    train: list[tuple[str, list[dict[str, Any]]]]
    validation: list[tuple[str, list[dict[str, Any]]]]
    cut: frozenset[str]
    teachers: Mapping[str, str]
    rationales: Mapping[str, str]


def sides_in(folder: Path) -> Sides:
    """As the data stage wrote them."""
    rows = list(read_lines(folder / TALKS))
    train, validation = (
        [(row["id"], row["messages"]) for row in rows if row["kind"] == kind] for kind in ("train", "validation")
    )
    cut = frozenset(row["id"] for row in rows if row["cut"])
    teachers, rationales = ({row["id"]: row[key] for row in rows if key in row} for key in ("teacher", "rationale"))
    return Sides(train, validation, cut, teachers, rationales)


def said_in(folder: Path) -> dict[str, list[tuple[bytes, float]]]:
    """The tokens of collected answers, by the conversation: bytes, and log-probabilities in nats."""
    rows = ((row["id"], row.get("said", ())) for row in read_lines(folder / TALKS))
    return {name: [(base64.b64decode(data), unats / UNATS_PER_NAT) for data, unats in said] for name, said in rows}


def sources(folder: Path, teachers: Mapping[str, Author], base: Author) -> list[dict[str, Any]]:
    """Who gave how many loss tokens, in which role, over how many conversations, from the steps that were taken. `teachers` by
    their names, "" for the only one."""
    authors = [Author(**one) for one in json.loads((folder / AUTHORS).read_bytes())["authors"]]
    rows = list(read_lines(folder / TALKS))
    whose = {row["id"]: (authors[row["author"]], authors[row["asked_by"]]) for row in rows}
    taught = {row["id"]: teachers[row.get("teacher", "")] for row in rows} if teachers else {}
    tokens, seen = Counter[tuple[str, ...]](), dict[tuple[str, ...], set[str]]()
    for step in read_lines(folder / CONSUMED):
        for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
            author, asked_by = whose[name]
            teacher = taught.get(name, author)
            whom = {Role.SOFT_TARGET: teacher, Role.OWN_TEXT: base}
            parts = [(whom.get(Role(role), author), role, by_role[role]) for role in by_role]
            for who, role, count in (*parts, (asked_by, str(Role.PROMPT_AUTHOR), 0)):  # whose text it all hangs on
                tokens[*who, role] += count
                seen.setdefault((*who, role), set()).add(name)
    found = [
        {**Author(*key[:5])._asdict(), "role": key[5], "examples": len(seen[key]), "loss_tokens": count}
        for key, count in sorted(tokens.items())
    ]
    return [*found, {**base._asdict(), "role": str(Role.BASE_LINEAGE), "examples": 0, "loss_tokens": 0}]


def consumed(steps: Sequence[dict[str, Any]], roles: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each step was stepped on: conversations, and the loss tokens of each by role."""
    for step in steps:
        yield {
            "step": step["step"],
            "own_text": math.ceil(step.get("rollout/own_text", 0)),  # whether any of it was the student's
            "examples": step["examples"],
            "loss_tokens": [
                count if isinstance(count, dict) else dict.fromkeys(roles, count) for count in step["example_tokens"]
            ],
        }
