"""Our side: `python -m benchmarks.training.ours live|capture|cached|onpolicy|onpolicy-int8`; `cached` reads what `capture`
wrote."""

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
    TEMPLATE,
    Clock,
    arguments,
    conversations,
    peak_gb,
    said,
    weights,
)
from tutelage.canon import digest_bytes, digest_of
from tutelage.config import TrainTable
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.models.kernels import economical
from tutelage.progress import Quiet
from tutelage.store.signal_kinds import Threshold
from tutelage.store.signals import Identity, SignalCache, SignalWriter
from tutelage.train.capture import capture
from tutelage.train.examples import Example
from tutelage.train.loop import choose_trainable, precision, take
from tutelage.train.memory import Fit
from tutelage.train.offpolicy import DataSource
from tutelage.train.onpolicy import RolloutSource
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.step import clear
from tutelage.train.teaching import CachedTeacher, LiveTeacher


def identity(some: tuple[Example, ...], vocabulary: int) -> Identity:
    """Of a cache of these examples: both sides have the same tokenizer and template."""
    one = digest_bytes(b"SmolLM2")
    return Identity(
        kind=Threshold(1 / 50), teacher=one, tokenizer=one, student_tokenizer=one, template=digest_bytes(TEMPLATE.encode()),
        dataset=digest_of([example.key for example in some]), sampling="as given", logprobs="raw", vocabulary=vocabulary,
    )  # fmt: skip


def keep_signals(some: tuple[Example, ...], teacher_folder: Path, out: Path) -> None:
    """Threshold sampling of every example, on the disk."""
    teacher = Causal.load(teacher_folder)
    columns = len(teacher.head().weight_VD)
    with SignalWriter(out, identity(some, columns)) as writer:
        capture(some, teacher, columns, writer, Quiet())
    said(rates=[0.0], peak_gb=0.0, bytes_per_token=round(writer.bytes / writer.positions, 1))


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
        some = examples(chosen, student_folder)
        signals = chosen.cache / f"signals-{len(some)}-{digest_of([example.key for example in some])[-12:]}"
        if chosen.what == "capture":
            keep_signals(some, teacher_folder, signals)
            return
        table = TrainTable(epochs=1.0, batch_size=BATCH, learning_rate=LEARNING_RATE, train_embeddings=True)
        student = Causal.load(student_folder)
        economical(student.model)
        choose_trainable(student, table)
        student.model.train()
        roller = TimedRoller(student.model, precision="int8" if chosen.what == "onpolicy-int8" else "own")
        if chosen.what == "cached":
            kept = SignalCache(signals, identity(some, len(student.head().weight_VD)))
            source: Any = DataSource(some, CachedTeacher(kept, make("sparse-forward-kl")), table, 0)
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
