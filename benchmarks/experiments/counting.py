"""Counting in steps: the next number is as far from the last as that from the one before, round a circle. A slip breaks the step;
the teacher then begins again with steps of one, which its own text, nearly without slips, does not show.

So a student that slips more often than the teacher does not know how to go on, and slips again. Shape legend: B texts, T tokens,
N positions, V vocabulary.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmarks.experiments.oracle import BEGIN, Oracle, own_text
from tutelage.models.causal import Causal
from tutelage.train.examples import Example

NUMBERS = 32  # tokens 1 … 32
STEPS = (1, 3, 7, 12)
SLIP = 0.0005
REACH = 4  # a slip this much farther off is 1/e as likely

Prompts = Sequence[tuple[int, ...]]


class Rightness(NamedTuple):
    """Share of right tokens in the first so many of each answer, and its standard error over answers."""

    share: float
    error: float


def right_after(before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
    """The number that should follow two."""
    step_N = (last_N - before_N) % NUMBERS
    step_N = torch.where(torch.isin(step_N, torch.tensor(STEPS)), step_N, 1)
    return (last_N - 1 + step_N) % NUMBERS + 1


def _logits(before_N: torch.Tensor, last_N: torch.Tensor) -> torch.Tensor:
    away_NV = (torch.arange(NUMBERS + 1) - right_after(before_N, last_N)[:, None]) % NUMBERS
    near_NV = torch.exp(-torch.minimum(away_NV, NUMBERS - away_NV) / REACH) * (away_NV > 0)
    p_NV = torch.where(away_NV == 0, 1 - SLIP, SLIP * near_NV / near_NV[:, 1:].sum(-1, keepdim=True))
    p_NV[:, BEGIN] = 1e-9
    return p_NV.log()


def counting() -> Oracle:
    """Expects the right number with 1 − `SLIP`, and of the others the nearer ones rather."""
    return Oracle(NUMBERS + 1, _logits)


def all_prompts(seed: int) -> list[tuple[int, ...]]:
    """Every two numbers to go on from, in seeded order."""
    found = [(BEGIN, first, (first - 1 + step) % NUMBERS + 1) for first in range(1, NUMBERS + 1) for step in STEPS]
    random.Random(seed).shuffle(found)
    return found


def answered(oracle: Oracle, prompts: Prompts, number: int, count: int, seed: int) -> list[Example]:
    """`number` texts by the teacher, the prompts taken in turn."""
    taken = [prompts[at % len(prompts)] for at in range(number)]
    return oracle.write(taken, count, torch.Generator().manual_seed(seed))


def rightness(student: Causal, prompts: Prompts, lengths: Sequence[int], seed: int) -> list[Rightness]:
    """How often the student's own answers go on rightly from their own two numbers before, up to each length."""
    ids_BT = torch.tensor([example.ids for example in own_text(student, prompts, max(lengths), seed)])
    before_BT, last_BT, next_BT = ids_BT[:, 1:-2], ids_BT[:, 2:-1], ids_BT[:, 3:]
    right_BT = (next_BT == right_after(before_BT, last_BT)).float()
    shares = [right_BT[:, :length].mean(1) for length in lengths]
    return [Rightness(float(share_B.mean()), float(share_B.std()) / len(share_B) ** 0.5) for share_B in shares]
