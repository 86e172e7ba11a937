"""What the teacher says about a batch: parts of a loss, from live weights, from a cache, or from the words alone.

Shape legend: T tokens, N loss positions, D width of the teacher's hidden state.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from tutelage.errors import ConfigError, SignalError
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Dense, Hidden, Scored, Text
from tutelage.signals.joining import joined
from tutelage.store.signals import SignalCache
from tutelage.train.examples import Example

_TEXT = make("cross-entropy")


class Passage(NamedTuple):
    """Documents packed in `ids_T`, the places `positions_N` that predict `target_ids_N`, and the examples they are of.
    `drawn_logp_N` is what the student's engine drew each target with, None for text that it did not write."""

    ids_T: torch.Tensor
    lengths: tuple[int, ...]
    positions_N: torch.Tensor
    target_ids_N: torch.Tensor
    examples: tuple[Example, ...]
    drawn_logp_N: torch.Tensor | None = None


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

    Teacher and student must have the same tokenizer; `columns` is how many tokens it has. The teacher never trains: it is set to
    evaluation and its weights to no gradient.
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


class ScoringTeacher:
    """The teacher's log-probability of the tokens that stand there, and nothing else: what an endpoint that scores supplied text
    gives. For the student's own text only."""

    role = Role.SOFT_TARGET

    def __init__(self, teacher: Causal, loss: Loss, columns: int | None = None, weight: float = 1.0) -> None:
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._loss, self._columns, self._weight = teacher, loss, columns, weight

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Raises `SignalError` for text that the student did not draw: its estimate would be of another divergence."""
        if passage.drawn_logp_N is None:
            raise SignalError(
                f"{self._loss.name} is an average over the student's own text, and this text is the data's",
                fix="use it on-policy with a student share of 1, or choose a loss on full or top-k distributions",
            )
        with torch.no_grad():
            hidden_TD = self._teacher.hidden(passage.ids_T, passage.lengths)
        words = Part(_TEXT, Text(passage.target_ids_N))
        (nats_N,) = values(hidden_TD[passage.positions_N], self._teacher.head(self._columns), (words,))
        signal = Scored(passage.target_ids_N, -nats_N, passage.drawn_logp_N)
        return (Part(self._loss, signal, self._weight),)


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


def require_same_tokens(student: Sequence[bytes], teacher: Sequence[bytes], loss: Loss) -> None:
    """Raises `ConfigError` when two vocabularies spell any id differently: an equal size proves nothing."""
    for at, (one, other) in enumerate(zip(student, teacher, strict=False)):
        if one != other:
            raise ConfigError(
                f"{loss.name} compares distributions token by token, but token {at} is {one!r} for the student and "
                f"{other!r} for the teacher",
                fix="start the student from a model with the teacher's tokenizer, or train on its text (cross-entropy)",
            )
    if len(student) != len(teacher):
        raise ConfigError(
            f"{loss.name} compares distributions token by token, but the student's tokenizer has {len(student)} tokens "
            f"and the teacher's {len(teacher)}",
            fix="start the student from a model with the teacher's tokenizer, or train on its text (cross-entropy)",
        )
