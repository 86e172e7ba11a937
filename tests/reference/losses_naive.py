"""Slow twins of the losses, one position at a time, in Python floats."""

import math
from collections.abc import Sequence

Row = Sequence[float]


def softmax_naive(logits: Row) -> list[float]:
    total = math.fsum(math.exp(value) for value in logits)
    return [math.exp(value) / total for value in logits]


def kl_naive(p: Row, q: Row) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mixture_naive(p: Row, q: Row, share: float) -> list[float]:
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def forward_kl_naive(logits: Row, p: Row) -> float:
    return kl_naive(p, softmax_naive(logits))


def reverse_kl_naive(logits: Row, p: Row) -> float:
    return kl_naive(softmax_naive(logits), p)


def jsd_naive(logits: Row, p: Row, beta: float) -> float:
    q = softmax_naive(logits)
    m = mixture_naive(p, q, beta)
    return beta * kl_naive(p, m) + (1 - beta) * kl_naive(q, m)


def skew_kl_naive(logits: Row, p: Row, alpha: float) -> float:
    return kl_naive(p, mixture_naive(p, softmax_naive(logits), alpha))


def skew_reverse_kl_naive(logits: Row, p: Row, alpha: float) -> float:
    q = softmax_naive(logits)
    return kl_naive(q, mixture_naive(q, p, alpha))


def total_variation_naive(logits: Row, p: Row) -> float:
    return math.fsum(abs(a - b) for a, b in zip(p, softmax_naive(logits), strict=True)) / 2


def buckets_naive(logits: Row, logp: dict[int, float], tail: float) -> tuple[list[float], list[float]]:
    """Teacher and student over {each revealed id, everything else}."""
    q = softmax_naive(logits)
    rest = math.fsum(value for at, value in enumerate(q) if at not in logp)
    teacher = [*(math.exp(value) for value in logp.values()), math.exp(tail) if tail > -math.inf else 0.0]
    return teacher, [*(q[at] for at in logp), rest]


def forward_kl_top_k_naive(logits: Row, logp: dict[int, float], tail: float) -> float:
    return kl_naive(*buckets_naive(logits, logp, tail))


def reverse_kl_top_k_naive(logits: Row, logp: dict[int, float], tail: float, least_tail: float) -> float:
    p, q = buckets_naive(logits, logp, tail)
    return kl_naive(q, [*p[:-1], max(p[-1], least_tail)])


def sparse_forward_kl_naive(logits: Row, weights: Sequence[tuple[int, float]]) -> float:
    total = math.fsum(math.exp(value) for value in logits)
    return math.log(total) - math.fsum(weight * logits[at] for at, weight in weights)


def cross_entropy_naive(logits: Row, target: int) -> float:
    return -math.log(softmax_naive(logits)[target])


def sampled_reverse_kl_naive(
    logits: Row, target: int, logp: float, drawn: float, ratio_low: float, ratio_high: float
) -> float:
    q = softmax_naive(logits)[target]
    ratio = q / math.exp(drawn)
    return ratio * (math.log(q) - logp) if ratio_low <= ratio <= ratio_high else 0.0


def sampled_gradient_naive(
    logits: Row, target: int, logp: float, drawn: float, baseline: float, ratio_low: float, ratio_high: float
) -> list[float]:
    """−w A ∇ log q(y), written out for each logit."""
    q = softmax_naive(logits)
    ratio = q[target] / math.exp(drawn)
    weight = ratio if ratio_low <= ratio <= ratio_high else 0.0
    advantage = logp - math.log(q[target]) - baseline
    return [-weight * advantage * ((at == target) - value) for at, value in enumerate(q)]


def dpo_naive(
    logq: Sequence[float], unit: Sequence[int], side: Sequence[float], reference: Sequence[float], beta: float
) -> list[float]:
    """At the last position of each pair −log σ of β times its margin; 0 elsewhere."""
    found = [0.0] * len(logq)
    for pair in set(unit) - {-1}:
        places = [at for at, one in enumerate(unit) if one == pair]
        margin = sum(side[at] * (logq[at] - reference[at]) for at in places)
        found[places[-1]] = math.log(1 + math.exp(-beta * margin))
    return found
