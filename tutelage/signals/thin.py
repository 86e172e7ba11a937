"""Making a distribution small: unbiased sparse estimates of it, and its top-k with a tail.

Shape legend: N positions, V vocabulary, K kept ids, M entries of all rows one after another, W ids of a block.

Everything here reads natural log-probabilities `logp_NV` in float32 or float64 whose rows sum to 1, and works row by row: how
the rows are cut into chunks changes nothing, since a generator gives the same numbers in one draw or several.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from tutelage.signals.types import Sparse, TopK

_BLOCK = 64  # ids whose probabilities are added in float32; their sums, thousands a row, are added in float64
_ROWS = 32  # rows worked on at once, so that their probabilities stay in the cache of one core


class Expected(NamedTuple):
    """What `threshold` will keep and lose at each position: mean number of ids, and E ‖t − p‖²."""

    ids_N: torch.Tensor
    mse_N: torch.Tensor


class _Entries(NamedTuple):
    """Kept ids of all rows in any order: the row each belongs to, its id, its weight."""

    rows_M: torch.Tensor
    ids_M: torch.Tensor
    weights_M: torch.Tensor


class _Located(NamedTuple):
    """Ids found, row after row, with their rows."""

    rows_M: torch.Tensor
    ids_M: torch.Tensor


def seeded(name: str, seed: int = 0) -> torch.Generator:
    """A generator of its own for whatever has this name (a sequence's key): a capture that was interrupted, and one in another
    order, draw the same."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def threshold(logp_NV: torch.Tensor, c: float, generator: torch.Generator) -> Sparse:
    """Ids with p ≥ c at their p; each other id with probability p / c at weight c, by systematic sampling in the order of ids
    with one uniform number a row (Fearnhead & Clifford 2003, "On-line inference for hidden Markov models via particle
    filters", §3; here over a vocabulary instead of particles).

    E[t] = p, and no unbiased estimate with as many ids on average has a smaller E ‖t − p‖² = Σ_{p<c} p (c − p). A row's total is
    within c of 1, and it keeps at most 1/c + 1 ids. `c` in (0, 1]; it is rounded to float32 first, which decides ties.
    """
    uniform_N = torch.rand(len(logp_NV), generator=generator, dtype=torch.float64)
    return threshold_at(logp_NV, c, uniform_N)


def threshold_at(logp_NV: torch.Tensor, c: float, uniform_N: torch.Tensor) -> Sparse:
    """`threshold` with its uniform numbers given, float64 in [0, 1)."""
    c = _as_float32(c)
    found = []
    for first, p_RBW in _blocks(logp_NV):
        heads = _take_heads(p_RBW, c)
        mass_RB = p_RBW.sum(-1).double().cumsum(-1)
        uniform_R = uniform_N[first : first + len(p_RBW)].to(mass_RB.device)
        most = int((mass_RB[:, -1].max() / c + 2).floor())
        goal_RK = (torch.arange(1, most + 1, device=mass_RB.device) - uniform_R[:, None]) * c
        rows_M, ids_M = _locate(p_RBW, mass_RB, goal_RK)
        tails = _Entries(rows_M, ids_M, torch.full((len(ids_M),), c, device=ids_M.device))
        found += [_Entries(part.rows_M + first, part.ids_M, part.weights_M) for part in (heads, tails)]
    return _padded(found, len(logp_NV), logp_NV.device)


def expected(logp_NV: torch.Tensor, c: float) -> Expected:
    """Mean ids Σ min(1, p/c) and mean squared error Σ_{p<c} p (c − p) of `threshold`, in float64, exactly."""
    c = _as_float32(c)
    ids, mse = [], []
    for _, p_RBW in _blocks(logp_NV):
        p_RV = p_RBW.flatten(1).double()
        small_RV = p_RV.masked_fill(p_RV >= c, 0)
        ids.append((p_RV >= c).sum(-1) + small_RV.sum(-1) / c)
        mse.append((small_RV * (c - small_RV)).sum(-1))
    return Expected(torch.cat(ids), torch.cat(mse))


def random_draws(logp_NV: torch.Tensor, draws: int, generator: torch.Generator) -> Sparse:
    """Counts of `draws` independent draws from p, divided by their number (Anshumann et al. 2025, arXiv 2503.16870, §3, at
    proposal temperature 1). E[t] = p, E ‖t − p‖² = Σ p (1 − p) / draws."""
    found = []
    for first, p_RBW in _blocks(logp_NV):
        ids_RK = _draw(p_RBW, draws, generator).sort(-1).values
        new_RK = torch.ones_like(ids_RK, dtype=torch.bool)
        new_RK[:, 1:] = ids_RK[:, 1:] != ids_RK[:, :-1]
        rows_M, at_M = new_RK.nonzero(as_tuple=True)
        starts_M = rows_M * draws + at_M
        ends_M = torch.cat([starts_M[1:], starts_M.new_tensor([len(p_RBW) * draws])])
        found.append(_Entries(rows_M + first, ids_RK[rows_M, at_M], (ends_M - starts_M) / draws))
    return _padded(found, len(logp_NV), logp_NV.device)


def top_k(logp_NV: torch.Tensor, k: int) -> TopK:
    """The `k` most probable ids (all of them where V is smaller), most probable first, and the mass of all others as it is
    summed, not as what the k lack to 1: a tail of 1e-9 keeps its digits."""
    best = logp_NV.float().topk(min(k, logp_NV.shape[-1]), dim=-1)
    tails = []
    for first, p_RBW in _blocks(logp_NV):
        rest_RV = p_RBW.flatten(1).scatter(-1, best.indices[first : first + len(p_RBW)], 0.0)
        tails.append(rest_RV.sum(-1, dtype=torch.float64).log().float())
    return TopK(best.indices, best.values, torch.cat(tails) if tails else best.values.new_zeros(0))


def sampled_top_k(logp_NV: torch.Tensor, k: int, generator: torch.Generator) -> Sparse:
    """The `k` most probable ids at their p, and one draw from p at weight 1 where it fell outside them: what an API's top
    log-probabilities and the token it sampled amount to. `k` = 0 leaves the sampled token alone."""
    drawn = [_draw(p_RBW, 1, generator)[:, 0] for _, p_RBW in _blocks(logp_NV)]
    ids_N = torch.cat(drawn) if drawn else torch.zeros(0, dtype=torch.int64)
    return with_sampled(top_k(logp_NV, k), ids_N)


def with_sampled(revealed: TopK, sampled_N: torch.Tensor) -> Sparse:
    """The unbiased estimate in what an API reveals: p on the candidates, 1 on the sampled token where it is none of them.

    E[t] = p if the token was drawn at temperature 1 from the whole distribution and the log-probabilities are that
    distribution's. It is the text's own one-hot target with the candidates' share of the draw replaced by its mean
    (Rao-Blackwell), so its variance is never larger. `sampled_N` int64 student ids.
    """
    present_NK = revealed.logp_NK > -math.inf
    outside_N = ~((revealed.ids_NK == sampled_N[:, None]) & present_NK).any(-1)
    ids_NK = torch.cat([revealed.ids_NK, torch.where(outside_N, sampled_N, 0)[:, None]], -1)
    return Sparse(ids_NK, torch.cat([revealed.logp_NK.exp(), outside_N[:, None].float()], -1))


def _as_float32(c: float) -> float:
    if not 0 < c <= 1:
        raise ValueError(f"c = {c} is not in (0, 1]")
    return torch.tensor(c, dtype=torch.float32).item()


def _blocks(logp_NV: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Probabilities of some rows at a time as [R, B, W], vocabulary padded with zeros, with the number of the first row.

    The same memory serves every time."""
    count, vocabulary = logp_NV.shape
    width = -(-vocabulary // _BLOCK) * _BLOCK
    space_RV = torch.zeros(min(_ROWS, count), width, device=logp_NV.device)
    for first in range(0, count, _ROWS):
        rows_RV = logp_NV[first : first + _ROWS]
        torch.exp(rows_RV.float(), out=space_RV[: len(rows_RV), :vocabulary])
        yield first, space_RV[: len(rows_RV)].view(len(rows_RV), -1, _BLOCK)


def _take_heads(p_RBW: torch.Tensor, c: float) -> _Entries:
    """Entries with p ≥ c, set to zero where they stood. Few blocks hold one, so that only block maxima are looked through."""
    row_H, block_H = (p_RBW.amax(-1) >= c).nonzero(as_tuple=True)
    held_HW = p_RBW[row_H, block_H]
    block_M, at_M = (held_HW >= c).nonzero(as_tuple=True)
    p_RBW[row_H, block_H] = held_HW.masked_fill(held_HW >= c, 0.0)
    return _Entries(row_H[block_M], block_H[block_M] * _BLOCK + at_M, held_HW[block_M, at_M])


def _locate(p_RBW: torch.Tensor, mass_RB: torch.Tensor, goal_RK: torch.Tensor) -> _Located:
    """Rows and ids at which the cumulative probability first reaches each goal; goals lie above 0, and those beyond the row's
    mass are left out.

    A block's float32 sum and the float64 sums within it differ by 2⁻²⁴ of it or so; a goal in that gap takes the block's last
    id that has any probability.
    """
    rows_M, goal_M = (goal_RK <= mass_RB[:, -1:]).nonzero(as_tuple=True)
    block_M = torch.searchsorted(mass_RB, goal_RK)[rows_M, goal_M]
    before_M = torch.where(block_M > 0, mass_RB[rows_M, (block_M - 1).clamp(min=0)], 0.0)
    p_MW = p_RBW[rows_M, block_M].double()
    at_M = ((p_MW.cumsum(-1) + before_M[:, None]) < goal_RK[rows_M, goal_M][:, None]).sum(-1)
    last_M = _BLOCK - 1 - (p_MW > 0).flip(-1).byte().argmax(-1)
    return _Located(rows_M, block_M * _BLOCK + torch.minimum(at_M, last_M))


def _draw(p_RBW: torch.Tensor, draws: int, generator: torch.Generator) -> torch.Tensor:
    """Independent draws from each row, [R, draws]."""
    mass_RB = p_RBW.sum(-1).double().cumsum(-1)
    uniform_RK = 1 - torch.rand(len(p_RBW), draws, generator=generator, dtype=torch.float64).to(
        mass_RB.device
    )  # (0, 1]
    return _locate(p_RBW, mass_RB, uniform_RK * mass_RB[:, -1:]).ids_M.view(-1, draws)


def _padded(found: list[_Entries], count: int, device: torch.device) -> Sparse:
    """Rows side by side, padded with id 0 and weight 0."""
    if not found:
        return Sparse(torch.zeros(count, 0, dtype=torch.int64), torch.zeros(count, 0))
    rows_M, ids_M, weights_M = (torch.cat(column) for column in zip(*found, strict=True))
    order_M = rows_M.argsort(stable=True)
    rows_M = rows_M[order_M]
    held_N = torch.bincount(rows_M, minlength=count)
    at_M = torch.arange(len(rows_M), device=device) - (held_N.cumsum(0) - held_N)[rows_M]
    ids_NK = torch.zeros(count, int(held_N.max()), dtype=torch.int64, device=device)
    weights_NK = torch.zeros(ids_NK.shape, device=device)
    ids_NK[rows_M, at_M] = ids_M[order_M]
    weights_NK[rows_M, at_M] = weights_M[order_M].float()
    return Sparse(ids_NK, weights_NK)
