"""Random positions for each type of signal, and every loss of the catalogue beside its naive twin.

Shape legend: N positions, K kept ids, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tests.reference import losses_naive as naive
from tutelage.losses.alm import Chunks
from tutelage.losses.catalogue import make
from tutelage.losses.preference import Pairs
from tutelage.losses.ranked import Matched, Overlap, Ranked
from tutelage.losses.topk import LEAST_TAIL
from tutelage.signals import NO_TAIL, Dense, Scored, Signal, Sparse, Text, TopK

VOCABULARY = 11


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_logits(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=seeded(seed), dtype=torch.float64)


def draw_dense(seed: int, rows: int = 4, vocabulary: int = VOCABULARY, zeros: int = 0) -> Dense:
    """The first `zeros` ids have no probability."""
    logits = 2 * torch.randn(rows, vocabulary, generator=seeded(seed + 1), dtype=torch.float64)
    logits[:, :zeros] = -math.inf
    return Dense(logits.log_softmax(-1))


def draw_top_k(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> TopK:
    """Ragged rows, padded with id 0; a row may reveal nothing, and the second one reveals all."""
    generator = seeded(seed + 2)
    dense = draw_dense(seed, rows, vocabulary).logp_NV
    ids = torch.zeros(rows, vocabulary, dtype=torch.long)
    logp = torch.full((rows, vocabulary), -math.inf, dtype=torch.float64)
    tail = torch.full((rows,), NO_TAIL, dtype=torch.float64)
    for at in range(rows):
        kept = vocabulary if at == 1 else int(torch.randint(0, 6, (1,), generator=generator))
        order = torch.randperm(vocabulary, generator=generator)
        ids[at, :kept] = order[:kept]
        logp[at, :kept] = dense[at, order[:kept]]
        if kept < vocabulary:
            tail[at] = dense[at, order[kept:]].logsumexp(0)
    return TopK(ids, logp, tail)


def draw_sparse(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> Sparse:
    """Totals differ from 1, an id comes twice, one slot is padded."""
    generator = seeded(seed + 3)
    ids = torch.randint(0, vocabulary, (rows, 5), generator=generator)
    weights = torch.rand(rows, 5, generator=generator, dtype=torch.float64) / 2
    ids[:, 1], ids[:, 4], weights[:, 4] = ids[:, 0], 0, 0.0
    return Sparse(ids, weights)


def draw_text(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> Text:
    return Text(torch.randint(0, vocabulary, (rows,), generator=seeded(seed + 4)))


def draw_scored(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> Scored:
    """Drawn by a student a little apart: one of the ratios is likely outside [0.5, 2]."""
    ids = draw_text(seed, rows, vocabulary).ids_N[:, None]
    apart = torch.randn(rows, generator=seeded(seed + 5), dtype=torch.float64) / 2
    drawn = draw_logits(seed, rows, vocabulary).log_softmax(-1).gather(-1, ids).squeeze(-1) + apart
    return Scored(ids.squeeze(-1), draw_dense(seed, rows, vocabulary).logp_NV.gather(-1, ids).squeeze(-1), drawn)


def draw_pairs(seed: int, rows: int = 9, vocabulary: int = VOCABULARY) -> Pairs:
    """Two pairs whose answers alternate, and one position of none."""
    unit = torch.tensor([0, 1, 0, -1, 1, 0, 1, 0, 1][:rows])
    side = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0][:rows], dtype=torch.float64)
    ids = draw_text(seed, rows, vocabulary).ids_N
    reference = draw_dense(seed, rows, vocabulary).logp_NV.gather(-1, ids[:, None]).squeeze(-1)
    return Pairs(ids, unit, side, reference)


def draw_chunks(seed: int, rows: int = 9, vocabulary: int = VOCABULARY) -> Chunks:
    """Chunks of one, two and three tokens, two of them of other texts between, and a position of none."""
    unit = torch.tensor([0, 1, 1, -1, 2, 3, 3, 3, 4][:rows])
    logp = -2.0 * torch.rand(rows, generator=seeded(seed + 3), dtype=torch.float64)
    return Chunks(draw_text(seed, rows, vocabulary).ids_N, unit, logp)


def draw_ranked(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> Ranked:
    """A teacher of three tokens more, silent at one position."""
    p = draw_dense(seed, rows, vocabulary + 3).logp_NV.exp().sort(-1, descending=True).values
    return Ranked(p, torch.arange(rows) != 1)


def draw_matched(seed: int, rows: int = 4, vocabulary: int = VOCABULARY) -> Matched:
    """A teacher of three tokens more, of which four are the student's too; silent at one position."""
    p = draw_dense(seed, rows, vocabulary + 3).logp_NV.exp()
    rest = p[:, 4:].sort(-1, descending=True).values
    overlap = Overlap(torch.tensor([5, 0, 2, 3]), 4 / (vocabulary + 3))
    return Matched(p[:, :4], rest, torch.arange(rows) != 1, overlap)


def revealed(signal: TopK, at: int) -> tuple[dict[int, float], float]:
    pairs = zip(signal.ids_NK[at].tolist(), signal.logp_NK[at].tolist(), strict=True)
    return {token: value for token, value in pairs if value > -math.inf}, float(signal.tail_N[at])


