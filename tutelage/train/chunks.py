"""What a teacher with another tokenizer says about a text: the log-probability of each chunk that both spell in whole tokens.

Shape legend: T tokens, N loss positions, M answer tokens of the teacher.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tutelage.errors import SignalError
from tutelage.losses.alm import Chunks
from tutelage.losses.base import Loss
from tutelage.losses.chunked import Part, values
from tutelage.losses.ranked import Matched, Overlap, Ranked
from tutelage.losses.supervised import cross_entropy
from tutelage.models.alignment import Chunk, Speller, align
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Signal, Text
from tutelage.train.batch import split, starts
from tutelage.train.crossing import Crossed, Crossing, answer_of
from tutelage.train.examples import Example
from tutelage.train.teaching import PASS_TOKENS, Passage

_TEXT = Loss("cross-entropy", Text, cross_entropy)


class ChunkTeacher:
    """A teacher's weights, asked as training goes, for losses on `Chunks`; of the data's text and of the student's own alike.

    `columns` is how many tokens its tokenizer has. The teacher never trains. `weight` is what a chunk's loss counts beside
    cross-entropy.
    """

    role = Role.SOFT_TARGET

    def __init__(
        self, teacher: Causal, loss: Loss, crossing: Crossing, columns: int | None = None, weight: float = 1.0
    ) -> None:
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._loss, self._crossing = teacher, loss, crossing
        self._columns, self._weight = columns, weight

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Positions in no chunk have no loss."""
        crossed = [self._crossing(example) for example in passage.examples]
        logp = log_likelihoods(self._teacher, [(one.ids, one.first) for one in crossed], self._columns)
        signal = chunk_signal(passage, [one.chunks for one in crossed], logp)
        return (Part(self._loss, signal, self._weight),)


class Spelled(NamedTuple):
    """An answer as the student's tokens spell it and as those that were collected do, what both have in common, and the natural
    logs of the latter, [M]."""

    ours: Sequence[bytes]
    theirs: Sequence[bytes]
    chunks: Sequence[Chunk]
    logp_M: torch.Tensor


class RecordedChunks:
    """What came with answers that were collected: `said` are the tokens of each by `Example.source`, bytes and natural logs.
    Nothing is said of the end of turn, which no endpoint reports alike."""

    role = Role.SOFT_TARGET

    def __init__(
        self, said: Mapping[str, Sequence[tuple[bytes, float]]], loss: Loss, tokenizer: Any, ends: frozenset[int],
        weight: float = 1.0,
    ) -> None:  # fmt: skip
        self._said, self._loss, self._weight = said, loss, weight
        self._speller, self._ends = Speller(tokenizer), ends

    def spelled(self, example: Example) -> Spelled:
        """How both spell an answer. An end of turn has no bytes."""
        answer = answer_of(example, self._speller, self._ends)
        tokens = [(data, value) for data, value in self._said[example.source] if data]
        theirs = [data for data, _ in tokens]
        logp = torch.tensor([value for _, value in tokens], dtype=torch.float32)
        return Spelled(answer.pieces, theirs, align(answer.pieces, theirs), logp)

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Positions in no chunk have no loss."""
        found = [self.spelled(example) for example in passage.examples]
        signal = chunk_signal(passage, [one.chunks for one in found], [one.logp_M for one in found])
        return (Part(self._loss, signal, self._weight),)


def chunk_signal(
    passage: Passage, chunks: Sequence[Sequence[Chunk]], logp: Sequence[torch.Tensor]
) -> Chunks:  # fmt: skip
    """The chunks of each example of a passage, numbered through, with `logp[i]` [M] of the teacher's own answer tokens."""
    count, device = len(passage.target_ids_N), passage.ids_T.device
    unit_N = torch.full((count,), -1, dtype=torch.long, device=device)
    logp_N = torch.zeros(count, dtype=torch.float32, device=device)
    number = 0
    begins = starts([len(example.targets) for example in passage.examples])
    for begin, pieces, logp_M in zip(begins, chunks, logp, strict=True):
        for one in pieces:
            unit_N[begin + one.left_start : begin + one.left_stop] = number
            logp_N[begin + one.left_stop - 1] = logp_M[one.right_start : one.right_stop].sum()
            number += 1
    return Chunks(passage.target_ids_N, unit_N, logp_N)


