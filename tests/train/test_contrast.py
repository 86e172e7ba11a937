"""DistiLLM-2 as a source: both texts in every step, written once an epoch, the same in any number of passes and after a kill."""

from pathlib import Path

import pytest
import torch

from benchmarks.experiments.oracle import ENDLESS, copy, table, tiny, zipf
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.models.causal import Causal
from tutelage.signals import Dense
from tutelage.train.contrast import PIECE, Answers, ContrastSource, ContrastTeacher
from tutelage.train.loop import precision
from tutelage.train.offpolicy import passage_of
from tutelage.train.rollout_local import LocalRoller
from tutelage.train.step import clear, train_step

OFF = precision("float32")
TOKENS = 7


class Counting(LocalRoller):
    """Counts what it is asked to write."""

    asked = 0

    def write(self, prompts, max_new_tokens, temperature, seeds):
        self.asked += len(prompts)
        return super().write(prompts, max_new_tokens, temperature, seeds)


def roller(student: Causal) -> Counting:
    return Counting(student.model, ends=ENDLESS)


def source_of(student: Causal, teacher: Causal, folder: Path, loss: Loss | None = None, writes=None) -> ContrastSource:
    examples = zipf(32, 0).texts(8, 9, 1)
    teaching = ContrastTeacher(teacher, loss or make("distillm-2"))
    settings = table(4, 4, 8)
    return ContrastSource(
        examples, student, writes or roller(student), teaching, settings, 0, folder, max_new_tokens=TOKENS
    )


def test_every_step_has_both_texts_and_counts_both(tmp_path: Path) -> None:
    student, writes = tiny(32, 0), None
    writes = roller(student)
    source = source_of(student, tiny(32, 1), tmp_path, writes=writes)
    rows = source.rows(0)
    assert rows == (0, 1, 2, 3) and writes.asked == 8, "the whole epoch is written before its first step"
    batch = source.batch(rows)
    assert source.loss_tokens(rows) == batch.positions == batch.loss_tokens["soft-target"] == 4 * (9 - 0 + TOKENS)
    assert batch.rows == rows and len(batch.lengths) == 8
    source.rows(1)
    assert writes.asked == 8
    source.rows(2)
    assert writes.asked == 16 and sorted(path.name for path in tmp_path.iterdir()) == [
        "answers-0.jsonl",
        "answers-1.jsonl",
    ]
    train_step(student, [source.batch(rows)], 1, 1e9, OFF, source.look)
    told = source.metrics()
    assert (
        told["rollout/own_text"] == 0.5
        and {"contrast/gap_data", "contrast/gap_own", "rollout/length_tokens"} <= told.keys()
    )


def test_without_skew_a_step_is_the_mean_of_both_kls(tmp_path: Path) -> None:
    student, teacher = tiny(32, 0), tiny(32, 1)
    source = source_of(student, teacher, tmp_path, make("distillm-2", alpha=1e-7, beta=1.0))
    rows = source.rows(0)
    count = source.loss_tokens(rows)
    train_step(student, [source.batch(rows)], count, 1e9, OFF)
    found = [parameter.grad.clone() for parameter in student.model.parameters()]
    clear(student)
    for at, name in ((0, "forward-kl"), (1, "reverse-kl")):
        passage = passage_of([pair[at] for pair in source._current])
        p = teacher.head().logits(teacher.hidden(passage.ids_T, passage.lengths)).log_softmax(-1).detach()
        logits = student.head().logits(student.hidden(passage.ids_T, passage.lengths))
        nats = make(name)(logits[passage.positions_N], Dense(p[passage.positions_N]))
        (nats.mean() / 2).backward()
    for one, parameter in zip(found, student.model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-6)


def test_passes_change_nothing(tmp_path: Path) -> None:
    student = tiny(32, 0)
    source = source_of(student, tiny(32, 1), tmp_path)
    rows = source.rows(3)
    gradients = []
    for parts in ([rows], [rows[:1], rows[1:3], rows[3:]]):
        result = train_step(student, [source.batch(part) for part in parts], source.loss_tokens(rows), 1e9, OFF)
        gradients.append([result.objective_nats, *(parameter.grad.clone() for parameter in student.model.parameters())])
        clear(student)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("torn", [0, 1, PIECE, PIECE + 3])
def test_answers_that_were_kept_are_not_written_again(tmp_path: Path, torn: int) -> None:
    """A kill leaves some lines, the last one half."""
    student, prompts = tiny(32, 0), [(at % 30 + 1, at // 30 + 1) for at in range(PIECE + 8)]
    first = Answers(tmp_path / "whole", roller(student), prompts, TOKENS, 1.0, 5).of(0, student.model)
    lines = (tmp_path / "whole" / "answers-0.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "answers-0.jsonl").write_bytes(b"".join(lines[:torn]) + lines[torn][:9])
    writes = roller(copy(student))
    again = Answers(tmp_path / "torn", writes, prompts, TOKENS, 1.0, 5)
    assert again.of(0, student.model) == first
    assert writes.asked == len(prompts) - torn // PIECE * PIECE
    assert again.of(0, student.model) == first and again.of(1, student.model) != first
