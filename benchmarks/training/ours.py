"""Our side: `python -m benchmarks.training.ours live|cached|onpolicy|onpolicy-int8`."""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.training.common import (
    BATCH,
    LEARNING_RATE,
    LIMIT_TOKENS,
    NEW_TOKENS,
    Clock,
    arguments,
    conversations,
    peak_gb,
    said,
    weights,
)
from tutelage.config import TrainTable
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.records import Role
from tutelage.signals import Sparse
from tutelage.train.examples import Example
from tutelage.train.loop import choose_trainable, precision, take
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.step import clear
from tutelage.train.teaching import LiveTeacher, Passage


class Kept:
    """A cache's signals, ready in memory: 8 ids a position, as threshold sampling keeps on average."""

    role = Role.SOFT_TARGET

    def __init__(self) -> None:
        self._loss, self._draw = make("sparse-forward-kl"), torch.Generator().manual_seed(1)

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        size = (len(passage.positions_N), 8)
        ids_NK = torch.randint(0, 49_000, size, generator=self._draw)
        return (Part(self._loss, Sparse(ids_NK, torch.full(size, 1 / 8))),)


class TimedRoller(LocalRoller):
    """Says how long writing took and how many tokens came."""

    seconds, tokens = 0.0, 0

    def write(self, *given: Any) -> Any:
        began = time.perf_counter()
        found = super().write(*given)
        self.seconds += time.perf_counter() - began
        self.tokens += sum(len(rollout.ids) for rollout in found)
        return found


def examples(chosen: Any, folder: Path) -> tuple[Example, ...]:
    """What the rival's collator makes of the same rows: it also learns the line break after the end of turn."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    found = []
    for talk in conversations(chosen.data, 20 * BATCH * chosen.steps):
        prompt, whole = (
            tokenizer.apply_chat_template(turns, add_generation_prompt=asked, return_dict=False)
            for turns, asked in ((talk[:1], True), (talk, False))
        )
        if len(whole) <= LIMIT_TOKENS:
            found.append(Example(tuple(whole), tuple(range(len(prompt), len(whole))), ""))
    return tuple(found[: BATCH * (chosen.steps + 1)])


def main() -> None:
    chosen = arguments()
    with peak_gb() as peak:
        teacher_folder, student_folder = weights(chosen.cache)
        table = TrainTable(epochs=1.0, batch_size=BATCH, learning_rate=LEARNING_RATE, train_embeddings=True)
        student = Causal.load(student_folder)
        economical(student.model)
        choose_trainable(student, table)
        student.model.train()
        some = examples(chosen, student_folder)
        roller = TimedRoller(student.model, precision="int8" if chosen.what == "onpolicy-int8" else "own")
        if chosen.what == "cached":
            source: Any = DataSource(some, Kept(), table, 0)
        else:
            teacher = Causal.load(teacher_folder)
            economical(teacher.model)
            if chosen.what == "live":
                source = DataSource(some, LiveTeacher(teacher, make("forward-kl")), table, 0)
            else:
                teaching = LiveTeacher(teacher, make("reverse-kl"))
                source = RolloutSource(some, student, roller, teaching, table, 0, max_new_tokens=NEW_TOKENS)
        if not chosen.what.startswith("onpolicy"):  # in the order both sides are given
            source.rows = lambda step: tuple(range(BATCH * step, BATCH * (step + 1)))
        optimizer = torch.optim.AdamW(student.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        autocast, clock, losses = precision(chosen.precision), Clock(), []
        for step in range(chosen.steps + 1):
            tokens: list[int] = []
            with clock.step(tokens):
                result = take(student, source, source.rows(step), Fit(None), 1.0, autocast)
                optimizer.step()
                clear(student)
                tokens.append(
                    result.tokens + BATCH
                )  # the last token of each row is predicted, and counted by the rival too
            losses.append(result.objective_nats / result.loss_tokens)
    total = sum(seconds for seconds, _ in clock.steps)
    said(
        rates=clock.rates(), peak_gb=round(peak[0], 2), first_loss=losses[0], loss_tokens=result.loss_tokens,
        rollout_time_share=round(roller.seconds / total, 3),
        rollout_tokens_per_s=round(roller.tokens / roller.seconds, 1) if roller.seconds else None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
