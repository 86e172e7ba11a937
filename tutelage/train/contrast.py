"""DistiLLM-2 (Ko et al. 2025, arXiv 2503.07067): every step on the data's answers and the student's own to the same questions.

The student writes once an epoch, not once a step; its answers are kept in a file, so that a run that is gone on with takes them
again.
Shape legend: T tokens, N loss positions, A answers, D width of the teacher's hidden state.
"""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.config import TrainTable
from tutelage.jsonl import write_whole, writing
from tutelage.losses.base import Loss
from tutelage.losses.catalogue import make
from tutelage.losses.chunked import Part, values
from tutelage.losses.contrast import HiddenContrast, average_token
from tutelage.models.causal import Causal
from tutelage.records import Role
from tutelage.signals import Hidden, Text
from tutelage.signals.joining import joined
from tutelage.train import parallel
from tutelage.train.batch import Batch, split, starts
from tutelage.train.examples import Example
from tutelage.train.health import Finding, Limits, Start, health, mean_length
from tutelage.train.loop import Plan, plan_steps, precision
from tutelage.train.offpolicy import batch_of, passage_of
from tutelage.train.onpolicy import written
from tutelage.train.order import epoch_order
from tutelage.train.rollout import Roller, Rollout
from tutelage.train.step import Look
from tutelage.train.teaching import Passage
from tutelage.train.watch import Watch

PASS_TOKENS = 4096  # that are read at once
PIECE = 64  # prompts that are answered before the answers are kept
_TEXT = make("cross-entropy")


class Read(NamedTuple):
    """Last hidden states [N, D] at the positions of a passage, and the natural logs [N] of the tokens that stand there."""

    hidden_ND: torch.Tensor
    logp_N: torch.Tensor


class ContrastTeacher:
    """The teacher's full distribution on both answers of each pair, and how far it and the student are apart on them. A step is
    read once and as a whole (`begin`), so that it does not depend on how many passes it is taken in. `teacher` never
    trains; `columns` is how many tokens the tokenizer has, where the teacher's head is wider than the student's."""

    role = Role.SOFT_TARGET

    def __init__(self, teacher: Causal, loss: Loss, columns: int | None = None) -> None:
        teacher.model.eval().requires_grad_(False)
        self._teacher, self._loss, self._columns = teacher, loss, columns
        self._signals: list[HiddenContrast] = []  # of the step's answers
        self.seen: dict[str, float] = {}  # of the step: mean gaps, in probability

    def begin(self, step: Passage, progress: float, student: Causal, autocast: torch.autocast) -> None:
        """Reads a step, whose answers are by turns the data's and the student's, after a share `progress` of all steps."""
        head = self._teacher.head(self._columns)
        p = _read(self._teacher, step, head)
        with autocast:
            q = _read(student, step, student.head())
        sizes_A = torch.tensor([len(example.targets) for example in step.examples], device=p.logp_N.device)
        answer_N = torch.repeat_interleave(sizes_A)
        gap_A = average_token(p.logp_N, answer_N, len(sizes_A)) - average_token(q.logp_N, answer_N, len(sizes_A))
        own_A = torch.arange(len(sizes_A), device=gap_A.device) % 2 == 1
        gap_A = torch.where(own_A, -gap_A, gap_A)
        mean_A, share_A = torch.empty_like(gap_A), torch.empty_like(gap_A)
        for side_A in (own_A, ~own_A):
            mean_A[side_A] = gap_A[side_A].mean()
            share_A[side_A] = len(answer_N) / (2 * sizes_A[side_A].sum())
        own_N, share_N, gap_N, mean_N = (column_A[answer_N] for column_A in (own_A, share_A, gap_A, mean_A))
        whole = HiddenContrast(p.hidden_ND, head, own_N, share_N, gap_N, mean_N, progress)
        sizes = sizes_A.tolist()
        self._signals = [whole.rows(slice(at, at + size)) for at, size in zip(starts(sizes), sizes, strict=True)]
        self.seen = {"contrast/gap_data": mean_A[0].item(), "contrast/gap_own": mean_A[1].item()}

    def parts(self, passage: Passage) -> tuple[Part, ...]:
        """Of a part of the step that was begun; of any other text, as where a student is judged, that text alone."""
        if passage.step is not None:
            return (Part(self._loss, joined([self._signals[row] for row in passage.rows])),)
        with torch.no_grad():
            hidden_TD = self._teacher.hidden(passage.ids_T, passage.lengths)
        return (Part(self._loss, Hidden(hidden_TD[passage.positions_N], self._teacher.head(self._columns))),)


