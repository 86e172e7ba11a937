"""Distributions over two vocabularies that are compared by rank alone: a baseline that knows of no token which it is.

Shape legend: N positions, V student vocabulary, K ranks of the teacher's.
"""

from dataclasses import dataclass

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
    q_NV = at_least_float32(logits_NV).softmax(-1).sort(-1, descending=True).values
    p_NK = signal.p_NK.to(q_NV.dtype)
    missing = p_NK.shape[-1] - q_NV.shape[-1]
    q_NK, p_NK = (torch.nn.functional.pad(one, (0, max(0, more))) for one, more in ((q_NV, missing), (p_NK, -missing)))
    return torch.where(signal.there_N, (q_NK - p_NK).abs().sum(-1), 0.0)
