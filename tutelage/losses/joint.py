"""Losses that tie positions together: of sums of log-probabilities over answers or pieces of text.

Only log q(y) of the tokens that stand there matters to them. Once their derivative by it is known at every position, they are a
weighted log-likelihood, and the head and its gradient can be computed a chunk of positions at a time like any other loss's.

Shape legend: N positions, U units (answers, or pieces of one), V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.losses.base import Loss, at_least_float32
from tutelage.losses.inplace import in_place, log_softmax_
from tutelage.signals import Signal


@dataclass(frozen=True, slots=True)
class Settled(Signal):
    """A joint loss at the student as it stands: the tokens `ids_N` int64, the value `nats_N` that stands at each position, and
    `slope_N`, the derivative of the values' sum by log q(y) at each."""

    ids_N: torch.Tensor
    nats_N: torch.Tensor
    slope_N: torch.Tensor


def _settled(logits_NV: torch.Tensor, signal: Settled) -> torch.Tensor:
    logq_N = log_likelihood(logits_NV, signal.ids_N)
    return signal.nats_N + signal.slope_N * (logq_N - logq_N.detach())


def _settled_kernel(logits_NV: torch.Tensor, signal: Settled, _: list[torch.Tensor]) -> torch.Tensor:
    """Its gradient is slope · (e_y − q). No buffers."""
    log_softmax_(logits_NV)
    slope_N1 = signal.slope_N[:, None].to(logits_NV.dtype)
    logits_NV.exp_().mul_(-slope_N1).scatter_add_(-1, signal.ids_N[:, None], slope_N1)
    return signal.nats_N.to(logits_NV.dtype)


def settled_loss(name: str) -> Loss:
    """The loss of that name once its value and slopes are known."""
    return Loss(name, Settled, _settled, in_place(_settled_kernel))


def log_likelihood(logits_NV: torch.Tensor, ids_N: torch.Tensor) -> torch.Tensor:
    """log q(y) of the token at each position, [N], natural logs, float32 at least."""
    logits_NV = at_least_float32(logits_NV)
    return logits_NV.gather(-1, ids_N[:, None]).squeeze(-1) - logits_NV.logsumexp(-1)


def on_logits(joint: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`Loss.value` of a joint loss, out of its function of log q(y): for all positions at once."""

    def value(logits_NV: torch.Tensor, signal: Any, **parameters: float) -> torch.Tensor:
        return joint(log_likelihood(logits_NV, signal.ids_N), signal, **parameters)

    return value


def unit_sums(values_N: torch.Tensor, unit_N: torch.Tensor, units: int) -> torch.Tensor:
    """Sums over the positions of each unit, [U]; `unit_N` int64 says which unit a position is of, −1 for none."""
    inside_N = unit_N >= 0
    return values_N.new_zeros(units).index_add_(0, unit_N[inside_N], values_N[inside_N])


def at_last(values_U: torch.Tensor, unit_N: torch.Tensor) -> torch.Tensor:
    """The value of each unit at its last position and 0 elsewhere, [N]."""
    place_N = torch.arange(len(unit_N), device=unit_N.device)
    inside_N = unit_N >= 0
    last_U = torch.full((len(values_U),), -1, device=unit_N.device).scatter_reduce_(
        0, unit_N[inside_N], place_N[inside_N], "amax"
    )
    return values_U.new_zeros(len(unit_N)).index_add_(0, last_U[last_U >= 0], values_U[last_U >= 0])
