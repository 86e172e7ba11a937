"""How long a model's answers are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.records import Exchange

SHARES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def length_row(role: str, exchanges: Sequence[Exchange | None]) -> dict[str, Any]:
    """Quantiles of the answers that there are: characters (code points) of the text, which any two models can be compared by, and
    tokens as each endpoint bills them, reasoning included, in that model's own tokenizer. Both null without an answer."""
    there = [exchange for exchange in exchanges if exchange is not None]
    counted = {
        "characters": [len(exchange.answer) for exchange in there],
        "tokens": [exchange.usage.completion_tokens for exchange in there],
    }
    return {"role": role, "n": len(there)} | {
        name: dict(zip(SHARES, map(float, np.quantile(values, list(SHARES.values()))), strict=True)) if values else None
        for name, values in counted.items()
    }
