"""Pairs of answers: one that is preferred, and one that the student itself wrote (SODA, arXiv 2604.03873).

What is learnt is to tell them apart further than a frozen snapshot of the student does, which wrote the other answer: the
objective of DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) on text alone. Where the snapshot is taken anew every epoch,
writer and reference move on together, as in SPIN (Chen et al. 2024, arXiv 2401.01335).

Shape legend: T tokens, N loss positions, U pairs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from tutelage.config import TrainTable
from tutelage.errors import DataError
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.losses.preference import Pairs, margins
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Text
from tutelage.train.batch import Batch, Term, split
from tutelage.train.examples import Example
from tutelage.train.judging import HeldOutJudge
from tutelage.train.loop import Plan, Seen, micro, plan_steps
from tutelage.train.offpolicy import passage_of
from tutelage.train.order import epoch_order
from tutelage.train.step import Look
from tutelage.train.teaching import Passage
from tutelage.train.watch import Watch

PASS_TOKENS = 4096  # that are read at once where nothing is learnt
_TEXT = make("cross-entropy")


class Pair(NamedTuple):
    """Two answers to one prompt: the preferred one, and one that the student wrote, ended or cut."""

    chosen: Example
    rejected: Example

    @property
    def alike(self) -> bool:
        """Whether there is nothing to tell apart: the student wrote the preferred answer, or was cut while it did."""
        said = self.rejected.ids[self.rejected.targets[0] :]
        return self.chosen.ids[self.chosen.targets[0] :][: len(said)] == said

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens that are learnt of each answer."""
        return len(self.chosen.targets), len(self.rejected.targets)


class Snapshot(NamedTuple):
    """Pairs, and for each the natural logs [N] of what a frozen student gives the tokens of its answers, the preferred first."""

    pairs: tuple[Pair, ...]
    reference: tuple[torch.Tensor, ...]


def snapshot(student: Causal, pairs: Sequence[Pair], autocast: torch.autocast) -> Snapshot:
    """The pairs under the student as it stands. Raises `DataError` for no pair."""
    if not pairs:
        raise DataError(
            "there is no pair of answers", fix="bring conversations whose answers the student does not give"
        )
    found: list[torch.Tensor] = []
    for rows in _passes(pairs):
        some = [pairs[row] for row in rows]
        found += (
            _logq(student, _passage(some, student.device), autocast).cpu().split([sum(pair.sizes) for pair in some])
        )
    return Snapshot(tuple(pairs), tuple(found))


def batch_of_pairs(
    held: Snapshot, rows: Sequence[int], loss: Loss, text_weight: float = 0.0, device: torch.device | str = "cpu"
) -> Batch:
    """Both answers of these pairs, with `loss` on `Pairs`; and cross-entropy of the preferred ones, times `text_weight`, as a
    term of its own."""
    pairs = [held.pairs[row] for row in rows]
    passage = _passage(pairs, device)
    signal = _signal(pairs, [held.reference[row] for row in rows], passage)
    terms = [Term(passage.positions_N, (Part(loss, signal),))]
    if text_weight:
        chosen_N = signal.side_N > 0
        words = Part(_TEXT, Text(passage.target_ids_N[chosen_N]), text_weight)
        terms.append(Term(passage.positions_N[chosen_N], (words,)))
    counts = {str(role): sum(tokens) for role, *tokens in zip(ROLES, *(pair.sizes for pair in pairs), strict=True)}
    return Batch(passage.ids_T, passage.lengths, tuple(terms), counts, tuple(rows))


ROLES = (Role.TEXT_TARGET, Role.OWN_TEXT)  # of the two answers of a pair


