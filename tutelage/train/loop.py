"""The loop: steps, schedule, validation, checkpoints, exact resume. It knows nothing of the method: a source hands it batches
that carry their losses, a judge says how good the student is.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from tutelage.canon import digest_file
from tutelage.config import TrainTable
from tutelage.errors import Interrupted, SignalError, StorageError
from tutelage.models.causal import Causal
from tutelage.progress import Progress as Shown
from tutelage.progress import Stop
from tutelage.train import checkpoint, memory, parallel
from tutelage.train.batch import Batch, split
from tutelage.train.checkpoint import Progress, trainable
from tutelage.train.numerics import uses_bf16
from tutelage.train.step import Look, StepResult, clear, train_step


class Plan(NamedTuple):
    """Steps an epoch, and in all."""

    per_epoch: int
    steps: int


class Source(Protocol):
    """Where batches come from: a fixed selection with cached signals, a teacher that is asked, rollouts of the student."""

    @property
    def plan(self) -> Plan: ...

    def rows(self, step: int) -> Sequence[int]:
        """What step `step` (from 0) is trained on; a function of the step and, on-policy, of the weights as they stand."""
        ...

    def tokens(self, row: int) -> int:
        """Tokens of that row, for splitting a step into passes that fit."""
        ...

    def loss_tokens(self, rows: Sequence[int]) -> int:
        """Positions of those rows that carry a loss, known before they are batched."""
        ...

    def batch(self, rows: Sequence[int]) -> Batch: ...

    @property
    def look(self) -> Look | None:
        """Is shown the student's logits of every chunk as the step goes; None when nothing is looked at."""
        ...

    def metrics(self) -> dict[str, float]:
        """What was seen since the last call, for the journal."""
        ...


class Seen(NamedTuple):
    """A judgement: the `score_nats` that is made small, integers to keep with the best weights, figures for the journal."""

    score_nats: float
    facts: Mapping[str, int]
    metrics: Mapping[str, float]


class Judge(Protocol):
    """Says how near the student is to the teacher on examples that are not trained on."""

    def __call__(self, student: Causal, autocast: torch.autocast) -> Seen: ...


class Loop(NamedTuple):
    """What the loop needs besides student, source and judge. A replay begins at a kept `start`, ends `until` a step, and has the
    `room_tokens` that there were for one pass; else they are measured."""

    table: TrainTable
    seed: int
    work: Path
    progress: Shown
    stop: Stop
    log: Callable[[dict[str, Any]], None]
    start: Path | None = None
    until: int | None = None
    room_tokens: int = 0


def precision(choice: str, device: str = "cpu") -> torch.autocast:
    """bf16 autocast, or none."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=uses_bf16(choice, device))


def learning_rate(step: int, steps: int, table: TrainTable) -> float:
    """Linear warm-up, then cosine to a tenth. `step` counts from 0."""
    warmup = max(1, round(table.warmup * steps))
    if step < warmup:
        return table.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return table.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def plan_steps(num_examples: int, table: TrainTable) -> Plan:
    """Every epoch takes each example once; its last step may be smaller."""
    per_epoch = math.ceil(num_examples / table.batch_size)
    return Plan(per_epoch, max(1, round(table.epochs * per_epoch)))


def train(student: Causal, source: Source, judge: Judge, loop: Loop) -> dict[str, Any]:
    """Trains in place; on return the model holds the best validated weights, whose step, facts and digest are returned.
    Raises `Interrupted` after saving."""
    best = advance(student, source, judge, loop)
    _put(student.model, checkpoint.load_weights(best_file(loop.work, best["step"])))
    return best


def best_file(work: Path, step: int) -> Path:
    """The weights validated at a step. Under its number: a run that is resumed from before the latest best one still finds the
    one that its checkpoint names."""
    return work / f"best-{step}.safetensors"


def advance(student: Causal, source: Source, judge: Judge, loop: Loop) -> dict[str, Any]:
    """Steps from where the work folder (or `loop.start`) stands to the end (or `loop.until`); returns what is known of the
    best validated weights. Keeps the state at each boundary under `segments/<step>`, at the end its digests alone.

    The weights validated and kept are the running mean over the last `average_last` of the steps (stochastic weight
    averaging, Izmailov et al. 2018), or the plain weights before that.
    """
    table, model = loop.table, student.model
    model.train()
    choose_trainable(student, table)
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=table.learning_rate, weight_decay=table.weight_decay, fused=True
    )
    autocast = precision(table.precision, student.device.type)
    per_epoch, steps = source.plan
    validate_every = max(1, per_epoch // table.validate_per_epoch)
    end = loop.until or steps
    room = (
        None if table.pass_tokens else loop.room_tokens or _room(student, loop.work)
    )  # before the optimizer has its moments
    restored = checkpoint.load(loop.start or loop.work / "last", model, optimizer)
    if loop.start and not restored:
        raise StorageError(f"{loop.start} is missing", fix="restore it from a copy")
    state, average = restored or (Progress(0, 0, {}, 0), {})
    fit = memory.Fit(state.pass_tokens or table.pass_tokens, room)
    loop.progress.begin("training, steps", end, state.step)
    saved_at = time.monotonic()
    step, averaged, best = state.step, state.averaged, state.best
    while step < end:
        rate = learning_rate(step, steps, table)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = tuple(source.rows(step))
        result = take(student, source, rows, fit, table.clip_norm, autocast)
        optimizer.step()
        clear(student)
        step += 1
        if step > steps * (1 - table.average_last):
            averaged = _average(parameters, average, averaged)
        metrics = _metrics(step, rows, result, rate) | source.metrics()
        if step % validate_every == 0 or step == steps:
            best, seen = _validate(student, judge, loop, average, autocast, best, step)
            metrics |= seen.metrics
        if parallel.writes():
            loop.log(metrics)
        loop.progress.advance(step, tokens=result.tokens, note=f"loss {metrics['loss_nats']:.3f} nats")
        now = Progress(step, averaged, best, fit.limit or 0)
        if step % table.segment_steps == 0 or step == steps:
            kept = loop.work / "segments" / str(step)
            _save(kept, model, optimizer, average, now, digests_only=step == steps)
        late = time.monotonic() - saved_at > table.checkpoint_every_s
        stop, due = parallel.total(bool(loop.stop), late, device=student.device)  # all ranks do the same
        if stop or due:
            _save(loop.work / "last", model, optimizer, average, now)
            _drop_bests(loop.work, best)
            saved_at = time.monotonic()
        if stop and step < end:
            raise Interrupted
    loop.progress.end()
    return best


def _room(student: Causal, work: Path) -> int:
    return memory.kept_room(work / f"{memory.ROOM}-{parallel.world()[0]}", student)


def take(
    student: Causal, source: Source, rows: Sequence[int], fit: memory.Fit, clip_norm: float, autocast: torch.autocast
) -> StepResult:
    """One step's gradient, in as many passes as memory asks for; the result does not depend on how many."""
    mine = parallel.share(rows)
    tokens = {row: source.tokens(row) for row in mine}
    (loss_tokens,) = parallel.total(source.loss_tokens(mine), device=student.device)

    def attempt(limit: int | None) -> StepResult:
        batches = (source.batch(part) for part in split(mine, tokens, limit))
        return train_step(student, batches, round(loss_tokens), clip_norm, autocast, source.look)

    return _of_all(fit.run(attempt, lambda: clear(student), tokens.values()), student.device)


