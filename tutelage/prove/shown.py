"""What is shown of an answer or a question, to people and to judges alike, and the digest of a page that was shown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.canon import digest_bytes
from tutelage.prove.gold_file import Unit
from tutelage.records import Question

SYSTEMS = ("teacher", "student")
BUTTONS_OF_PAIRS = ("First is better", "Second is better", "Equally good")


@dataclass(frozen=True, slots=True)
class Shown:
    """One page's matter. `answers` stand in the order shown; `order` says whose they are and is never sent."""

    unit: Unit
    turns: tuple[tuple[str, str], ...]  # role and text of what was asked
    answers: tuple[str, ...]
    order: tuple[str, ...]

    def digest(self, asked: str, choices: Sequence[str]) -> str:
        """Names everything on the page that a decision may rest on."""
        told = [asked, list(choices), [list(turn) for turn in self.turns], list(self.answers)]
        return digest_bytes(json.dumps(told, separators=(",", ":")).encode())  # ASCII: a text may hold lone surrogates


def turns_of(question: Question) -> tuple[tuple[str, str], ...]:
    """Role and text of every message."""
    return tuple((turn.role, with_calls(turn.content, turn.tool_calls)) for turn in question.messages)


def with_calls(text: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """The text as it stands, then the tools that are called, each with its arguments on a line of its own."""
    functions = [call.get("function") for call in calls]
    lines = [f"{one.get('name', '')}({one.get('arguments', '')})" for one in functions if isinstance(one, Mapping)]
    return "\n".join([text, *lines] if text else lines)
