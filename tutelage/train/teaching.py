"""What the teacher says about a batch: parts of a loss, from live weights, from a cache, or from the words alone.

Shape legend: T tokens, N loss positions, D width of the teacher's hidden state.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch

from tutelage.errors import ConfigError, SignalError
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.losses.sampled import Baselined, leave_one_out
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Dense, Hidden, Scored, Text
from tutelage.signals.joining import joined
from tutelage.store.signals import SignalCache
from tutelage.train.batch import split, starts
from tutelage.train.examples import Example

PASS_TOKENS = 4096  # that are scored at once
_TEXT = make("cross-entropy")


class Passage(NamedTuple):
    """Documents packed in `ids_T`, the places `positions_N` that predict `target_ids_N`, and the examples they are of.
    `drawn_logp_N` is what the student's engine drew each target with, at `temperature`, None for text that it did not write. A
    passage that is a part of a step of the student's own text knows the whole `step`, and which of its examples are its `rows`.
    `progress`: share of the steps that are done; 1 where nothing is trained.
    """

    ids_T: torch.Tensor
    lengths: tuple[int, ...]
    positions_N: torch.Tensor
    target_ids_N: torch.Tensor
    examples: tuple[Example, ...]
    drawn_logp_N: torch.Tensor | None = None
    temperature: float = 1.0
    step: "Passage | None" = None
    rows: tuple[int, ...] = ()
    progress: float = 1.0


class Teaching(Protocol):
    """A source of parts; `role` is what their tokens count as in the ledger."""

    role: Role

    def parts(self, passage: Passage) -> tuple[Part, ...]: ...


class Words:
    """The text itself: cross-entropy, sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947)."""

    role = Role.TEXT_TARGET

    def __init__(self, loss: Loss, weight: float = 1.0) -> None:
        self._loss, self._weight = loss, weight

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        return (Part(self._loss, Text(passage.target_ids_N), self._weight),)


class LiveTeacher:
    """The teacher's full distribution, as its last hidden states; its head is applied chunk by chunk.

    Teacher and student must have the same tokenizer; `columns` is how many tokens it has, where the teacher's head is wider than
    the student's. The teacher never trains: it is set to evaluation and its weights to no gradient.
    """

    role = Role.SOFT_TARGET

    def __init__(self, teacher: Causal, loss: Loss, columns: int | None = None, weight: float = 1.0) -> None:
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._loss, self._columns, self._weight = teacher, loss, columns, weight

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        with torch.no_grad():
            hidden_TD = self._teacher.hidden(passage.ids_T, passage.lengths)
        signal = Hidden(hidden_TD[passage.positions_N], self._teacher.head(self._columns))
        return (Part(self._loss, signal, self._weight),)


class MovingTeacher(LiveTeacher):
    """A target that moves from the student's own distribution to the teacher's as training goes, in a line: taid with
    t = `start` + (1 − `start`) · progress (Shing et al. 2025, TAID, arXiv 2501.16937, §3; its adaptive t is never below this
    line). Where a student is judged, t is 1."""

    def __init__(self, teacher: Causal, loss: Loss, columns: int | None = None, start: float = 0.4) -> None:
        super().__init__(teacher, loss, columns)
        self._start = start

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        (part,) = super().parts(passage)
        now = make("taid", t=self._start + (1 - self._start) * passage.progress)
        return (part._replace(loss=replace(now, name=self._loss.name)),)


class StepScores:
    """Somebody's log-probability of the tokens that stand there, and nothing else: for the student's own text only.

    Each answer's baseline is the mean reward of the step's other answers. A step is scored once and as a whole (`scores`), so
    that it does not depend on how many passes the step is taken in.
    """

    role = Role.SOFT_TARGET

    def __init__(self, loss: Loss, weight: float = 1.0) -> None:
        self._loss, self._weight = loss, weight
        self._step: Passage | None = None
        self._signals: list[Baselined] = []  # of its answers

    def scores(self, step: Passage) -> torch.Tensor:
        """Natural logs at temperature 1 of the tokens `step.target_ids_N`, [N]."""
        raise NotImplementedError

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Raises `SignalError` for text that the student did not draw, and `ConfigError` for what it drew at another
        temperature: the estimate would be of another divergence."""
        if passage.drawn_logp_N is None:
            raise SignalError(
                f"{self._loss.name} is an average over the student's own text, and this text is the data's",
                fix="use it on-policy with a student share of 1, or choose a loss on full or top-k distributions",
            )
        step, rows = (passage, range(len(passage.examples))) if passage.step is None else (passage.step, passage.rows)
        if step is not self._step:
            require_drawn_at_1(self._loss, step.temperature)
            self._step, self._signals = step, self._scored(step)
        return (Part(self._loss, joined([self._signals[row] for row in rows]), self._weight),)

    def _scored(self, step: Passage) -> list[Baselined]:
        assert step.drawn_logp_N is not None
        scored = Scored(step.target_ids_N, self.scores(step), step.drawn_logp_N)
        sizes = [len(example.targets) for example in step.examples]
        answer_N = torch.repeat_interleave(torch.tensor(sizes, device=step.ids_T.device))
        whole = Baselined(scored.ids_N, scored.logp_N, scored.drawn_logp_N, leave_one_out(scored, answer_N))
        return [whole.rows(slice(at, at + size)) for at, size in zip(starts(sizes), sizes, strict=True)]


