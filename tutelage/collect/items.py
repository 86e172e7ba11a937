"""The items of a proof out of a file: questions with gold beside some of them."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.canon import digest_file
from tutelage.collect.questions import UnusableRow, question_of
from tutelage.collect.rows import Row, format_of, listed, rows_of
from tutelage.collect.sources import BadRow
from tutelage.collect.unseen import user_turns
from tutelage.config import PromptsTable
from tutelage.errors import DataError
from tutelage.records import Question

_MODEL_COLUMNS = {"exchange", "address", "finish_reason"}  # of an export: its answers are a model's


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


def words_of(question: Question) -> str:
    """The last user turn."""
    return next(reversed(user_turns(question)), "")
