"""What is served held against the checkpoint it was made of: do they answer alike, item by item, and how much quality was lost.

Shape legend: N items.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.prove.answers import as_references, scored
from tutelage.prove.controls import share_apart
from tutelage.prove.differences import difference_interval, mean_interval
from tutelage.prove.measure import Proof, Scores, column
from tutelage.records import Exchange

CHECKPOINT = "checkpoint"


def against_checkpoint(proof: Proof, scores: Scores, temperature: float | None = 0.0) -> dict[str, Any] | None:
    """The student against the system `checkpoint`; None where there is none. `answers_differ` counts answers that are not the
    same text (or calls), of `n` items that at least one of them answered, `differ_high` the exact upper limit of their share;
    `agreement` how far the student says what the checkpoint says, as the task reads it; `difference` student minus checkpoint
    against the gold, on the items that the teacher answered. Answers drawn at another `temperature` than 0 differ by chance, so
    that of them the difference alone is told. docs/formats.md has the keys."""
    if CHECKPOINT not in proof.systems:
        return None
    served, trained = (proof.systems[name].answers for name in ("student", CHECKPOINT))
    answered = [(one, other) for one, other in zip(served, trained, strict=True) if not one is other is None]
    n, differ, differ_high = share_apart(np.array([one != other for one, other in answered]), proof.level)
    found: dict[str, Any] = {
        "n": n, "temperature": temperature, "answers_differ": None, "differ_high": None,
        "agreement": None, "agreement_low": None, "agreement_high": None, "agreement_n": 0,
        "difference": None, "difference_low": None, "difference_high": None, "difference_n": 0, "method": "",
    }  # fmt: skip
    greedy = temperature == 0.0
    if greedy:
        found |= {"answers_differ": differ, "differ_high": differ_high}
    references = as_references(proof.task, trained)
    if greedy and (read := np.flatnonzero([one is not None for one in references])).size:
        alike = column(proof, scored(proof.task, served, references).value_N, read)
        between = mean_interval(alike, proof.level, proof.seed)
        found |= {"agreement": float(alike.score_N.mean()), "agreement_n": int(read.size)}
        found |= {"agreement_low": between.low, "agreement_high": between.high}
    if (with_gold := proof.with_gold_G).size:
        mine, theirs = (column(proof, scores.gold[name].value_N, with_gold) for name in ("student", CHECKPOINT))
        apart = difference_interval(mine, theirs, proof.level, proof.seed)
        found |= {"difference": float(mine.score_N.mean() - theirs.score_N.mean()), "difference_n": int(with_gold.size)}
        found |= {"difference_low": apart.low, "difference_high": apart.high, "method": apart.method}
    return found


def read_otherwise(served: Sequence[Exchange | None], trained: Sequence[Exchange | None]) -> int:
    """Items whose prompt has another number of tokens for one than for the other: another tokenizer or template, so that more
    than the weights' form is compared. Items that one of them refused say nothing."""
    return sum(
        one is not None and other is not None and one.usage.prompt_tokens != other.usage.prompt_tokens
        for one, other in zip(served, trained, strict=True)
    )
