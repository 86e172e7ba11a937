"""Learning only where the student is least sure: the positions of highest entropy carry most of what there is to learn (Xu et al.
2026, TIP, arXiv 2604.14084: half of them did as well as all).

The head is applied once more without gradient to find them; positions that are left out take no part in the loss, so that neither
the teacher's head nor the derivatives of the student's are computed there.

Shape legend: N positions, M chosen positions, A answers, D hidden, V vocabulary.
"""

import math
from collections.abc import Sequence

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.chunked import chunk_rows
from tutelage.signals import Head
from tutelage.train.batch import Batch, Drawn, Term


def kept(count: int, share: float | None) -> int:
    """How many of an answer's positions are learnt: at least one, where there is any."""
    return count if share is None else math.ceil(share * count)


def choose(entropy_N: torch.Tensor, sizes: Sequence[int], share: float) -> torch.Tensor:
    """Places [M], ascending, of the `share` of each answer's positions that have the highest entropy; `sizes` are positions an
    answer, in order. Answer by answer, so that it does not depend on what else is in the batch; of equals the earlier one."""
    found, start = [], 0
    for size in sizes:
        order_N = entropy_N[start : start + size].sort(descending=True, stable=True).indices
        found.append(start + order_N[: kept(size, share)].sort().values)
        start += size
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.long, device=entropy_N.device)


@torch.no_grad()
def entropy(hidden_ND: torch.Tensor, head: Head) -> torch.Tensor:
    """Of a model's next-token distribution, in nats, [N]; the logits exist for a chunk of positions at a time."""
    found = []
    for piece_ND in hidden_ND.split(chunk_rows(head.weight_VD.shape[0], hidden_ND.device.type)):
        logits_NV = at_least_float32(head.logits(piece_ND))
        norm_N = logits_NV.logsumexp(-1)
        found.append(norm_N - (logits_NV.softmax(-1) * logits_NV).sum(-1))
    return torch.cat(found) if found else hidden_ND.new_zeros(0)


def focused(batch: Batch, hidden_TD: torch.Tensor, head: Head) -> Batch:
    """The batch with the chosen positions alone; as it is where its terms have no focus."""
    if not any(term.focus for term in batch.terms):
        return batch
    return batch._replace(terms=tuple(_focused(term, hidden_TD, head) for term in batch.terms))


def _focused(term: Term, hidden_TD: torch.Tensor, head: Head) -> Term:
    if term.focus is None:
        return term
    bias_V = None if head.bias_V is None else head.bias_V.detach().to(hidden_TD.dtype)
    cast = Head(head.weight_VD.detach().to(hidden_TD.dtype), bias_V, head.scale, head.softcap)
    at_M = choose(entropy(hidden_TD.detach()[term.positions_N], cast), term.focus.sizes, term.focus.share)
    parts = tuple(part._replace(signal=part.signal.rows(at_M)) for part in term.parts)
    drawn = term.drawn and Drawn(*(values_N[at_M] for values_N in term.drawn))
    return Term(term.positions_N[at_M], parts, drawn)
