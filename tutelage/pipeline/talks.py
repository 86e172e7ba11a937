"""The conversations of a training as its data stage wrote them, and what its steps took of whom."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.collect.conversations import Author
from tutelage.jsonl import read_lines
from tutelage.pipeline.gate_training import base_in, teacher_in
from tutelage.records import Role
from tutelage.training_config import TrainingConfig

BEFORE, SIGNALS = "before", "signals"
TALKS = Path("data") / "conversations.jsonl"
AUTHORS = Path("data") / "authors.json"


def texts_in(folder: Path) -> list[str]:
    """What is said in the conversations that are trained on."""
    rows = (row for row in read_lines(folder / TALKS) if row["kind"] == "train")
    return ["\n".join(message["content"] for message in row["messages"]) for row in rows]


class Sides(NamedTuple):
    """Conversations as (id, messages), to train on and to judge by; those whose answer was cut; and each one's author."""

    train: list[tuple[str, list[dict[str, Any]]]]
    validation: list[tuple[str, list[dict[str, Any]]]]
    cut: frozenset[str]
    author: dict[str, int]


def sides_in(folder: Path) -> Sides:
    """As the data stage wrote them."""
    rows = list(read_lines(folder / TALKS))
    train, validation = (
        [(row["id"], row["messages"]) for row in rows if row["kind"] == kind] for kind in ("train", "validation")
    )
    cut = frozenset(row["id"] for row in rows if row["cut"])
    return Sides(train, validation, cut, {row["id"]: row["author"] for row in rows})


def sources(config: TrainingConfig, folder: Path, steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who gave how many loss tokens, in which role, over how many conversations, from the steps that were taken."""
    authors = [Author(**one) for one in json.loads((folder / AUTHORS).read_bytes())["authors"]]
    author, tokens, seen = sides_in(folder).author, Counter[tuple[str, ...]](), dict[tuple[str, ...], set[str]]()
    soft: Author | None = None
    if config.teacher is not None:
        teacher = teacher_in(config)
        soft = Author(teacher.name, teacher.digest, "local", "embedded", teacher.licence)
    for step in steps:
        for name, by_role in zip(step["examples"], step["loss_tokens"], strict=True):
            for role, count in by_role.items():
                who = soft if role == Role.SOFT_TARGET and soft is not None else authors[author[name]]
                tokens[*who, role] += count
                seen.setdefault((*who, role), set()).add(name)
            asked = (*authors[author[name]], str(Role.PROMPT_AUTHOR))  # who wrote the text that it all hangs on
            tokens[asked] += 0
            seen.setdefault(asked, set()).add(name)
    base = base_in(config)
    found = [
        {**Author(*key[:5])._asdict(), "role": key[5], "examples": len(seen[key]), "loss_tokens": count}
        for key, count in sorted(tokens.items())
    ]
    whole = Author(base.name, base.digest, "", "file", base.licence)
    return [*found, {**whole._asdict(), "role": str(Role.BASE_LINEAGE), "examples": 0, "loss_tokens": 0}]


def consumed(steps: Sequence[dict[str, Any]], roles: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each step was stepped on: conversations, and the loss tokens of each by role."""
    for step in steps:
        yield {
            "step": step["step"],
            "own_text": round(step.get("rollout/own_text", 0)),
            "examples": step["examples"],
            "loss_tokens": [dict.fromkeys(roles, count) for count in step["example_tokens"]],
        }
