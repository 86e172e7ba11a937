"""Head and loss together, a chunk of positions at a time.

The logits of student and teacher exist for one chunk only, and so do their derivatives: what comes out is the sum of the
losses, the gradient by the hidden states, and the gradient by the head's weights, added in place. That is what a fused linear
cross-entropy does (Hsu et al., Liger Kernel, arXiv 2410.10989, §3.2), for every loss of the catalogue.

Losses that tie positions together need all log-probabilities before any derivative: the head is applied once more for those
(`settled`).

Shape legend: N positions, D hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from tutelage.losses.base import Loss, WithGradient
from tutelage.losses.joint import Settled, settled_loss
from tutelage.losses.supervised import cross_entropy
from tutelage.signals import Head, Signal, Text

# Of one float32 [chunk, V] tensor, of which up to six exist at a time. A processor's cache holds a few rows; a GPU wants enough
# of them at once to be busy.
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}


class Part(NamedTuple):
    """One loss on a set of positions; `weight` scales it."""

    loss: Loss
    signal: Signal
    weight: float = 1.0


class Summed(NamedTuple):
    """Sums over positions, in nats, one a part and unweighted; and the gradient by the hidden states, [N, D]."""

    nats: tuple[float, ...]
    gradient_ND: torch.Tensor


def chunk_rows(vocabulary: int, device: str = "cpu") -> int:
    """Positions whose logits exist at a time."""
    return max(16, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocabulary))


def head_gradients(
    hidden_ND: torch.Tensor, head: Head, parts: Sequence[Part], scale: float, *, weight_gradient_VD: torch.Tensor | None,
    bias_gradient_V: torch.Tensor | None = None, dtype: torch.dtype | None = None, rows: int | None = None,
    fresh: bool = False, look: Callable[[torch.Tensor, slice], Any] | None = None,
) -> Summed:  # fmt: skip
    """Gradients of scale · Σ_parts weight · Σₙ lossₙ.

    `weight_gradient_VD` (and `bias_gradient_V`) are added to in place; None for a head that is not trained; what a `fresh` one
    holds is overwritten, which saves setting it to zero. The product is
    computed in `dtype` (default: that of the hidden states), losses and gradients of logits in float32 at least. `look`
    is shown the logits of each chunk before any loss is taken of them, and which positions they are.
    """
    dtype = dtype or hidden_ND.dtype
    weight_VD = head.weight_VD.detach().to(dtype)
    bias_V = None if head.bias_V is None else head.bias_V.detach().to(dtype)
    cast = Head(weight_VD, bias_V, head.scale, head.softcap)
    gradient_ND = torch.empty(hidden_ND.shape, dtype=dtype, device=hidden_ND.device)
    totals = [torch.zeros((), dtype=torch.float64, device=hidden_ND.device) for _ in parts]
    step = rows or chunk_rows(weight_VD.shape[0], hidden_ND.device.type)
    parts = settled(hidden_ND.detach().to(dtype), cast, parts, step)
    for start in range(0, len(hidden_ND), step):
        at = slice(start, start + step)
        piece_ND = hidden_ND[at].detach().to(dtype)
        with torch.no_grad():
            product_NV = torch.nn.functional.linear(piece_ND, weight_VD, bias_V)
            logits_NV = _shaped(product_NV, cast)
            if look is not None:
                look(logits_NV, at)
            slope_NV = _logit_gradient(logits_NV, parts, scale, at, totals)
            slope_NV = _unshaped(slope_NV, logits_NV, product_NV, cast).to(dtype)
            torch.mm(slope_NV, weight_VD, out=gradient_ND[at])
            if weight_gradient_VD is not None:
                _add_product(weight_gradient_VD, slope_NV, piece_ND, fresh=fresh and not start)
            if bias_gradient_V is not None:
                bias_gradient_V += slope_NV.sum(0)
    return Summed(tuple(total.item() for total in totals), gradient_ND.to(hidden_ND.dtype))


def values(
    hidden_ND: torch.Tensor, head: Head, parts: Sequence[Part], rows: int | None = None
) -> tuple[torch.Tensor, ...]:
    """The losses alone, one tensor [N] of nats a part, without gradients."""
    found: list[list[torch.Tensor]] = [[] for _ in parts]
    step = rows or chunk_rows(head.weight_VD.shape[0], hidden_ND.device.type)
    parts = settled(hidden_ND, head, parts, step)
    with torch.no_grad():
        for start in range(0, len(hidden_ND), step):
            at = slice(start, start + step)
            logits_NV = head.logits(hidden_ND[at])
            for kept, part in zip(found, parts, strict=True):
                kept.append(part.loss(logits_NV, part.signal.rows(at)))
    return tuple(torch.cat(kept) if kept else hidden_ND.new_zeros(0) for kept in found)


def settled(hidden_ND: torch.Tensor, head: Head, parts: Sequence[Part], rows: int | None = None) -> tuple[Part, ...]:
    """The parts with those whose loss ties positions together (`Loss.joint`) made independent of each other: all positions of one
    term at once, their values and derivatives by log q(y) known. Other parts are as they were."""
    return tuple(_settled(hidden_ND, head, part, rows) if part.loss.joint else part for part in parts)


def _settled(hidden_ND: torch.Tensor, head: Head, part: Part, rows: int | None) -> Part:
    signal: Any = part.loss.accept(part.signal, head.weight_VD.shape[0])
    joint = part.loss.joint
    assert joint is not None
    step = rows or chunk_rows(head.weight_VD.shape[0], hidden_ND.device.type)
    with torch.no_grad():
        logq = [
            -cross_entropy(head.logits(hidden_ND[at : at + step]), Text(signal.ids_N[at : at + step]))
            for at in range(0, len(hidden_ND), step)
        ]
    with torch.enable_grad():
        leaf_N = (torch.cat(logq) if logq else hidden_ND.new_zeros(0)).requires_grad_()
        nats_N = joint(leaf_N, signal)
        (slope_N,) = torch.autograd.grad(nats_N.sum(), leaf_N)
    return Part(settled_loss(part.loss.name), Settled(signal.ids_N, nats_N.detach(), slope_N), part.weight)


def _logit_gradient(
    logits_NV: torch.Tensor, parts: Sequence[Part], scale: float, at: slice, totals: list[torch.Tensor]
) -> torch.Tensor:
    """Derivative of the weighted sum by these logits; adds each part's own sum to its total. The last part may have the
    logits for its own; the others get a copy."""
    slope_NV: torch.Tensor | None = None
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        one = _of_part(part, logits_NV if last else logits_NV.clone(), at)
        totals[number] += one.nats_N.sum(dtype=torch.float64)
        factor = scale * part.weight
        weighted_NV = one.gradient_NV if factor == 1.0 else one.gradient_NV.mul_(factor)
        slope_NV = weighted_NV if slope_NV is None else slope_NV.add_(weighted_NV)
    assert slope_NV is not None
    return slope_NV


def _of_part(part: Part, logits_NV: torch.Tensor, at: slice) -> WithGradient:
    signal = part.loss.accept(part.signal.rows(at), logits_NV.shape[-1])
    if part.loss.gradient is not None:
        return part.loss.gradient(logits_NV, signal)
    with torch.enable_grad():
        leaf_NV = (logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()).detach().requires_grad_()
        nats_N = part.loss.value(leaf_NV, signal)
        (gradient_NV,) = torch.autograd.grad(nats_N.sum(), leaf_NV)
    return WithGradient(nats_N.detach(), gradient_NV)


def _shaped(product_NV: torch.Tensor, head: Head) -> torch.Tensor:
    if head.scale != 1.0:
        product_NV = product_NV * head.scale
    return head.softcap * torch.tanh(product_NV / head.softcap) if head.softcap else product_NV


def _unshaped(slope_NV: torch.Tensor, logits_NV: torch.Tensor, product_NV: torch.Tensor, head: Head) -> torch.Tensor:
    """Back through scale and bound: d softcap·tanh(x/softcap) = 1 − tanh²(x/softcap)."""
    if head.softcap:
        # The logits may have been overwritten: the bound is taken of the product again.
        inner_NV = (product_NV if head.scale == 1.0 else product_NV * head.scale).to(slope_NV.dtype) / head.softcap
        slope_NV = slope_NV * (1 - torch.tanh(inner_NV) ** 2)
    return slope_NV * head.scale if head.scale != 1.0 else slope_NV


def _add_product(total_VD: torch.Tensor, slope_NV: torch.Tensor, piece_ND: torch.Tensor, *, fresh: bool) -> None:
    if total_VD.dtype == slope_NV.dtype:
        total_VD.addmm_(slope_NV.T, piece_ND, beta=0 if fresh else 1)
    elif fresh:
        total_VD.copy_(slope_NV.T @ piece_ND)
    else:
        total_VD += slope_NV.T @ piece_ND
