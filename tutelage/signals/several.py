"""Rows of one kind that several teachers gave, in any order.

Shape legend: N positions, D width of the widest teacher's last hidden state, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tutelage.signals.joining import joined
from tutelage.signals.types import Dense, Head, Hidden, Signal


@dataclass(frozen=True, slots=True)
class HiddenOfSeveral(Hidden):
    """Last hidden states of several teachers: row n is of the one whose head is `heads[which_N[n]]`, and as wide as that in its
    first columns; `head` is the first of them."""

    which_N: torch.Tensor
    heads: tuple[Head, ...]

    def dense(self) -> Dense:
        """Log-probabilities in float32. All heads have the same tokens."""
        found_NV = self.hidden_ND.new_empty((len(self), len(self.head.weight_VD)), dtype=torch.float32)
        for at, head in enumerate(self.heads):
            own_N = self.which_N == at
            if own_N.any():
                own_ND = self.hidden_ND[own_N][:, : head.weight_VD.shape[1]]
                found_NV[own_N] = Hidden(own_ND.to(head.weight_VD.dtype), head).dense().logp_NV
        return Dense(found_NV)

    def to(self, device: torch.device | str) -> "HiddenOfSeveral":
        """The same rows on another device."""
        return replace(
            self, hidden_ND=self.hidden_ND.to(device), head=self.head.to(device), which_N=self.which_N.to(device),
            heads=tuple(head.to(device) for head in self.heads),
        )  # fmt: skip


def merged(signals: Sequence[Signal], places: Sequence[torch.Tensor]) -> Signal:
    """One signal out of several of one type; row n of `signals[i]` goes to `places[i][n]`; the places are 0 to N − 1."""
    order_N = torch.cat(list(places)).argsort()
    if not isinstance(signals[0], Hidden):
        return joined(signals).rows(order_N)
    hidden = [one for one in signals if isinstance(one, Hidden)]
    assert len(hidden) == len(signals)
    width = max(one.hidden_ND.shape[1] for one in hidden)
    rows = [torch.nn.functional.pad(one.hidden_ND, (0, width - one.hidden_ND.shape[1])) for one in hidden]
    which_N = torch.cat([one.hidden_ND.new_full((len(one),), at, dtype=torch.long) for at, one in enumerate(hidden)])
    hidden_ND = torch.cat(rows)  # in the widest of their types: each is as its head wants it again in `dense`
    heads = tuple(one.head for one in hidden)
    return HiddenOfSeveral(hidden_ND, heads[0], which_N, heads).rows(order_N)
