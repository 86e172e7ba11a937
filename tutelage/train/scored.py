"""A teacher of whom only scores are had: what an endpoint answered about texts that were sent to it, as signals.

Shape legend: N loss positions, K kept ids.
"""

import math
from collections.abc import Callable, Sequence

import torch

from tutelage.losses.base import Loss
from tutelage.losses.chunked import Part
from tutelage.models.scores import Ids
from tutelage.records import UNATS_PER_NAT, Position, Role
from tutelage.signals import TopK
from tutelage.signals.joining import joined
from tutelage.signals.labels import pack_top_k
from tutelage.signals.types import NO_TAIL
from tutelage.train.batch import starts
from tutelage.train.examples import Example
from tutelage.train.teaching import Passage, StepScores

Ask = Callable[[Sequence[Ids]], list[tuple[Position, ...]]]
"""Gives a position for each scored token of each text."""


class AskedScores(StepScores):
    """The endpoint's log-probability of each token that the student drew (sampled reverse KL)."""

    def __init__(self, ask: Ask, loss: Loss, weight: float = 1.0) -> None:
        super().__init__(loss, weight)
        self._ask = ask

    def scores(self, step: Passage) -> torch.Tensor:
        rows = _answered(self._ask, step.examples)
        logp = [at.chosen.logprob_unats / UNATS_PER_NAT for at in rows]
        return torch.tensor(logp, dtype=torch.float32, device=step.ids_T.device)


class AskedTopK:
    """The likeliest candidates that the endpoint names at each place, the token that stands there, and what is left as one tail
    bucket. Of the student's own text a step is asked for as a whole; of the data's, a pass at a time."""

    role = Role.SOFT_TARGET

    def __init__(self, ask: Ask, loss: Loss, weight: float = 1.0) -> None:
        self._ask, self._loss, self._weight = ask, loss, weight
        self._step: Passage | None = None
        self._signals: list[TopK] = []  # of its answers

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        if passage.step is None:
            signal = top_k_of(_answered(self._ask, passage.examples))
        else:
            if passage.step is not self._step:
                self._step, self._signals = passage.step, self._of(passage.step)
            signal = joined([self._signals[row] for row in passage.rows])
        return (Part(self._loss, signal.to(passage.ids_T.device), self._weight),)

    def _of(self, step: Passage) -> list[TopK]:
        whole = top_k_of(_answered(self._ask, step.examples))
        sizes = [len(example.targets) for example in step.examples]
        return [whole.rows(slice(at, at + size)) for at, size in zip(starts(sizes), sizes, strict=True)]


def top_k_of(positions: Sequence[Position]) -> TopK:
    """A row a position: its candidates that are tokens of the student, the token that stands there among them. Whatever else the
    endpoint named belongs to the tail."""
    rows = []
    for position in positions:
        known = {one.token_id: one.logprob_unats / UNATS_PER_NAT for one in position.top if one.token_id >= 0}
        known[position.chosen.token_id] = position.chosen.logprob_unats / UNATS_PER_NAT
        tail = 1 - math.fsum(math.exp(value) for value in known.values())
        rows.append((known, math.log(tail) if tail > 0 else NO_TAIL))
    return pack_top_k(rows)


def ids_of_example(example: Example) -> Ids:
    """What is read before the first token that is learnt, and what is scored after it, to the last one that is learnt."""
    first, last = example.targets[0], example.targets[-1]
    return Ids(example.ids[:first], example.ids[first : last + 1])


def _answered(ask: Ask, examples: Sequence[Example]) -> list[Position]:
    """A position for each place that is learnt, of all examples in their order."""
    said = ask([ids_of_example(example) for example in examples])
    return [
        rows[at - example.targets[0]] for example, rows in zip(examples, said, strict=True) for at in example.targets
    ]
