"""Distributions over two vocabularies, compared by rank where nothing says which token is which: baselines.

Shape legend: N positions, V student vocabulary, K ranks of the teacher's, M tokens that both vocabularies spell alike.
"""

from dataclasses import dataclass, replace

import torch

from tutelage.losses.base import at_least_float32
from tutelage.signals import Signal


@dataclass(frozen=True, slots=True)
class Ranked(Signal):
    """The teacher's probabilities in falling order, `p_NK`, whatever tokens they are of; 0 after the last one that counts.
    `there_N` is true where the teacher has read the same bytes before its next token as the student has."""

    p_NK: torch.Tensor
    there_N: torch.Tensor


def uld(logits_NV: torch.Tensor, signal: Ranked) -> torch.Tensor:
    """Σᵢ |q₍ᵢ₎ − p₍ᵢ₎| over both distributions in falling order, the shorter one filled with 0, [N] (Boizard et al. 2024,
    Universal logit distillation, arXiv 2402.12030, eq. 6): from 0 to 2, and 0 where the signal is not there."""
    q_NV = at_least_float32(logits_NV).softmax(-1)
    return torch.where(signal.there_N, _apart(q_NV, signal.p_NK), 0.0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Tokens that both vocabularies spell alike: their ids in the student's, `ids_M`, and which share of all the teacher's tokens
    they are."""

    ids_M: torch.Tensor
    share: float

    def to(self, device: torch.device | str) -> "Overlap":
        """The same on another device."""
        return replace(self, ids_M=self.ids_M.to(device))


@dataclass(frozen=True, slots=True)
class Matched(Signal):
    """The teacher's probabilities of the tokens that both spell alike, `p_NM`, and of its others in falling order, `rest_NK`;
    `there_N` as in `Ranked`."""

    p_NM: torch.Tensor
    rest_NK: torch.Tensor
    there_N: torch.Tensor
    overlap: Overlap


def gold(logits_NV: torch.Tensor, signal: Matched, beta: float) -> torch.Tensor:
    """The generalized Jensen–Shannon divergence over the tokens that both vocabularies spell alike (`losses.divergence.jsd`, of
    masses that need not sum to 1) and `uld` over the others, weighed by the share of the teacher's tokens that are alike and by
    the rest, [N]; 0 where the signal is not there (Patiño et al. 2025, Unlocking on-policy distillation for any model family,
    the hybrid loss, as TRL's GOLD trainer has it; not its products of later tokens of a chunk)."""
    q_NV = at_least_float32(logits_NV).softmax(-1)
    ids_M, p_NM = signal.overlap.ids_M, signal.p_NM.to(q_NV.dtype)
    q_NM = q_NV[:, ids_M].clamp_min(torch.finfo(q_NV.dtype).tiny)
    m_NM = beta * p_NM + (1 - beta) * q_NM
    teacher_N, student_N = ((torch.xlogy(one, one) - torch.xlogy(one, m_NM)).sum(-1) for one in (p_NM, q_NM))
    others_V = torch.ones(q_NV.shape[-1], dtype=torch.bool, device=q_NV.device).index_fill(0, ids_M, False)
    alike_N, share = beta * teacher_N + (1 - beta) * student_N, signal.overlap.share
    nats_N = share * alike_N + (1 - share) * _apart(q_NV[:, others_V], signal.rest_NK)
    return torch.where(signal.there_N, nats_N, 0.0)


def _apart(q_NV: torch.Tensor, p_NK: torch.Tensor) -> torch.Tensor:
    """Σᵢ |q₍ᵢ₎ − p₍ᵢ₎|, q sorted here, p before; the shorter one filled with 0."""
    q_NV, p_NK = q_NV.sort(-1, descending=True).values, p_NK.to(q_NV.dtype)
    missing = p_NK.shape[-1] - q_NV.shape[-1]
    q_NK, p_NK = (torch.nn.functional.pad(one, (0, max(0, more))) for one, more in ((q_NV, missing), (p_NK, -missing)))
    return (q_NK - p_NK).abs().sum(-1)
