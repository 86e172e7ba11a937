"""A teacher for a student that has some of its tokens and no others: everything it says is of those alone.

The student's vocabulary is the teacher's with rows left out, so that every loss on tokens can be taken. What the teacher gives to
tokens that the student lacks is left out and the rest made to sum to 1: the student has no token to put that mass on, and every
divergence between two distributions on the kept tokens stays one. Beside keeping it as a tail, forward KL only counts each
position 1 / (kept mass) times. How much is kept is measured (`kept_mass`).

Shape legend: T tokens, N loss positions, V the student's tokens, W the teacher's.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.losses.chunked import chunk_rows
from tutelage.models.causal import Causal
from tutelage.signals import Head
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of


def kept_of(student: Any, teacher: Any) -> tuple[int, ...]:
    """The teacher's id of each of the student's tokens, in the order of the student's. Raises `ConfigError` for a token that the
    teacher does not have."""
    ids, known = student.get_vocab(), teacher.get_vocab()
    found = [-1] * (1 + max(ids.values()))
    for token, at in ids.items():
        if token not in known:
            raise ConfigError(
                f"the student's token {token!r} is none of the teacher's",
                fix="trim the vocabulary of a student that starts with the teacher's tokenizer, or use a loss on whole pieces of "
                "text (alm)",
            )
        found[at] = known[token]
    return tuple(max(0, one) for one in found)  # an id between that is no token is never read


class Subset(Causal):
    """The same weights, read with the student's ids. Its head has the student's tokens."""

    def __init__(self, teacher: Causal, kept: Sequence[int], columns: int) -> None:
        """`kept` as `kept_of` gives it; `columns` is how many tokens the teacher has. Raises `ConfigError` for an id that the
        teacher's head has no row for."""
        vars(self).update(vars(teacher))
        self._kept_V = torch.tensor(kept, device=teacher.device)
        whole = teacher.head()
        if int(self._kept_V.max()) >= len(whole.weight_VD):
            raise ConfigError(
                f"the teacher's head has {len(whole.weight_VD)} columns, and its tokenizer an id {int(self._kept_V.max())}",
                fix="give the teacher's folder with the tokenizer it was trained with",
            )
        bias_V = None if whole.bias_V is None else whole.bias_V[self._kept_V]
        self._whole = whole.narrow(columns)
        self._head = replace(whole, weight_VD=whole.weight_VD[self._kept_V], bias_V=bias_V)

    def hidden(self, ids_T: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        return super().hidden(self._kept_V[ids_T], lengths)

    def head(self, columns: int | None = None) -> Head:
        return self._head if columns is None else self._head.narrow(columns)

    @torch.no_grad()
    def kept_mass(self, examples: Sequence[Example]) -> float:
        """How much of its probability the teacher gives to the student's tokens, on average over what is learnt of the
        examples."""
        total, count = 0.0, 0
        for example in examples:
            passage = passage_of([example], self.device)
            hidden_ND = self.hidden(passage.ids_T, passage.lengths)[passage.positions_N]
            for part_ND in hidden_ND.split(chunk_rows(len(self._whole.weight_VD), self.device.type)):
                p_NW = self._whole.logits(part_ND).float().softmax(-1)
                total += p_NW[:, self._kept_V.unique()].sum().item()
                count += len(part_ND)
        return total / count