def choose_trainable(student: Causal, table: TrainTable) -> None:
    """Freezes the embeddings and the head, tied or not, unless they are to be trained; adapters choose for themselves."""
    if hasattr(student.model, "peft_config"):
        return
    frozen = set() if table.train_embeddings else {id(weight) for weight in student.embeddings()}
    for parameter in student.model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)


def _of_all(result: StepResult, device: torch.device) -> StepResult:
    """What all ranks saw together: the journal and the ledger speak of the step, not of one rank's share of it."""
    if parallel.world()[1] == 1:
        return result
    objective, tokens = parallel.total(result.objective_nats, result.tokens, device=device)
    positions, by_role = (
        {name: round(count) for name, count in parallel.totals(counts, device).items()}
        for counts in (result.positions, result.by_role)
    )
    return result._replace(
        nats=parallel.totals(result.nats, device), positions=positions, by_role=by_role, objective_nats=objective,
        tokens=round(tokens),
    )  # fmt: skip


def _save(folder: Path, *state: Any, digests_only: bool = False) -> None:
    if parallel.writes():
        checkpoint.save(folder, *state, digests_only=digests_only)
    parallel.wait()


def _drop_bests(work: Path, best: dict[str, Any]) -> None:
    """Weights that no checkpoint names any more."""
    if parallel.writes():
        for path in work.glob("best-*.safetensors"):
            if not best or path != best_file(work, best["step"]):
                path.unlink()


def micro(nats: float) -> int:
    """Micro-nats of a score. Raises `SignalError` for one that is no number."""
    if not math.isfinite(nats):
        raise SignalError(
            f"the student's score is {nats}: training has left the road",
            fix="lower train.learning_rate, or set train.precision = float32",
        )
    return round(1e6 * nats)


def _metrics(step: int, rows: Sequence[int], result: StepResult, rate: float) -> dict[str, Any]:
    return {
        "step": step,
        "rows": list(rows),
        "loss_nats": result.objective_nats / result.loss_tokens,
        **{f"{name}_nats": total / result.positions[name] for name, total in result.nats.items()},
        **result.by_role,
        "tokens": result.tokens,
        "grad_norm": result.grad_norm,
        "learning_rate": rate,
        "at_s": time.time(),
    }


@torch.no_grad()
def _average(parameters: dict[str, torch.Tensor], average: dict[str, torch.Tensor], averaged: int) -> int:
    for name, parameter in parameters.items():
        if averaged == 0:
            average[name] = parameter.detach().clone()
        else:
            average[name].lerp_(parameter, 1 / (averaged + 1))
    return averaged + 1


def _validate(
    student: Causal, judge: Judge, loop: Loop, average: dict[str, torch.Tensor], autocast: torch.autocast,
    best: dict[str, Any], step: int,
) -> tuple[dict[str, Any], Seen]:  # fmt: skip
    model = student.model
    own = {name: parameter.detach().clone() for name, parameter in trainable(model).items()} if average else {}
    if average:
        _put(model, average)
    model.eval()
    seen = judge(student, autocast)
    model.train()
    score_unats = micro(seen.score_nats)
    if not best or score_unats < best["score_unats"]:
        path = best_file(loop.work, step)
        if parallel.writes():
            loop.work.mkdir(parents=True, exist_ok=True)
            checkpoint.save_weights(path, model)
        parallel.wait()
        best = {"step": step, "score_unats": score_unats, **seen.facts, "weights": digest_file(path)}
    if average:
        _put(model, own)
    return best, seen


@torch.no_grad()
def _put(model: Any, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in trainable(model).items():
        parameter.copy_(values[name])
