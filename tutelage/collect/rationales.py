"""The reasoning that leads to an answer: a column of its own, or what stands before a marker in the answer. No torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tutelage.collect.questions import UnusableRow
from tutelage.records import Message
from tutelage.training_config import ConversationsTable


def told_apart(
    turns: tuple[Message, ...], fields: Mapping[str, Any], table: ConversationsTable
) -> tuple[tuple[Message, ...], str]:
    """The turns with the answer alone at their end, and its reasoning: empty where there is none. Raises `UnusableRow` for a
    column that is no text, and for an answer of which the marker leaves nothing."""
    if table.rationale is not None:
        found = fields.get(table.rationale)
        if found is not None and not isinstance(found, str):
            raise UnusableRow(f"column {table.rationale!r} is no text but {found!r:.80}")
        return turns, (found or "").strip()
    if table.rationale_marker is None or turns[-1].role != "assistant":
        return turns, ""
    rationale, answer = split_answer(turns[-1].content, table.rationale_marker)
    if not answer:
        raise UnusableRow(f"nothing stands after {table.rationale_marker!r} in its answer")
    return (*turns[:-1], replace(turns[-1], content=answer)), rationale


def split_answer(text: str, marker: str) -> tuple[str, str]:
    """What stands before the last marker, and after it; all of it is the answer where there is no marker. Of a closing tag such
    as `</think>` the opening one is taken off as well."""
    before, found, after = text.rpartition(marker)
    if not found:
        return "", text
    if marker.startswith("</"):
        before = before.lstrip().removeprefix(f"<{marker[2:]}")
    return before.strip(), after.strip()
