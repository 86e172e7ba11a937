"""Slow twins of the losses, one position at a time, in Python floats."""

import math


def forward_kl_top_k_naive(logits: list[float], logp: dict[int, float], tail: float) -> float:
    """KL over {each revealed id, everything else}."""
    total = math.fsum(math.exp(value) for value in logits)
    q = [math.exp(value) / total for value in logits]
    loss = math.fsum(math.exp(value) * (value - math.log(q[at])) for at, value in logp.items())
    if tail > -math.inf:
        rest = math.fsum(value for at, value in enumerate(q) if at not in logp)
        loss += math.exp(tail) * (tail - math.log(rest))
    return loss


def cross_entropy_naive(logits: list[float], target: int) -> float:
    total = math.fsum(math.exp(value) for value in logits)
    return -math.log(math.exp(logits[target]) / total)
