"""Preferences over whole answers.

Shape legend: N positions, U pairs of answers.
"""

from dataclasses import dataclass

import torch

from tutelage.losses.joint import at_last, unit_sums
from tutelage.signals import Signal


@dataclass(frozen=True, slots=True)
class Pairs(Signal):
    """Answers in pairs: at each position the token `ids_N` int64, the pair `unit_N` int64 it is of (−1 for none), `side_N`,
    1 in the answer that is preferred and −1 in the other, and `reference_N`, log q₀(y) of a frozen model in natural logs."""

    ids_N: torch.Tensor
    unit_N: torch.Tensor
    side_N: torch.Tensor
    reference_N: torch.Tensor


def margins(logq_N: torch.Tensor, signal: Pairs) -> torch.Tensor:
    """log q/q₀ of the preferred answer less that of the other, in nats, [U]."""
    units = int(signal.unit_N.max()) + 1 if len(signal.unit_N) else 0
    ratio_N = logq_N - signal.reference_N.to(logq_N.dtype)
    return unit_sums(signal.side_N.to(logq_N.dtype) * ratio_N, signal.unit_N, units)


def dpo(logq_N: torch.Tensor, signal: Pairs, beta: float = 0.1) -> torch.Tensor:
    """−log σ(β · margin) of each pair, in nats, at its last position, [N] (Rafailov et al. 2023, Direct preference optimization,
    arXiv 2305.18290, eq. 7).

    With the teacher's answer preferred to one of the student's own, and the student as it was for q₀, it is the objective of SODA
    (arXiv 2604.03873).
    """
    return at_last(torch.nn.functional.softplus(-beta * margins(logq_N, signal)), signal.unit_N)
