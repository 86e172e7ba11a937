"""Drawing a token, and counting repeated runs, in plain Python."""

import math
from collections.abc import Sequence


def draw(logits: Sequence[float], temperature: float, uniform: float) -> int:
    """The first token at which the distribution function exceeds `uniform`; temperature 0: the first of the largest."""
    if temperature == 0:
        return max(range(len(logits)), key=lambda token: (logits[token], -token))
    top = max(logits)
    weights = [math.exp((value - top) / temperature) for value in logits]
    total, below = math.fsum(weights), 0.0
    for token, weight in enumerate(weights):
        below += weight
        if below / total > uniform:
            return token
    return max(range(len(logits)), key=logits.__getitem__)


def logp(logits: Sequence[float], token: int) -> float:
    """Natural log of a token's probability at temperature 1."""
    top = max(logits)
    return logits[token] - top - math.log(math.fsum(math.exp(value - top) for value in logits))


def repeated_share(ids: Sequence[int], gram_tokens: int) -> float:
    """How many runs of `gram_tokens` tokens stood before, of all there are; 0 for fewer than two."""
    runs = [list(ids[at : at + gram_tokens]) for at in range(max(0, len(ids) - gram_tokens + 1))]
    return sum(run in runs[:at] for at, run in enumerate(runs)) / len(runs) if len(runs) > 1 else 0.0