class PairSource:
    """Pairs in seeded order. The mean over the pairs of a step is made small, and `text_weight` times the mean cross-entropy of
    its preferred tokens, however the step is split into passes.

    `again(epoch, begins)` gives the snapshot of an epoch after the first, of the same conversations in their order: a new one of
    the student as it stands where the epoch `begins`, else the one that was kept. None: the first one serves throughout.
    """

    def __init__(
        self, first: Snapshot, loss: Loss, table: TrainTable, seed: int, *, text_weight: float = 0.0,
        device: torch.device | str = "cpu", again: Callable[[int, bool], Snapshot] | None = None,
    ) -> None:  # fmt: skip
        self._held, self._loss, self._table, self._seed = first, loss, table, seed
        self._weight, self._device, self._again = text_weight, device, again
        self._epoch, self._step, self._watch = 0, tuple[int, ...](), Watch()

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self._held.pairs), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        epoch, at = divmod(step, self.plan.per_epoch)
        if self._again is not None and epoch != self._epoch:
            self._held, self._epoch = self._again(epoch, at == 0), epoch
        lengths = [self.tokens(row) for row in range(len(self._held.pairs))]
        self._step = epoch_order(lengths, self._table.batch_size, self._seed, epoch)[at]
        positions = (sum(self._pair(row).sizes) for row in self._step)
        self._watch.begin(sum(positions) + (self._chosen_tokens() if self._weight else 0))
        return self._step

    def tokens(self, row: int) -> int:
        return sum(len(example.ids) for example in self._pair(row))

    def origin(self, row: int) -> str:
        """The conversation that a row comes from."""
        return self._pair(row).chosen.source

    def by_role(self, row: int) -> dict[str, int]:
        """Tokens that the two answers are learnt by, for the ledger."""
        return {str(role): count for role, count in zip(ROLES, self._pair(row).sizes, strict=True)}

    def loss_tokens(self, rows: Sequence[int]) -> int:
        """One a pair: its loss stands at one position."""
        return len(rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        # The loop divides by the step's pairs; of the text a mean over its tokens is wanted.
        weight = self._weight * len(self._step) / self._chosen_tokens() if self._weight else 0.0
        return batch_of_pairs(self._held, rows, self._loss, weight, self._device)

    @property
    def look(self) -> Look:
        return self._watch.look

    def metrics(self) -> dict[str, float]:
        return {"pairs": float(len(self._step)), **self._watch.means()}

    def _pair(self, row: int) -> Pair:
        return self._held.pairs[row]

    def _chosen_tokens(self) -> int:
        return sum(self._pair(row).sizes[0] for row in self._step)


class PairJudge:
    """The objective on pairs that are not trained on, always those of the first snapshot, so that scores of different epochs can
    be compared; how often and by how much the preferred answer wins; how long both are; and the preferred answers' text, judged
    as everywhere (`text`)."""

    def __init__(self, held: Snapshot, loss: Loss, text: HeldOutJudge, text_weight: float = 0.0) -> None:
        self._held, self._loss, self._text, self._weight = held, loss, text, text_weight

    @torch.no_grad()
    def __call__(self, student: Causal, autocast: torch.autocast) -> Seen:
        pairs, joint, nats, won = self._held.pairs, self._loss.joint, 0.0, list[float]()
        assert joint is not None
        for rows in _passes(pairs):
            some = [pairs[row] for row in rows]
            passage = _passage(some, student.device)
            signal = _signal(some, [self._held.reference[row] for row in rows], passage)
            logq_N = _logq(student, passage, autocast)
            nats += joint(logq_N, signal).sum().item()
            won += margins(logq_N, signal).tolist()
        text = self._text(student, autocast)
        score = nats / len(pairs) + self._weight * text.facts["text_unats"] / 1e6
        margin = sum(won) / len(won)
        preferred = sum((one > 0) + 0.5 * (one == 0) for one in won) / len(won)
        facts = {
            **text.facts,
            "objective_unats": micro(score),
            "margin_unats": micro(margin),
            "preferred_ppm": round(1e6 * preferred),
        }
        chosen, rejected = (sum(sizes) / len(pairs) for sizes in zip(*(pair.sizes for pair in pairs), strict=True))
        figures = {
            "nats": score,
            "margin_nats": margin,
            "preferred": preferred,
            "chosen_tokens": chosen,
            "rejected_tokens": rejected,
        }
        return Seen(score, facts, {**text.metrics, **{f"validation_{name}": value for name, value in figures.items()}})


def _passes(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    tokens = {row: sum(len(example.ids) for example in pair) for row, pair in enumerate(pairs)}
    return list(split(range(len(pairs)), tokens, PASS_TOKENS))


def _passage(pairs: Sequence[Pair], device: torch.device | str) -> Passage:
    return passage_of([example for pair in pairs for example in pair], device)


def _signal(pairs: Sequence[Pair], reference: Sequence[torch.Tensor], passage: Passage) -> Pairs:
    device, sizes = passage.ids_T.device, torch.tensor([size for pair in pairs for size in pair.sizes])
    unit_N = torch.arange(len(pairs)).repeat_interleave(2).repeat_interleave(sizes)
    side_N = torch.tensor([1.0, -1.0]).repeat(len(pairs)).repeat_interleave(sizes)
    return Pairs(passage.target_ids_N, unit_N.to(device), side_N.to(device), torch.cat(list(reference)).to(device))


@torch.no_grad()
def _logq(student: Causal, passage: Passage, autocast: torch.autocast) -> torch.Tensor:
    """Natural logs of what the student gives each token that stands there, [N]."""
    training = student.model.training
    student.model.eval()
    with autocast:
        hidden_TD = student.hidden(passage.ids_T, passage.lengths)
        (nats_N,) = values(hidden_TD[passage.positions_N], student.head(), (Part(_TEXT, Text(passage.target_ids_N)),))
    student.model.train(training)
    return -nats_N
