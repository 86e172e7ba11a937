"""Off-policy: the prefixes are the data's own, written by the teacher or by people.

Shape legend: T tokens, N loss positions.
"""

from collections.abc import Sequence

import torch

from tutelage.config import TrainTable
from tutelage.train.batch import Batch, Drawn, Focus, Term, starts
from tutelage.train.examples import Example
from tutelage.train.focus import kept
from tutelage.train.loop import Plan, plan_steps
from tutelage.train.order import epoch_order
from tutelage.train.step import Look
from tutelage.train.teaching import Passage, Teaching
from tutelage.train.watch import Watch


def passage_of(
    examples: Sequence[Example], device: torch.device | str = "cpu", drawn: Sequence[Sequence[float]] | None = None,
    temperature: float = 1.0,
) -> Passage:  # fmt: skip
    """Packs examples; the last token of each is predicted, never read. `drawn` are the log-probabilities that the student's
    engine drew each example's targets with, at `temperature`, where it wrote them."""
    lengths = tuple(len(example.ids) - 1 for example in examples)
    ids = [token for example in examples for token in example.ids[:-1]]
    positions, targets = [], []
    for example, start in zip(examples, starts(lengths), strict=True):
        positions += [start + at - 1 for at in example.targets]
        targets += [example.ids[at] for at in example.targets]
    return Passage(
        torch.tensor(ids, device=device),
        lengths,
        torch.tensor(positions, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        tuple(examples),
        None if drawn is None else torch.tensor([value for one in drawn for value in one], device=device),
        temperature,
    )


def batch_of(
    examples: Sequence[Example], teaching: Teaching, rows: Sequence[int], device: torch.device | str,
    drawn: Sequence[Sequence[float]] | None = None, step: Passage | None = None, focus: float | None = None,
    progress: float = 1.0,
) -> Batch:  # fmt: skip
    """A batch of these examples under this teaching; `drawn` as for `passage_of`, and `step` the passage whose `rows` they are,
    where that is all the student's own text. `focus`: share of each answer's positions that is learnt (`train.focus`);
    `progress`: share of the steps that are done."""
    passage = passage_of(examples, device, drawn)._replace(step=step, rows=tuple(rows), progress=progress)
    sizes, logp_N = tuple(len(example.targets) for example in examples), passage.drawn_logp_N
    written = None if logp_N is None else Drawn(passage.target_ids_N, logp_N)
    chosen = None if focus is None else Focus(focus, sizes)
    term = Term(passage.positions_N, teaching.parts(passage), written, chosen)
    count = sum(kept(size, focus) for size in sizes)
    return Batch(passage.ids_T, passage.lengths, (term,), {str(teaching.role): count}, tuple(rows))


class DataSource:
    """Examples in seeded order under one teaching."""

    def __init__(
        self, examples: Sequence[Example], teaching: Teaching, table: TrainTable, seed: int,
        device: torch.device | str = "cpu", focus: float | None = None,
    ) -> None:  # fmt: skip
        self._focus, self._progress = focus, 0.0
        self.examples, self._teaching, self._table, self._seed = tuple(examples), teaching, table, seed
        self._device, self._watch = device, Watch()
        self._lengths = [len(example.ids) for example in examples]
        self._order: tuple[int, list[tuple[int, ...]]] = (-1, [])

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self.examples), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        epoch, at = divmod(step, self.plan.per_epoch)
        self._progress = step / self.plan.steps
        if self._order[0] != epoch:
            self._order = (epoch, self._batches(epoch))
        self._watch.begin(self.loss_tokens(self._order[1][at]))
        return self._order[1][at]

    def _batches(self, epoch: int) -> list[tuple[int, ...]]:
        """The epoch's rows, a step each."""
        return epoch_order(self._lengths, self._table.batch_size, self._seed, epoch)

    def tokens(self, row: int) -> int:
        return self._lengths[row]

    def origin(self, row: int) -> str:
        """The conversation that a row of this step comes from."""
        return self.examples[row].source

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(kept(len(self.examples[row].targets), self._focus) for row in rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        some = [self.examples[row] for row in rows]
        return batch_of(some, self._teaching, rows, self._device, focus=self._focus, progress=self._progress)

    @property
    def look(self) -> Look:
        return self._watch.look

    def metrics(self) -> dict[str, float]:
        return self._watch.means()
