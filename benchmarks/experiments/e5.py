"""E5: forward KL covers, reverse KL seeks, and with enough capacity both end at the teacher, by different ways: forward KL
fits the teacher's likely tokens first, reverse KL the unlikely ones.

Gu et al. 2023 (arXiv 2306.08543, fig. 2): a Gaussian fitted to a mixture. Wu et al. 2024 (arXiv 2404.02657, §3): the head of the
distribution is the smallest set with half of the teacher's mass, and a side's gap Σ|p − q|. Shape legend: N rows, V tokens.
"""

import math
from typing import Any, NamedTuple

import torch

from benchmarks.experiments.oracle import Criterion, Setting
from tutelage.losses.catalogue import make
from tutelage.signals import Dense

BINS = 101
MODES = (-2.0, 2.0)
SHARES = (0.4, 0.6)
WIDTH = 0.5
STARTS = 8
KINDS = ("forward-kl", "reverse-kl")


class Size(NamedTuple):
    """Rows and tokens of the second part, and its longest training."""

    rows: int
    vocabulary: int
    steps: int


SETTING = Setting(Size(16, 64, 5000), Size(64, 512, 100_000))


def run(seed: int, size: str) -> dict[str, Any]:
    return {"mixture": mixture(seed), "capacity": capacity(seed, SETTING.of(size))}


def mixture(seed: int) -> dict[str, dict[str, float]]:
    """A single Gaussian, two numbers, against two unequal modes: where its mass goes at the best optimum of several starts."""
    x_V = torch.linspace(-4, 4, BINS, dtype=torch.float64)
    bumps = [-((x_V - mode) ** 2) / (2 * WIDTH**2) + math.log(share) for mode, share in zip(MODES, SHARES, strict=True)]
    teacher = Dense(torch.logaddexp(*bumps).log_softmax(-1)[None])
    between_V = x_V.abs() < MODES[1] - 2 * WIDTH
    found = {"teacher": {"between": float(teacher.logp_NV[0].exp()[between_V].sum())}}
    for kind in KINDS:
        logits_NV = fitted(seed, x_V, teacher, kind)
        q_V = logits_NV.softmax(-1)[0]
        sides = [float(q_V[side].sum()) for side in (x_V < 0, x_V > 0)]
        both = {f"{other}_nats": float(make(other)(logits_NV, teacher)) for other in KINDS}
        found[kind] = {"between": float(q_V[between_V].sum()), "lesser_side": min(sides), **both}
    return found


def fitted(seed: int, x_V: torch.Tensor, teacher: Dense, kind: str) -> torch.Tensor:
    """Logits [1, V] of the Gaussian that `kind` likes best; `STARTS` of them are fitted at once."""
    draw = torch.Generator().manual_seed(seed)
    mean_S1 = (2 * torch.randn(STARTS, 1, generator=draw, dtype=torch.float64)).requires_grad_()
    log_width_S1 = torch.zeros(STARTS, 1, dtype=torch.float64, requires_grad=True)
    teachers = Dense(teacher.logp_NV.expand(STARTS, -1))
    optimizer = torch.optim.Adam([mean_S1, log_width_S1], lr=0.02)
    for _ in range(1000):
        optimizer.zero_grad()
        nats_S = make(kind)(gaussian(x_V, mean_S1, log_width_S1), teachers)
        nats_S.sum().backward()
        optimizer.step()
    return gaussian(x_V, mean_S1, log_width_S1).detach()[nats_S.argmin()][None]


def gaussian(x_V: torch.Tensor, mean_S1: torch.Tensor, log_width_S1: torch.Tensor) -> torch.Tensor:
    return -((x_V - mean_S1) ** 2) / (2 * torch.exp(2 * log_width_S1))


def capacity(seed: int, size: Size) -> dict[str, dict[str, float]]:
    """Free logits, one a token, by gradient descent from random ones and from flat ones."""
    draw = torch.Generator().manual_seed(seed)
    ranks_V = torch.log(torch.arange(1, size.vocabulary + 1, dtype=torch.float64))
    order_NV = torch.rand(size.rows, size.vocabulary, generator=draw).argsort(-1)
    slope_N1 = 0.8 + torch.rand(size.rows, 1, generator=draw, dtype=torch.float64)
    teacher = Dense((-slope_N1 * ranks_V).log_softmax(-1).gather(-1, order_NV))
    random_NV = torch.randn(size.rows, size.vocabulary, generator=draw, dtype=torch.float64)
    found = {kind: descent(random_NV, teacher, kind, size.steps) for kind in KINDS}
    for kind in KINDS:
        flat = descent(torch.zeros_like(random_NV), teacher, kind, 500)
        found[kind] |= {f"flat_{name}": value for name, value in flat.items() if name.startswith("steps")}
    return found


def descent(start_NV: torch.Tensor, teacher: Dense, kind: str, steps: int) -> dict[str, float]:
    """How many steps until a quarter and half of the gap on the head and on the tail are gone, and the divergences at the end."""
    logits_NV, p_NV, loss = start_NV.clone(), teacher.logp_NV.exp(), make(kind)
    best = p_NV.sort(-1, descending=True)
    head_NV = torch.zeros_like(p_NV).scatter(-1, best.indices, (best.values.cumsum(-1) - best.values < 0.5).double())
    sides = {"head": head_NV, "tail": 1 - head_NV}
    found: dict[str, float] = {}
    first: dict[str, float] = {}
    for step in range(steps):
        if len(found) < 4:
            gap_NV = (p_NV - logits_NV.softmax(-1)).abs()
            for side, mask_NV in sides.items():
                gap = float((gap_NV * mask_NV).sum())
                for gone, name in ((0.25, "quarter"), (0.5, "half")):
                    if gap < (1 - gone) * first.setdefault(side, gap):
                        found.setdefault(f"steps_to_{name}_of_{side}", step)
        assert loss.gradient is not None
        logits_NV -= 0.5 * loss.gradient(logits_NV.clone(), teacher).gradient_NV
    ends = {f"end_{other}_nats": float(make(other)(logits_NV, teacher).mean()) for other in KINDS}
    return found | ends


def judge(found: dict[str, Any]) -> list[Criterion]:
    mixed, capable = found["mixture"], found["capacity"]
    covers, seeks = (mixed[kind] for kind in KINDS)
    valley = mixed["teacher"]["between"]
    ends = [capable[kind][f"end_{other}_nats"] for kind in KINDS for other in KINDS]
    first = {kind: [capable[kind][f"steps_to_half_of_{side}"] for side in ("head", "tail")] for kind in KINDS}
    return [
        Criterion(
            "forward KL puts mass between the modes, reverse KL on one of them",
            covers["between"] > 3 * valley and covers["lesser_side"] > 0.3 and seeks["between"] < 2 * valley
            and seeks["lesser_side"] < 0.01,
            f"between {covers['between']:.3f} and {seeks['between']:.3f}, teacher {valley:.3f}; on the lesser side "
            f"{covers['lesser_side']:.3f} and {seeks['lesser_side']:.2g}",
        ),
        Criterion(
            "with enough capacity both end at the teacher",
            max(ends) < 1e-3,
            f"largest divergence of either kind at the end {max(ends):.2g} nats",
        ),
        Criterion(
            "forward KL fits the head first, reverse KL the tail",
            first["forward-kl"][0] < first["forward-kl"][1] and first["reverse-kl"][1] < first["reverse-kl"][0],
            f"steps until half of the gap on head and tail is gone: {first['forward-kl']} and {first['reverse-kl']}",
        ),
    ]  # fmt: skip
