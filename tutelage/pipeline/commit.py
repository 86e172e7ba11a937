"""Salted commitments to stored exchanges, and the table of sources that training consumed."""

from collections.abc import Iterable, Sequence
from typing import Any

from tutelage.canon import canonical
from tutelage.ledger.merkle import commitment
from tutelage.pipeline.run import Run


def commit_exchanges(run: Run, addresses: Sequence[str]) -> str:
    """Root over the salted leaves of the exchanges at these addresses, in order."""
    return commitment(run.key, (canonical(run.store.get(address).to_json()) for address in addresses))


def source_table(consumed: Iterable[dict[str, Any]], models: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Loss tokens and examples by (teacher, weights, licence, role), sorted, from the steps that were taken.

    `consumed`: one row a step with `exchanges`, and loss tokens by role for each of them; `models`: the model of each
    exchange. Every unit is an integer; examples are counted once however many epochs they were seen.
    """
    tokens: dict[tuple[str, str, str, str], int] = {}
    examples: dict[tuple[str, str, str, str], set[str]] = {}
    for step in consumed:
        for exchange, by_role in zip(step["exchanges"], step["loss_tokens"], strict=True):
            model = models[exchange]
            for role, count in by_role.items():
                if count:
                    key = (model["model_asked"], model["weights_digest"], model["licence"], role)
                    tokens[key] = tokens.get(key, 0) + count
                    examples.setdefault(key, set()).add(exchange)
    return [
        {
            "teacher": key[0],
            "weights": key[1],
            "licence": key[2],
            "role": key[3],
            "examples": len(examples[key]),
            "loss_tokens": tokens[key],
        }
        for key in sorted(tokens)
    ]