class ScoringTeacher(StepScores):
    """The scores of a teacher whose weights are here; `columns` as for `LiveTeacher`."""

    def __init__(self, teacher: Causal, loss: Loss, columns: int | None = None, weight: float = 1.0) -> None:
        super().__init__(loss, weight)
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._columns = teacher, columns

    @torch.no_grad()
    def scores(self, step: Passage) -> torch.Tensor:
        """In one pass after another, whatever the step's size."""
        first, nats = starts(step.lengths), list[torch.Tensor]()
        for rows in split(range(len(first)), dict(enumerate(step.lengths)), PASS_TOKENS):
            part = slice(first[rows[0]], first[rows[-1]] + step.lengths[rows[-1]])
            inside_N = (step.positions_N >= part.start) & (step.positions_N < part.stop)
            at_N, words = step.positions_N[inside_N] - part.start, Part(_TEXT, Text(step.target_ids_N[inside_N]))
            hidden_TD = self._teacher.hidden(step.ids_T[part], [step.lengths[row] for row in rows])
            nats += values(hidden_TD[at_N], self._teacher.head(self._columns), (words,))
        return -torch.cat(nats)


class CachedTeacher:
    """What the teacher said when the cache was filled, found by each example's own tokens."""

    role = Role.SOFT_TARGET

    def __init__(self, cache: SignalCache, loss: Loss, weight: float = 1.0) -> None:
        """Raises `SignalError` when the loss cannot use what the cache holds."""
        takes = cache.identity.kind.takes
        if takes is not loss.takes and not (takes is Hidden and loss.takes is Dense):
            raise SignalError(
                f"{loss.name} takes {loss.takes.__name__} signals; the cache in {cache.folder} holds {takes.__name__}",
                fix=f"choose a loss on {takes.__name__} signals, or capture another kind",
            )
        self._cache, self._loss, self._weight = cache, loss, weight

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Raises `SignalError` for text that was not captured, as the student's own never is."""
        rows = [
            self._cache.read(torch.tensor(example.ids), torch.tensor(example.targets) - 1).signal
            for example in passage.examples
        ]
        return (Part(self._loss, joined(rows).to(passage.ids_T.device), self._weight),)


class Together:
    """Several teachings of the same positions, for instance a divergence and a share of cross-entropy."""

    def __init__(self, teachings: Sequence[Teaching]) -> None:
        if not teachings:
            raise ConfigError("no loss is given", fix="name at least one loss")
        self._teachings = tuple(teachings)
        self.role = teachings[0].role

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        return tuple(part for teaching in self._teachings for part in teaching.parts(passage))


def require_drawn_at_1(loss: Loss, temperature: float) -> None:
    """Raises `ConfigError` for scores of tokens that are drawn at another temperature than 1: not from the student's own
    distribution, which the loss is an average over."""
    if loss.takes is Scored and temperature != 1:
        raise ConfigError(
            f"temperature = {temperature:g}: {loss.name} is an average over what the student draws at 1",
            fix='draw at temperature 1, or choose a loss on full distributions (method.signal = "dense")',
        )


def require_same_tokens(student: Sequence[bytes], teacher: Sequence[bytes], loss: Loss) -> None:
    """Raises `ConfigError` when two vocabularies spell any id differently: an equal size proves nothing."""
    for at, (one, other) in enumerate(zip(student, teacher, strict=False)):
        if one != other:
            raise ConfigError(
                f"{loss.name} compares distributions token by token, but token {at} is {one!r} for the student and "
                f"{other!r} for the teacher",
                fix="use a loss on whole pieces of text (alm), or start the student from a model with the teacher's tokenizer",
            )
    if len(student) != len(teacher):
        raise ConfigError(
            f"{loss.name} compares distributions token by token, but the student's tokenizer has {len(student)} tokens "
            f"and the teacher's {len(teacher)}",
            fix="use a loss on whole pieces of text (alm), or start the student from a model with the teacher's tokenizer",
        )
