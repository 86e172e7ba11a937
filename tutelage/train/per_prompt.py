"""Several answers to a prompt, of which an epoch takes one: a prompt with more answers does not count more.

Taken all alike, each answer is a draw from the teacher, and prompts weigh by how many of theirs were kept (sequence-level
distillation with samples: Kim & Rush 2016, arXiv 1606.07947, §3.2; OpenThoughts, arXiv 2506.04178, 16 answers a question).
"""

import random
from collections.abc import Sequence
from functools import cached_property

from tutelage.train.examples import Example
from tutelage.train.loop import Plan, plan_steps
from tutelage.train.offpolicy import DataSource
from tutelage.train.order import epoch_order


def by_prompt(examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """Rows of the same prompt together, prompts in the order in which they come first."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, example in enumerate(examples):
        found.setdefault(example.ids[: example.targets[0]], []).append(row)
    return [tuple(rows) for rows in found.values()]


class PromptSource(DataSource):
    """Every prompt once an epoch, with one of its answers. They take turns in an order of each prompt's own, so that all of them
    have been learnt after as many epochs as there are answers."""

    @cached_property
    def _prompts(self) -> list[tuple[int, ...]]:
        return by_prompt(self.examples)

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self._prompts), self._table)

    def _batches(self, epoch: int) -> list[tuple[int, ...]]:
        chosen = [self._turn(rows, epoch) for rows in self._prompts]
        lengths = [self._lengths[row] for row in chosen]
        batches = epoch_order(lengths, self._table.batch_size, self._seed, epoch)
        return [tuple(chosen[at] for at in batch) for batch in batches]

    def _turn(self, rows: Sequence[int], epoch: int) -> int:
        order = list(rows)
        random.Random(f"{self._seed}:{rows[0]}:turns").shuffle(order)
        return order[epoch % len(order)]