class Answers:
    """What the student writes to each prompt, once an epoch, kept in `folder` as it is written: whoever goes on with the epoch
    reads it there. Each answer's draws are decided by the seed, the epoch and its place."""

    def __init__(
        self, folder: Path, roller: Roller, prompts: Sequence[tuple[int, ...]], new_tokens: int, temperature: float,
        seed: int,
    ) -> None:  # fmt: skip
        self._folder, self._roller, self._prompts = folder, roller, prompts
        self._new, self._temperature, self._seed = new_tokens, temperature, seed

    def of(self, epoch: int, model: Any) -> list[Rollout]:
        """In the order of the prompts; `model` is the student as it stands at the epoch's beginning."""
        path = self._folder / f"answers-{epoch}.jsonl"
        if parallel.writes():
            self._write(path, epoch, model)
        parallel.wait()
        return self._kept(path)

    def _write(self, path: Path, epoch: int, model: Any) -> None:
        kept = self._kept(path)
        if len(kept) == len(self._prompts):
            return
        whole = len(kept) // PIECE * PIECE  # a piece is written at once, and again if it was torn
        write_whole(path, b"".join(_line(rollout) for rollout in kept[:whole]))
        draw = random.Random(f"{self._seed}:{epoch}:answers")
        seeds = [draw.randrange(1 << 31) for _ in self._prompts]
        self._roller.refresh(model)
        for at in range(whole, len(self._prompts), PIECE):
            some = slice(at, at + PIECE)
            found = self._roller.write(self._prompts[some], self._new, self._temperature, seeds[some])
            with writing(path), path.open("ab") as file:
                file.writelines(_line(rollout) for rollout in found)

    def _kept(self, path: Path) -> list[Rollout]:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        rows = (json.loads(line) for line in lines)
        return [
            Rollout(prompt, tuple(row["ids"]), tuple(row["logp"]), row["finished"])
            for prompt, row in zip(self._prompts, rows, strict=False)
        ]


class ContrastSource:
    """Examples in seeded order, each beside the student's own answer to its prompt: one row is both.

    `folder` keeps the answers. What goes wrong with them is told to `warn` and written to the journal, as by `RolloutSource`.
    """

    def __init__(
        self, examples: Sequence[Example], student: Causal, roller: Roller, teaching: ContrastTeacher, table: TrainTable,
        seed: int, folder: Path, *, max_new_tokens: int, temperature: float = 1.0, limits: Limits | None = None,
        warn: Callable[[Finding], Any] = lambda finding: None, start: Start | None = None,
    ) -> None:  # fmt: skip
        self.examples, self._student, self._teaching = tuple(examples), student, teaching
        self._table, self._seed, self._limits, self._warn = table, seed, limits, warn
        self._prompts = [example.ids[: example.targets[0]] for example in examples]
        self._answers = Answers(folder, roller, self._prompts, max_new_tokens, temperature, seed)
        self._epoch: tuple[int, list[Rollout]] = (-1, [])
        self._rollouts: list[Rollout] = []
        self._current: list[tuple[Example, Example]] = []
        self._step: Passage | None = None
        self._start, self._watch = start or Start(), Watch()

    @property
    def plan(self) -> Plan:
        return plan_steps(len(self.examples), self._table)

    def rows(self, step: int) -> tuple[int, ...]:
        """Pairs of the step, by their places in it; at an epoch's beginning the student writes first."""
        per_epoch, steps = self.plan
        epoch, at = divmod(step, per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._answers.of(epoch, self._student.model))
        chosen = epoch_order([len(prompt) for prompt in self._prompts], self._table.batch_size, self._seed, epoch)[at]
        self._rollouts = [self._epoch[1][row] for row in chosen]
        self._current = [
            (self.examples[row], written(rollout, self.examples[row].source))
            for row, rollout in zip(chosen, self._rollouts, strict=True)
        ]
        self._step = passage_of([one for pair in self._current for one in pair], self._student.device)
        autocast = precision(self._table.precision, self._student.device.type)
        self._teaching.begin(self._step, step / steps, self._student, autocast)
        rows = tuple(range(len(self._current)))
        self._watch.begin(self.loss_tokens(rows))
        return rows

    def tokens(self, row: int) -> int:
        return sum(len(one.ids) for one in self._current[row])

    def origin(self, row: int) -> str:
        """The conversation that a row of this step comes from."""
        return self._current[row][0].source

    def loss_tokens(self, rows: Sequence[int]) -> int:
        return sum(len(one.targets) for row in rows for one in self._current[row])

    def batch(self, rows: Sequence[int]) -> Batch:
        some = [one for row in rows for one in self._current[row]]
        places = [place for row in rows for place in (2 * row, 2 * row + 1)]
        batch = batch_of(some, self._teaching, places, self._student.device, step=self._step)
        return batch._replace(rows=tuple(rows))

    @property
    def look(self) -> Look:
        return self._watch.look

    def metrics(self) -> dict[str, float]:
        seen = self._watch.means()
        entropy = seen.get("entropy_nats", 0.0)
        found = health(self._rollouts, entropy, self._start, self._limits)
        self._start = self._start.add(mean_length(self._rollouts), entropy)
        for finding in found.findings:
            self._warn(finding)
        del found.metrics["rollout/drift_nats"]  # the answers are the epoch's, not the step's
        return {"rollout/own_text": 0.5, **seen, **found.metrics, **self._teaching.seen}


@torch.no_grad()
def _read(model: Causal, step: Passage, head: Any) -> Read:
    """In passes of whole documents."""
    first, hidden, nats = starts(step.lengths), list[torch.Tensor](), list[torch.Tensor]()
    for rows in split(range(len(first)), dict(enumerate(step.lengths)), PASS_TOKENS):
        part = slice(first[rows[0]], first[rows[-1]] + step.lengths[rows[-1]])
        inside_N = (step.positions_N >= part.start) & (step.positions_N < part.stop)
        hidden_TD = model.hidden(step.ids_T[part], [step.lengths[row] for row in rows])
        hidden.append(hidden_TD[step.positions_N[inside_N] - part.start])
        nats += values(hidden[-1], head, (Part(_TEXT, Text(step.target_ids_N[inside_N])),))
    return Read(torch.cat(hidden), -torch.cat(nats))


def _line(rollout: Rollout) -> bytes:
    row = {"ids": rollout.ids, "logp": rollout.logp, "finished": rollout.finished}
    return json.dumps(row).encode() + b"\n"