@torch.no_grad()
def log_likelihoods(
    model: Causal, texts: Sequence[tuple[Sequence[int], int]], columns: int | None = None
) -> list[torch.Tensor]:
    """Natural logs, float32, of the probability of every token from place `first` on, for each text (ids, first)."""
    found: list[torch.Tensor] = [torch.zeros(0)] * len(texts)
    asked = [row for row, (ids, first) in enumerate(texts) if len(ids) > first]
    for rows in split(asked, {row: len(texts[row][0]) for row in asked}, PASS_TOKENS):
        read = [texts[row][0][:-1] for row in rows]  # the last token is predicted, never read
        lengths = [len(ids) for ids in read]
        ids_T = torch.tensor([token for ids in read for token in ids], device=model.device)
        places, targets, sizes = list[int](), list[int](), list[int]()
        for row, start in zip(rows, starts(lengths), strict=True):
            ids, first = texts[row]
            places += range(start + first - 1, start + len(ids) - 1)
            targets += ids[first:]
            sizes.append(len(ids) - first)
        hidden_ND = model.hidden(ids_T, lengths)[torch.tensor(places, device=model.device)]
        words = Part(_TEXT, Text(torch.tensor(targets, device=model.device)))
        (nats_N,) = values(hidden_ND, model.head(columns), (words,))
        for row, nats in zip(rows, nats_N.split(sizes), strict=True):
            found[row] = -nats.float()
    return found


def bits_per_byte(crossed: Sequence[Crossed], logp: Sequence[torch.Tensor], *, student: bool) -> float:
    """Of the answers' chunks, ends of turn left out; `logp[i]` [M] of the answer tokens of the student or of the teacher."""
    nats, size = 0.0, 0
    for one, logp_M in zip(crossed, logp, strict=True):
        for chunk, count in zip(one.chunks, one.sizes, strict=True):
            if count:
                at = slice(chunk.left_start, chunk.left_stop) if student else slice(chunk.right_start, chunk.right_stop)
                nats, size = nats - logp_M[at].sum().item(), size + count
    return nats / size / 0.6931471805599453 if size else 0.0


class RankTeacher:
    """A teacher's weights, asked as training goes, for losses on `Ranked`: its probabilities in falling order wherever a chunk
    begins, where both have read the same bytes."""

    role = Role.SOFT_TARGET

    def __init__(self, teacher: Causal, loss: Loss, crossing: Crossing, columns: int | None = None) -> None:
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._loss, self._crossing, self._columns = teacher, loss, crossing, columns

    @torch.no_grad()
    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Positions inside a chunk have no loss."""
        crossed, head = [self._crossing(example) for example in passage.examples], self._teacher.head(self._columns)
        count, device = len(passage.target_ids_N), passage.ids_T.device
        p_NV = torch.zeros(count, head.weight_VD.shape[0], device=device)
        there_N = torch.zeros(count, dtype=torch.bool, device=device)
        begins = starts([len(example.targets) for example in passage.examples])
        for begin, one in zip(begins, crossed, strict=True):
            if one.chunks:
                ids_T = torch.tensor(one.ids[:-1], device=device)
                hidden_TD = self._teacher.hidden(ids_T, (len(ids_T),))
                mine = torch.tensor([begin + chunk.left_start for chunk in one.chunks], device=device)
                other = torch.tensor([one.first - 1 + chunk.right_start for chunk in one.chunks], device=device)
                p_NV[mine] = head.logits(hidden_TD[other]).float().softmax(-1)
                there_N[mine] = True
        return (Part(self._loss, self._signal(p_NV, there_N)),)

    def _signal(self, p_NV: torch.Tensor, there_N: torch.Tensor) -> Signal:
        return Ranked(p_NV.sort(-1, descending=True).values, there_N)


class MatchTeacher(RankTeacher):
    """The same for losses on `Matched`. `ours` and `theirs` are the ids of tokens by their bytes (`train.vocabulary`), of the
    student's tokenizer and of the teacher's, which has `columns` tokens."""

    def __init__(
        self, teacher: Causal, loss: Loss, crossing: Crossing, ours: Mapping[bytes, int], theirs: Mapping[bytes, int],
        columns: int,
    ) -> None:  # fmt: skip
        """Raises `SignalError` where no token is spelled alike."""
        super().__init__(teacher, loss, crossing, columns)
        pairs = {at: theirs[data] for data, at in ours.items() if data and data in theirs}
        if not pairs:
            raise SignalError(
                f"{loss.name} compares tokens that both spell alike, and of {len(ours):,} and {len(theirs):,} tokens none is",
                fix='choose loss = "alm"',
            )
        device = next(teacher.model.parameters()).device
        self._overlap = Overlap(torch.tensor(list(pairs), device=device), len(pairs) / columns)
        self._theirs_M = torch.tensor(list(pairs.values()), device=device)

    def _signal(self, p_NV: torch.Tensor, there_N: torch.Tensor) -> Signal:
        others_V = torch.ones(p_NV.shape[-1], dtype=torch.bool, device=p_NV.device).index_fill(0, self._theirs_M, False)
        rest_NK = p_NV[:, others_V].sort(-1, descending=True).values
        return Matched(p_NV[:, self._theirs_M], rest_NK, there_N, self._overlap)
