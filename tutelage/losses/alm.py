"""Distillation across tokenizers: how likely whole pieces of text are, which both tokenizers can spell.

Shape legend: N positions, U chunks.
"""

from dataclasses import dataclass

import torch

from tutelage.losses.joint import at_last, unit_sums
from tutelage.signals import Signal

EPSILON = 1e-6  # keeps every chunk a little below certain, as published
LEAST_NATS = -1e4  # a chunk less likely than this counts as this


@dataclass(frozen=True, slots=True)
class Chunks(Signal):
    """Pieces of text that teacher and student spell in whole tokens: at each position the student's token `ids_N` int64 and the
    chunk `unit_N` int64 it is of from 0 (−1 for none); and `logp_N` natural logs, whose sum over a chunk's positions is
    the teacher's log-probability of it."""

    ids_N: torch.Tensor
    unit_N: torch.Tensor
    logp_N: torch.Tensor


def alm(logq_N: torch.Tensor, signal: Chunks, tau: float = 100.0) -> torch.Tensor:
    """−a log b − (1 − a) log(1 − b) of each chunk, in nats, at its last position, [N] (Minixhofer et al. 2025, Approximate
    likelihood matching, arXiv 2503.20083, eq. 4 with the binary cross-entropy), where a = p(chunk)^(1/τ) is the teacher's and
    b = q(chunk)^(1/τ) the student's probability, both less one part in a million.

    Its least is at q(chunk) = p(chunk). With S = −log q and T = −log p of a chunk, the derivative by log q tends to
    (T/S − 1) / τ as τ grows, and that of cross-entropy is −1: multiplied by τ it stands on the same scale.
    """
    units = int(signal.unit_N.max()) + 1 if len(signal.unit_N) else 0
    logq_U = _less_than_certain(unit_sums(logq_N, signal.unit_N, units), tau)
    logp_U = _less_than_certain(unit_sums(signal.logp_N.to(logq_N.dtype), signal.unit_N, units), tau)
    nats_U = -logp_U.exp() * logq_U + logp_U.expm1() * log1mexp(logq_U)
    return at_last(nats_U, signal.unit_N)


def _less_than_certain(log_U: torch.Tensor, tau: float) -> torch.Tensor:
    return log_U.clamp(LEAST_NATS, 0.0) / tau - EPSILON


def log1mexp(values: torch.Tensor) -> torch.Tensor:
    """log(1 − exp x) of x < 0 without loss of digits (Mächler 2012, Accurately computing log(1 − exp(−|a|)), eq. 7)."""
    near = values > -0.6931471805599453
    # Each branch is given values it is made for: the gradient of the one that is not taken must be finite, too.
    close = (-torch.where(near, values, -1.0).expm1()).log()
    far = (-torch.where(near, -1.0, values).exp()).log1p()
    return torch.where(near, close, far)