def _probabilities(signal: Dense, at: int) -> list[float]:
    return signal.logp_NV[at].exp().tolist()


def _weights(signal: Sparse, at: int) -> list[tuple[int, float]]:
    return list(zip(signal.ids_NK[at].tolist(), signal.weights_NK[at].tolist(), strict=True))


def _scores(signal: Scored, at: int) -> tuple[int, float, float]:
    return int(signal.ids_N[at]), float(signal.logp_N[at]), float(signal.drawn_logp_N[at])


class Case(NamedTuple):
    """A loss of the catalogue, how to draw its signal, and the twin: (logits of a row, signal, row) → nats."""

    name: str
    parameters: dict[str, float]
    draw: Callable[[int], Signal]
    twin: Callable[[list[float], Any, int], float]

    def loss(self) -> Any:
        return make(self.name, **self.parameters)

    def __str__(self) -> str:
        return self.loss().name


CASES = [
    Case("forward-kl", {}, draw_dense, lambda z, s, n: naive.forward_kl_naive(z, _probabilities(s, n))),
    Case("reverse-kl", {}, draw_dense, lambda z, s, n: naive.reverse_kl_naive(z, _probabilities(s, n))),
    *(
        Case("jsd", {"beta": b}, draw_dense, lambda z, s, n, b=b: naive.jsd_naive(z, _probabilities(s, n), b))
        for b in (0.1, 0.5, 0.9)
    ),
    Case("skew-kl", {"alpha": 0.1}, draw_dense, lambda z, s, n: naive.skew_kl_naive(z, _probabilities(s, n), 0.1)),
    Case(
        "skew-reverse-kl", {"alpha": 0.3}, draw_dense,
        lambda z, s, n: naive.skew_reverse_kl_naive(z, _probabilities(s, n), 0.3),
    ),
    Case("distillm-2", {}, draw_dense, lambda z, s, n: naive.skew_kl_naive(z, _probabilities(s, n), 0.1)),
    Case("adaptive-kl", {}, draw_dense, lambda z, s, n: naive.adaptive_kl_naive(z, _probabilities(s, n), 0.5)),
    Case(
        "entropy-aware-kl", {"threshold_nats": 1.0}, draw_dense,
        lambda z, s, n: naive.entropy_aware_kl_naive(z, _probabilities(s, n), 1.0),
    ),
    Case("taid", {"t": 0.4}, draw_dense, lambda z, s, n: naive.taid_naive(z, _probabilities(s, n), 0.4)),
    Case("total-variation", {}, draw_dense, lambda z, s, n: naive.total_variation_naive(z, _probabilities(s, n))),
    Case("top-k-forward-kl", {}, draw_top_k, lambda z, s, n: naive.forward_kl_top_k_naive(z, *revealed(s, n))),
    Case(
        "top-k-reverse-kl", {}, draw_top_k,
        lambda z, s, n: naive.reverse_kl_top_k_naive(z, *revealed(s, n), LEAST_TAIL),
    ),
    Case("sparse-forward-kl", {}, draw_sparse, lambda z, s, n: naive.sparse_forward_kl_naive(z, _weights(s, n))),
    Case("cross-entropy", {}, draw_text, lambda z, s, n: naive.cross_entropy_naive(z, int(s.ids_N[n]))),
    Case(
        "sampled-reverse-kl", {"baseline": 0.3}, draw_scored,
        lambda z, s, n: naive.sampled_reverse_kl_naive(z, *_scores(s, n), 0.5, 2.0),
    ),
    Case(
        "uld", {}, draw_ranked,
        lambda z, s, n: naive.uld_naive(z, s.p_NK[n].tolist()) if s.there_N[n] else 0.0,
    ),
    Case(
        "gold", {"beta": 0.3}, draw_matched,
        lambda z, s, n: naive.gold_naive(
            z, list(zip(s.overlap.ids_M.tolist(), s.p_NM[n].tolist(), strict=True)), s.rest_NK[n].tolist(), s.overlap.share, 0.3
        ) if s.there_N[n] else 0.0,
    ),
]  # fmt: skip


class JointCase(NamedTuple):
    """A loss that ties positions together; its twin gives the values of all positions out of lists of log q(y)."""

    name: str
    parameters: dict[str, float]
    draw: Callable[..., Any]
    twin: Callable[[list[float], Any], list[float]]

    def loss(self) -> Any:
        return make(self.name, **self.parameters)

    def __str__(self) -> str:
        return self.loss().name


JOINT = [
    JointCase(
        "alm", {"tau": 3.0}, draw_chunks, lambda q, s: naive.alm_naive(q, s.unit_N.tolist(), s.logp_N.tolist(), 3.0)
    ),
    JointCase(
        "dpo", {"beta": 0.3}, draw_pairs,
        lambda q, s: naive.dpo_naive(q, s.unit_N.tolist(), s.side_N.tolist(), s.reference_N.tolist(), 0.3),
    ),
]  # fmt: skip
FAST = [case for case in CASES if case.loss().gradient is not None]
DENSE = [case for case in CASES if case.draw is draw_dense]
HELD_FIXED = ("sampled-reverse-kl", "adaptive-kl", "taid")
"""Losses in which something of the student is held fixed: their derivative is not that of their value."""
