"""One seeded split by near-duplicate group: training prompts, a validation slice of them, held-out prompts.

The held-out items come from the far end of the shuffled order of groups that people labelled, so a smaller size of the
same recipe and seed holds out a subset of what a larger one holds out. What a gold label says is read for held-out
rows alone; rows without one are good for training.
"""

import operator
import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from tutelage.canon import digest_of
from tutelage.collect.groups import group_of_each
from tutelage.collect.sources import Row
from tutelage.config import DataTable, parse_rule
from tutelage.errors import DataError
from tutelage.records import HeldOutPrompt, Prompt, TrainPrompt, ValidationPrompt

_COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


Kind = TypeVar("Kind", bound=Prompt)


class Split(NamedTuple):
    """Prompts by kind, the gold label of each held-out prompt by id, and held-out rows left out for want of one."""

    train: tuple[TrainPrompt, ...]
    validation: tuple[ValidationPrompt, ...]
    held_out: tuple[HeldOutPrompt, ...]
    gold: dict[str, str]
    without_gold: tuple[int, ...]
    num_groups: int


class Origin(NamedTuple):
    """Where the rows come from."""

    source: str
    digest: str
    licence: str


def split_rows(rows: Sequence[Row], table: DataTable, labels: Sequence[str], origin: Origin, seed: int) -> Split:
    """Raises `DataError` when there are too few rows or too few gold labels."""
    group = group_of_each([row.text for row in rows])
    members: dict[int, list[int]] = {}
    for at, first in enumerate(group):
        members.setdefault(first, []).append(at)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    held_rows, gold, without_gold = _take_with_gold(order[::-1], members, rows, table, labels)
    if len(held_rows) < table.held_out:
        raise _too_few(table, len(rows), f"; {len(without_gold)} rows have no gold label" if without_gold else "")
    held_groups = {group[at] for at in (*held_rows, *without_gold)}
    train_groups, taken = _take([first for first in order if first not in held_groups], members, table.train)
    if taken < table.train:
        raise _too_few(table, len(rows))
    validation_groups, _ = _take(train_groups[::-1], members, table.validation)
    validation = set(validation_groups)

    def make(kind: type[Kind], at: int) -> Kind:
        identity = digest_of({"source": origin.digest, "line": rows[at].line, "text": rows[at].text})
        return kind(identity, rows[at].text, f"g{group[at]}", origin.source, origin.digest, origin.licence)

    train = tuple(make(TrainPrompt, at) for first in train_groups if first not in validation for at in members[first])
    tuned = tuple(make(ValidationPrompt, at) for first in train_groups if first in validation for at in members[first])
    held = tuple(make(HeldOutPrompt, at) for at in held_rows)
    named = {prompt.prompt_id: gold[at] for prompt, at in zip(held, held_rows, strict=True)}
    return Split(train, tuned, held, named, tuple(rows[at].line for at in without_gold), len(order))


def gold_label(raw: str, labels: Sequence[str], rules: dict[str, str] | None) -> str | None:
    """The label that the gold column's text means, or `None` when it means none of them.

    Without rules it is the label word itself. Rules are "> 0", ">= 1", "< 0", "<= 0" or "= value".
    """
    if rules is None:
        said = raw.strip().casefold()
        return next((label for label in labels if label.casefold() == said), None)
    for label, text in rules.items():
        rule = parse_rule(label, text)
        if rule.sign == "=" and raw.strip() == rule.value:
            return label
        if rule.sign != "=":
            try:
                if _COMPARISONS[rule.sign](float(raw), float(rule.value)):
                    return label
            except ValueError:
                continue  # this row's gold is no number: it names no label
    return None


def _take(order: Sequence[int], members: dict[int, list[int]], wanted: int) -> tuple[list[int], int]:
    chosen, count = [], 0
    for first in order:
        if count + len(members[first]) <= wanted:  # a group is taken whole or left out
            chosen.append(first)
            count += len(members[first])
    return chosen, count


def _take_with_gold(
    order: Sequence[int], members: dict[int, list[int]], rows: Sequence[Row], table: DataTable, labels: Sequence[str]
) -> tuple[list[int], dict[int, str], list[int]]:
    held: list[int] = []
    gold: dict[int, str] = {}
    without: list[int] = []
    for first in order:
        if not all(rows[at].gold.strip() for at in members[first]):
            continue  # nobody labelled it: good for training
        for at in members[first]:
            if len(held) == table.held_out:
                return held, gold, without
            label = gold_label(rows[at].gold, labels, table.gold_labels)
            if label is None:
                without.append(at)
            else:
                held.append(at)
                gold[at] = label
    return held, gold, without


def _too_few(table: DataTable, found: int, why: str = "") -> DataError:
    return DataError(
        f"{found} usable rows are too few for train = {table.train} and held_out = {table.held_out}{why}",
        fix="lower data.train or data.held_out, or bring more rows",
    )
