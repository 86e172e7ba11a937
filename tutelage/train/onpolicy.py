"""On-policy: the student writes the answers, the teacher says what it thinks of each token.

A share λ of the steps is on the student's own text, the rest on the data's (Agarwal et al. 2023, GKD, arXiv 2306.13649, algorithm
1); no gradient flows through what was drawn. Shape legend: N loss positions, V vocabulary.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tutelage.config import TrainTable
from tutelage.errors import ConfigError
from tutelage.models.causal import Causal
from tutelage.train.batch import Batch
from tutelage.train.examples import Example
from tutelage.train.focus import kept
from tutelage.train.health import Finding, Limits, Start, health, mean_length
from tutelage.train.loop import Plan, plan_steps
from tutelage.train.offpolicy import batch_of, passage_of
from tutelage.train.order import epoch_order
from tutelage.train.rollout import Roller, Rollout
from tutelage.train.step import Look
from tutelage.train.teaching import Passage, Teaching
from tutelage.train.watch import Watch


class Drawing(NamedTuple):
    """The answers of a step: to which of the examples' prompts, and by which seeds they are drawn."""

    rows: tuple[int, ...]
    seeds: tuple[int, ...]


def drawing(lengths: Sequence[int], table: TrainTable, seed: int, step: int) -> Drawing:
    """Decided by `seed` and `step` alone; `lengths` are those of the examples' prompts, in tokens."""
    epoch, at = divmod(step, plan_steps(len(lengths), table).per_epoch)
    rows = epoch_order(lengths, table.batch_size, seed, epoch)[at]
    draw = random.Random(f"{seed}:{step}:draws")
    return Drawing(rows, tuple(draw.randrange(1 << 31) for _ in rows))


class RolloutSource:
    """Prompts of `examples` in seeded order, answered by the student as it stands; `student_share` is λ.

    `step` and `seed` decide the prompts, the coin and every draw, so that a resumed run writes the same answers. What goes
    wrong with the answers (they grow, never end, repeat, lose their entropy, are not the trainer's) is told to `warn` and
    written to the journal; `start` is what was usual when a run that is gone on with began.
    """

    def __init__(
        self, examples: Sequence[Example], student: Causal, roller: Roller, teaching: Teaching, table: TrainTable, seed: int, *,
        max_new_tokens: int, temperature: float = 1.0, student_share: float = 1.0, limits: Limits | None = None,
        warn: Callable[[Finding], Any] = lambda finding: None, start: Start | None = None, focus: float | None = None,
        ratios: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        if not 0 < student_share <= 1:
            raise ConfigError(
                f"a share of {student_share} of the steps on the student's own text",
                fix="give a share above 0 and at most 1; without rollouts the method is off-policy",
            )
        self.examples, self._student, self._roller, self._teaching = tuple(examples), student, roller, teaching
        self._table, self._seed, self._new, self._temperature = table, seed, max_new_tokens, temperature
        self._share, self._limits, self._warn, self._focus = student_share, limits, warn, focus
        self._prompts = [example.ids[: example.targets[0]] for example in examples]
        self._current: tuple[Example, ...] = ()
        self._rollouts: list[Rollout] = []
        self._step: Passage | None = None
        self._progress = 0.0
        self._start = start or Start()
        self._watch = Watch(ratios)

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self.examples), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        """Writes the step's answers (or takes the data's) and returns their places among them."""
        self._progress = step / self.plan.steps
        chosen, seeds = drawing([len(prompt) for prompt in self._prompts], self._table, self._seed, step)
        coin = random.Random(f"{self._seed}:{step}:coin").random()
        if coin < self._share:
            self._roller.refresh(self._student.model)
            prompts = [self._prompts[row] for row in chosen]
            self._rollouts = self._roller.write(prompts, self._new, self._temperature, seeds)
            self._current = tuple(
                written(rollout, self.examples[row].source) for rollout, row in zip(self._rollouts, chosen, strict=True)
            )
            logp = [rollout.logp for rollout in self._rollouts]
            self._step = passage_of(self._current, self._student.device, logp, self._temperature)
        else:
            self._rollouts, self._current, self._step = [], tuple(self.examples[row] for row in chosen), None
        rows = tuple(range(len(self._current)))
        self._watch.begin(self.loss_tokens(rows))
        return rows

    def tokens(self, row: int) -> int:
        return len(self._current[row].ids)

    def origin(self, row: int) -> str:
        """The conversation that a row of this step comes from."""
        return self._current[row].source

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(kept(len(self._current[row].targets), self._focus) for row in rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        drawn = [self._rollouts[row].logp for row in rows] if self._rollouts else None
        some = [self._current[row] for row in rows]
        teaching, device = self._teaching, self._student.device
        return batch_of(some, teaching, rows, device, drawn, self._step, self._focus, self._progress)

    @property
    def look(self) -> Look:
        return self._watch.look

    def metrics(self) -> dict[str, float]:
        seen = self._watch.means()
        if not self._rollouts:
            return {"rollout/own_text": 0.0, **seen}
        entropy = seen.get("entropy_nats", 0.0)
        found = health(self._rollouts, entropy, self._start, self._limits, seen.pop("drift_nats", 0.0),
                       seen.pop("masked_share", None))  # fmt: skip
        self._start = self._start.add(mean_length(self._rollouts), entropy)
        for finding in found.findings:
            self._warn(finding)
        return {"rollout/own_text": 1.0, **seen, **found.metrics}


def written(rollout: Rollout, source: str) -> Example:
    """A rollout as an example: every token that was drawn is learnt from, and no end is made up for one that was cut."""
    ids = rollout.prompt_ids + rollout.ids
    return Example(ids, tuple(range(len(rollout.prompt_ids), len(ids))), source)
