"""How good a student is on conversations that are not trained on: the objective itself, the text, and what it writes.

Shape legend: T tokens, N loss positions, V vocabulary, D hidden.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch

from tutelage.losses.base import at_least_float32
from tutelage.losses.chunked import chunk_rows, settled
from tutelage.models.causal import Causal
from tutelage.train.batch import split
from tutelage.train.examples import Example
from tutelage.train.health import cut_share, mean_length
from tutelage.train.loop import Seen, micro
from tutelage.train.offpolicy import passage_of
from tutelage.train.rollout import Roller
from tutelage.train.teaching import Teaching
from tutelage.train.watch import compared

PASS_TOKENS = 2048
LOOKED_AT = 512  # positions whose distributions are compared token by token


class HeldOutJudge:
    """The mean of the method's objective at the positions of the answers; figures are per position, whatever the batches.

    Of a student that learns from its own text the same is judged, on the data's text: it cannot be made better by writing less.
    `roller` writes an answer to the first `answers` of the questions, so that length and stopping are seen; the seeds are
    the same each time.
    """

    def __init__(
        self, examples: Sequence[Example], teaching: Teaching, *, roller: Roller | None = None, answers: int = 0,
        max_new_tokens: int = 256,
    ) -> None:  # fmt: skip
        self.examples, self._teaching = tuple(examples), teaching
        self._roller, self._answers, self._new = roller, answers, max_new_tokens

    @torch.no_grad()
    def __call__(self, student: Causal, autocast: torch.autocast) -> Seen:
        sums, counts = defaultdict[str, float](float), defaultdict[str, int](int)
        objective = 0.0
        tokens = {at: len(example.ids) for at, example in enumerate(self.examples)}
        for rows in split(range(len(self.examples)), tokens, PASS_TOKENS):
            objective += self._one([self.examples[row] for row in rows], student, autocast, sums, counts)
        means = {name: sums[name] / count for name, count in counts.items()}
        score = objective / counts["text_nats"]
        means |= self._written(student) if self._roller is not None and self._answers else {}
        facts = {"objective_unats": micro(score), "text_unats": micro(means["text_nats"])}
        return Seen(score, facts, {"validation_nats": score} | {f"validation_{key}": v for key, v in means.items()})

    def _one(
        self, examples: Sequence[Example], student: Causal, autocast: torch.autocast, sums: dict[str, float],
        counts: dict[str, int],
    ) -> float:  # fmt: skip
        """Adds what is seen on some examples; returns the objective summed over their positions."""
        passage = passage_of(examples, student.device)
        parts, objective = self._teaching.parts(passage), 0.0
        with autocast:
            hidden_ND = student.hidden(passage.ids_T, passage.lengths)[passage.positions_N]
        head = student.head()
        step = chunk_rows(head.weight_VD.shape[0], hidden_ND.device.type)
        with autocast:
            parts = settled(hidden_ND, head, parts, step)
        for start in range(0, len(hidden_ND), step):
            at = slice(start, start + step)
            with autocast:
                product_NV = head.logits(hidden_ND[at])
            logits_NV = at_least_float32(product_NV)
            for part in parts:
                objective += part.weight * part.loss(logits_NV, part.signal.rows(at)).sum().item()
            logq_NV = logits_NV.log_softmax(-1)
            found = {"text_nats": -logq_NV.gather(1, passage.target_ids_N[at, None])[:, 0]}
            if counts["entropy_nats"] < LOOKED_AT:
                found["entropy_nats"] = -(logq_NV.exp() * logq_NV).sum(-1)
                found |= compared(logq_NV, parts[0].signal.rows(at))
            for name, values_N in found.items():
                sums[name] += values_N.sum().item()
                counts[name] += len(values_N)
        return objective

    def _written(self, student: Causal) -> dict[str, float]:
        """Mean length of the answers and how many of them end."""
        assert self._roller is not None
        prompts = [example.ids[: example.targets[0]] for example in self.examples[: self._answers]]
        room = min(self._new, *(student.limit - len(prompt) for prompt in prompts))
        if room < 1:
            return {}
        self._roller.refresh(student.model)
        found = self._roller.write(prompts, room, 1.0, range(len(prompts)))
        return {"length_tokens": mean_length(found), "stop_rate": 1 - cut_share(found)}
