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


def adaptive_kl_naive(logits: Row, p: Row, head: float) -> float:
    q = softmax_naive(logits)
    order = sorted(range(len(p)), key=lambda at: -p[at])
    chosen: list[int] = []
    while math.fsum(p[at] for at in chosen) < head:
        chosen.append(order[len(chosen)])
    gap = [abs(a - b) for a, b in zip(p, q, strict=True)]
    share = math.fsum(gap[at] for at in chosen) / math.fsum(gap) if any(gap) else 0.5
    return share * kl_naive(p, q) + (1 - share) * kl_naive(q, p)


def entropy_aware_kl_naive(logits: Row, p: Row, threshold: float) -> float:
    q = softmax_naive(logits)
    entropy = -math.fsum(a * math.log(a) for a in p if a > 0)
    return kl_naive(q, p) + (kl_naive(p, q) if entropy > threshold else 0.0)


def taid_target_naive(logits: Row, p: Row, t: float) -> list[float]:
    q = softmax_naive(logits)
    mixed = [b ** (1 - t) * a**t for a, b in zip(p, q, strict=True)]
    return [value / math.fsum(mixed) for value in mixed]


def taid_naive(logits: Row, p: Row, t: float) -> float:
    return kl_naive(taid_target_naive(logits, p, t), softmax_naive(logits))


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


def alpha_naive(gap: float, mean_gap: float, alpha: float) -> float:
    return min(alpha, max(min(0.01, alpha), 1 - (1 - alpha) * mean_gap / (gap + 1e-5)))


def contrast_naive(
    logits: Row, p: Row, own: bool, share: float, gap: float, mean_gap: float, progress: float, alpha: float, beta: float
) -> float:  # fmt: skip
    q, skew = softmax_naive(logits), alpha_naive(gap, mean_gap, alpha)
    weight = 1 + (beta - 1) * min(1.0, 2 * progress)
    if own:
        return share * weight * kl_naive(q, mixture_naive(q, p, skew))
    return share * (2 - weight) * kl_naive(p, mixture_naive(p, q, skew))


def contrast_gradient_naive(logits: Row, p: Row, own: bool, skew: float) -> list[float]:
    """Of one text's divergence, the student held fixed inside the mixture of its own text."""
    q = softmax_naive(logits)
    if own:
        ratio = [math.log(b / m) for b, m in zip(q, mixture_naive(q, p, skew), strict=True)]
        mean = math.fsum(b * r for b, r in zip(q, ratio, strict=True))
        return [b * (r - mean) for b, r in zip(q, ratio, strict=True)]
    pull = [a * (1 - skew) * b / m for a, b, m in zip(p, q, mixture_naive(p, q, skew), strict=True)]
    return [b * math.fsum(pull) - one for b, one in zip(q, pull, strict=True)]


def alm_naive(logq: Sequence[float], unit: Sequence[int], logp: Sequence[float], tau: float) -> list[float]:
    """At the last position of each chunk the binary cross-entropy of its two likelihoods to the power 1/τ; 0 elsewhere."""
    found = [0.0] * len(logq)
    for chunk in set(unit) - {-1}:
        places = [at for at, one in enumerate(unit) if one == chunk]
        a, b = (math.exp(math.fsum(row[at] for at in places) / tau - 1e-6) for row in (logp, logq))
        found[places[-1]] = -a * math.log(b) - (1 - a) * math.log(1 - b)
    return found


def gold_naive(logits: Row, alike: Sequence[tuple[int, float]], rest: Row, share: float, beta: float) -> float:
    """`alike`: the student's id of each token that both have, and the teacher's probability of it."""
    q = softmax_naive(logits)
    nats = 0.0
    for token, p in alike:
        m = beta * p + (1 - beta) * q[token]
        nats += beta * p * math.log(p / m) + (1 - beta) * q[token] * math.log(q[token] / m)
    others = sorted((value for token, value in enumerate(q) if token not in dict(alike)), reverse=True)
    longer = max(len(others), len(rest))
    both = (list(row) + [0.0] * (longer - len(row)) for row in (others, sorted(rest, reverse=True)))
    return share * nats + (1 - share) * math.fsum(abs(a - b) for a, b in zip(*both, strict=True))


def uld_naive(logits: Row, p: Row) -> float:
    q = sorted(softmax_naive(logits), reverse=True)
    longer = max(len(q), len(p))
    both = (list(row) + [0.0] * (longer - len(row)) for row in (q, sorted(p, reverse=True)))
    return math.fsum(abs(a - b) for a, b in zip(*both, strict=True))
