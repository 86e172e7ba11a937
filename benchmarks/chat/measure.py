"""How near a student is to its teacher, question by question.

Shape legend: N positions, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.chat.prompts import Asked
from tutelage.models.causal import Causal
from tutelage.prove.tasks.base import Answer
from tutelage.prove.tasks.overlap import RougeL, RougeOptions
from tutelage.stats.calibration import expected_calibration_error
from tutelage.train.examples import Example
from tutelage.train.offpolicy import passage_of
from tutelage.train.onpolicy import written
from tutelage.train.rollout_local import LocalRoller


class Divergences(NamedTuple):
    """Of one text: both divergences summed over its positions, in nats, how many they are, and of each the student's
    confidence in its likeliest token and whether that stands there."""

    forward_nats: float
    reverse_nats: float
    positions: int
    confidence: list[float]
    right: list[bool]


@torch.no_grad()
def divergences(teacher: Causal, student: Causal, example: Example) -> Divergences:
    passage = passage_of([example])
    at_N, ids_N = passage.positions_N, passage.target_ids_N
    logp_NV, logq_NV = (
        model.head().logits(model.hidden(passage.ids_T, passage.lengths)[at_N]).float().log_softmax(-1)
        for model in (teacher, student)
    )
    gap_NV = logp_NV - logq_NV
    best = logq_NV.max(-1)
    return Divergences(
        float((logp_NV.exp() * gap_NV).sum()), -float((logq_NV.exp() * gap_NV).sum()), len(at_N),
        best.values.exp().tolist(), (best.indices == ids_N).tolist(),
    )  # fmt: skip


def measure(
    teacher: Causal,
    student: Causal,
    tokenizer: Any,
    drawn: Sequence[Asked],
    likeliest: Sequence[Asked],
    new_tokens: int,
) -> dict[str, list[float]]:
    """One number a question under each name: `forward_kl` to the teacher on the text that it drew, `reverse_kl` on what the
    student draws, nats a token; `rouge_l` between both's likeliest answers; `stopped` and `length_tokens` of what the student
    draws. `ece` has one number in all: of its likeliest token on the teacher's text, 10 bins."""
    student.model.eval()
    roller, prompts = LocalRoller(student.model), [one.prompt_ids for one in drawn]
    own = roller.write(prompts, new_tokens, 1.0, range(len(prompts)))
    greedy = roller.write(prompts, new_tokens, 0.0, range(len(prompts)))
    forward = [divergences(teacher, student, one.example("")) for one in drawn]
    reverse = [divergences(teacher, student, written(one, "")) for one in own]
    rouge = RougeL(RougeOptions())
    return {
        "forward_kl": [one.forward_nats / one.positions for one in forward],
        "reverse_kl": [one.reverse_nats / one.positions for one in reverse],
        "rouge_l": [
            rouge.score(Answer(_text(tokenizer, mine.ids)), _text(tokenizer, theirs.answer_ids)).value
            for mine, theirs in zip(greedy, likeliest, strict=True)
        ],
        "stopped": [float(one.finished) for one in own],
        "length_tokens": [float(len(one.ids)) for one in own],
        "ece": [
            expected_calibration_error(
                [value for one in forward for value in one.confidence],
                [value for one in forward for value in one.right],
            )
        ],
    }


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)
