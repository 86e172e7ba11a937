"""What a teacher reveals at a position, as tensors. A loss takes one of these types and cannot be called with another.

Shape legend: N positions, K kept ids, V student vocabulary, D width of the teacher's last hidden state.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import torch

NO_TAIL = -math.inf


@dataclass(frozen=True, slots=True)
class Signal:
    """One row a position. `rows` takes some of them: row numbers, a mask, or a slice."""

    def rows(self, at: torch.Tensor | slice) -> Self:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[at] for name, value in found.items() if isinstance(value, torch.Tensor)})

    def to(self, device: torch.device | str) -> Self:
        """The same rows on another device."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in found.items() if hasattr(value, "to")})

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))


@dataclass(frozen=True, slots=True)
class Text(Signal):
    """The teacher's words alone: one id a position, `ids_N` int64."""

    ids_N: torch.Tensor


@dataclass(frozen=True, slots=True)
class TopK(Signal):
    """The revealed candidates as student ids and what is left over as one tail bucket.

    `ids_NK` int64 (0 where padded), `logp_NK` float32 natural logs (−inf where padded), `tail_N` float32 natural log of
    the mass on all other ids. Each row's probabilities sum to 1: nothing is renormalised away.
    """

    ids_NK: torch.Tensor
    logp_NK: torch.Tensor
    tail_N: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sparse(Signal):
    """An unbiased sparse estimate of the teacher's distribution: E[Σᵢ tᵢ eᵢ] = p over the draws that made it.

    `ids_NK` int64 (0 where padded; an id may come twice, its weights then add), `weights_NK` float32 ≥ 0 (0 where padded).
    A row's total may differ from 1; only losses that are linear in p may take it.
    """

    ids_NK: torch.Tensor
    weights_NK: torch.Tensor


@dataclass(frozen=True, slots=True)
class Dense(Signal):
    """The full distribution over the student's vocabulary: `logp_NV` natural logs, each row's probabilities sum to 1."""

    logp_NV: torch.Tensor


@dataclass(frozen=True, slots=True)
class Scored(Signal):
    """The teacher's log-probability of the token that stands there, and the student's when it drew it.

    `ids_N` int64, `logp_N` and `drawn_logp_N` float32 natural logs at temperature 1. `drawn_logp_N` is what the engine that
    wrote the rollout reported.
    """

    ids_N: torch.Tensor
    logp_N: torch.Tensor
    drawn_logp_N: torch.Tensor


@dataclass(frozen=True, slots=True)
class Head:
    """What turns a last hidden state into logits: weights, and what some families do to the product.

    `weight_VD` [V, D], `bias_V` [V] or None. The product is multiplied by `scale` and, where `softcap` is above 0, bounded by
    softcap · tanh(logit / softcap) (Gemma 2, arXiv 2408.00118, §2).
    """

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0

    def narrow(self, columns: int) -> "Head":
        """Only the first `columns` tokens: models of one family are padded to different widths, and what stands beyond the
        tokenizer is no token."""
        bias_V = None if self.bias_V is None else self.bias_V[:columns]
        return replace(self, weight_VD=self.weight_VD[:columns], bias_V=bias_V)

    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """[N, V] in the type of the product."""
        logits_NV = torch.nn.functional.linear(hidden_ND, self.weight_VD, self.bias_V)
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        return self.softcap * torch.tanh(logits_NV / self.softcap) if self.softcap else logits_NV

    def to(self, device: torch.device | str) -> "Head":
        bias_V = None if self.bias_V is None else self.bias_V.to(device)
        return replace(self, weight_VD=self.weight_VD.to(device), bias_V=bias_V)


@dataclass(frozen=True, slots=True)
class Hidden(Signal):
    """The full distribution in its smallest lossless form: the teacher's last hidden states `hidden_ND` and its head.

    A chunk of rows becomes `Dense` where it is needed, so that [N, V] never exists as a whole."""

    hidden_ND: torch.Tensor
    head: Head

    def dense(self) -> Dense:
        """Log-probabilities in float32."""
        return Dense(self.head.logits(self.hidden_ND).float().log_softmax(-1))
