"""Two tasks of one student: the answer, and the reasoning that leads to it (Hsieh et al. 2023, Distilling step-by-step, arXiv
2305.02301, §3.2): (1 − w) · label + w · rationale, each the mean over its own tokens. Where only a share s of a step's
conversations has a reasoning, w · s stands for w, so that one reasoning weighs alike among few and among many.

The reasoning is another task with another prompt, so nobody who asks for the answer waits for it. Shape legend: T tokens, N loss
positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tutelage.config import TrainTable
from tutelage.losses.base import Loss
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.train.batch import Batch, Term
from tutelage.train.examples import Example
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import Plan, Seen, micro, plan_steps
from tutelage.train.offpolicy import passage_of
from tutelage.train.order import epoch_order
from tutelage.train.step import Look
from tutelage.train.teaching import Words
from tutelage.train.watch import Watch


class TaskSource:
    """Conversations in seeded order, each with the reasoning that `rationales` has under its source, where there is one. Of a
    step (1 − w · s) times the answers' mean over their tokens and w · s times the reasonings' is made small, however it is split;
    s is the share of its conversations that have one."""

    def __init__(
        self, labels: Sequence[Example], rationales: Mapping[str, Example], loss: Loss, weight: float, table: TrainTable,
        seed: int, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self._rows = [(label, rationales.get(label.source)) for label in labels]
        self._tasks = (Words(loss), Words(replace(loss, name="rationale")))
        self._weight, self._table, self._seed, self._device = weight, table, seed, device
        self._lengths = [self.tokens(row) for row in range(len(self._rows))]
        self._weights, self._watch = (0.0, 0.0), Watch()

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self._rows), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        epoch, at = divmod(step, self.plan.per_epoch)
        rows = epoch_order(self._lengths, self._table.batch_size, self._seed, epoch)[at]
        counts = [sum(len(example.targets) for example in self._of(rows, task)) for task in (0, 1)]
        # The loop divides by all tokens of the step; of each task a mean over its own is wanted.
        reasoned = self._weight * len(self._of(rows, 1)) / len(rows)
        shares = (1 - reasoned, reasoned)
        first, second = (share * sum(counts) / max(own, 1) for share, own in zip(shares, counts, strict=True))
        self._weights = (first, second)
        self._watch.begin(sum(counts))
        return rows

    def tokens(self, row: int) -> int:
        return sum(len(example.ids) for example in self._rows[row] if example is not None)

    def origin(self, row: int) -> str:
        """The conversation that a row comes from."""
        return self._rows[row][0].source

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(len(example.targets) for task in (0, 1) for example in self._of(rows, task))

    def batch(self, rows: Sequence[int]) -> Batch:
        ids, lengths, terms, read = list[torch.Tensor](), list[int](), list[Term](), 0
        for task, weight in enumerate(self._weights):
            if not (some := self._of(rows, task)):
                continue
            passage = passage_of(some, self._device)
            parts = tuple(part._replace(weight=weight * part.weight) for part in self._tasks[task].parts(passage))
            terms.append(Term(passage.positions_N + read, parts))
            ids.append(passage.ids_T)
            lengths += passage.lengths
            read += len(passage.ids_T)
        counts = {str(Role.TEXT_TARGET): self.loss_tokens(rows)}
        return Batch(torch.cat(ids), tuple(lengths), tuple(terms), counts, tuple(rows))

    @property
    def look(self) -> Look:
        return self._watch.look

    def metrics(self) -> dict[str, float]:
        return self._watch.means()

    def _of(self, rows: Sequence[int], task: int) -> list[Example]:
        return [example for row in rows if (example := self._rows[row][task]) is not None]


class TaskJudge:
    """The same mean on conversations that are not trained on, a share `reasoned` of which has a reasoning. The answers are judged
    as everywhere; `rationale` is None where none has one."""

    def __init__(self, label: HeldOutJudge, rationale: HeldOutJudge | None, weight: float, reasoned: float) -> None:
        self._label, self._rationale, self._weight = label, rationale, weight * reasoned

    def __call__(self, student: Causal, autocast: torch.autocast) -> Seen:
        seen = self._label(student, autocast)
        if self._rationale is None:
            return seen
        reasoned = self._rationale(student, autocast).score_nats
        score = (1 - self._weight) * seen.score_nats + self._weight * reasoned
        facts = {**seen.facts, "objective_unats": micro(score), "rationale_unats": micro(reasoned)}
        return Seen(score, facts, {**seen.metrics, "validation_nats": score, "validation_rationale_nats": reasoned})
