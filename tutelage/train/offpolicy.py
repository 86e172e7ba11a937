"""The off-policy loop: a fixed selection, the teacher's own prefixes, seeded order, exact resume.

It knows nothing of the method: batches carry their signals, `train_step` applies the loss of each type.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tutelage.canon import digest_file
from tutelage.config import TrainTable
from tutelage.errors import Interrupted, StorageError
from tutelage.progress import Progress as Shown
from tutelage.progress import Stop
from tutelage.records import Role
from tutelage.train import checkpoint
from tutelage.train.batches import Data, by_length, collate, epoch_order
from tutelage.train.checkpoint import Progress, trainable
from tutelage.train.numerics import uses_bf16
from tutelage.train.step import label_logp, train_step


class Validation(NamedTuple):
    """How near the student is to the teacher on validation prompts: mean KL over labels (nats) and agreement."""

    kl_nats: float
    agreement: float


class Loop(NamedTuple):
    """What the loop needs besides model and data. A replay begins at a kept `start` and ends `until` a step."""

    table: TrainTable
    seed: int
    pad_id: int
    work: Path
    progress: Shown
    stop: Stop
    log: Callable[[dict[str, Any]], None]
    start: Path | None = None
    until: int | None = None


def precision(choice: str) -> torch.autocast:
    """bf16 autocast, or none."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bf16(choice))


def learning_rate(step: int, steps: int, table: TrainTable) -> float:
    """Linear warm-up, then cosine to a tenth. `step` counts from 0."""
    warmup = max(1, round(table.warmup * steps))
    if step < warmup:
        return table.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return table.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def validate(model: Any, data: Data, batch_size: int, pad_id: int, autocast: torch.autocast) -> Validation:
    """Means over all validation examples, whatever the batches."""
    model.eval()
    kl, agree = 0.0, 0
    for rows in by_length(data, batch_size):
        logq_BL = label_logp(model, collate(data, rows, pad_id), data.label_ids, autocast)
        logp_BL = data.target_NL[list(rows)]
        kl += (logp_BL.exp() * (logp_BL - logq_BL)).sum().item()
        agree += int((logp_BL.argmax(-1) == logq_BL.argmax(-1)).sum())
    model.train()
    return Validation(kl / len(data.examples), agree / len(data.examples))


def plan_steps(num_examples: int, table: TrainTable) -> tuple[int, int]:
    """Steps an epoch, and steps in all."""
    per_epoch = math.ceil(num_examples / table.batch_size)
    return per_epoch, max(1, round(table.epochs * per_epoch))


def train(model: Any, data: Data, validation: Data, loop: Loop) -> dict[str, Any]:
    """Trains in place; on return the model holds the best validated weights, whose step, metrics and digest are returned.
    Raises `Interrupted` after saving."""
    best = advance(model, data, validation, loop)
    _put(model, checkpoint.load_weights(loop.work / "best.safetensors"))
    return best


def advance(model: Any, data: Data, validation: Data, loop: Loop) -> dict[str, Any]:
    """Steps from where the work folder (or `loop.start`) stands to the end (or `loop.until`); returns what is known of the
    best validated weights. Keeps the state at each boundary under `segments/<step>`, at the end its digests alone.

    The weights validated and kept are the running mean over the last `average_last` of the steps (stochastic weight
    averaging, Izmailov et al. 2018), or the plain weights before that.
    """
    table = loop.table
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(table.train_embeddings or ("embed_tokens" not in name and "lm_head" not in name))
    parameters = trainable(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=table.learning_rate, weight_decay=table.weight_decay)
    autocast = precision(table.precision)
    per_epoch, steps = plan_steps(len(data.examples), table)
    validate_every = max(1, per_epoch // table.validate_per_epoch)
    end = loop.until or steps
    restored = checkpoint.load(loop.start or loop.work / "last", model, optimizer)
    if loop.start and not restored:
        raise StorageError(f"{loop.start} is missing", fix="restore it from a copy")
    state, average = restored or (Progress(0, 0, {}), {})
    lengths = [len(example.prompt_ids) + len(example.answer_ids) for example in data.examples]
    loop.progress.begin("training, steps", end, state.step)
    saved_at = time.monotonic()
    step = state.step
    averaged, best = state.averaged, state.best
    order: list[tuple[int, ...]] = []
    while step < end:
        if step % per_epoch == 0 or not order:
            order = epoch_order(lengths, table.batch_size, loop.seed, step // per_epoch)
        batch = collate(data, order[step % per_epoch], loop.pad_id)
        rate = learning_rate(step, steps, table)
        for group in optimizer.param_groups:
            group["lr"] = rate
        result = train_step(model, batch, table.clip_norm, autocast)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step > steps * (1 - table.average_last):
            averaged = _average(parameters, average, averaged)
        metrics = _metrics(step, result, batch, rate)
        if step % validate_every == 0 or step == steps:
            best, seen = _validate(model, validation, loop, average, autocast, best, step)
            metrics |= {"validation_kl_nats": seen.kl_nats, "validation_agreement": seen.agreement}
        loop.log(metrics)
        loop.progress.advance(step, tokens=int(batch.mask_BT.sum()), note=f"loss {metrics['loss_nats']:.3f} nats")
        now = Progress(step, averaged, best)
        if step % table.segment_steps == 0 or step == steps:
            kept = loop.work / "segments" / str(step)
            checkpoint.save(kept, model, optimizer, average, now, digests_only=step == steps)
        if loop.stop or time.monotonic() - saved_at > table.checkpoint_every_s:
            checkpoint.save(loop.work / "last", model, optimizer, average, now)
            saved_at = time.monotonic()
        if loop.stop and step < end:
            raise Interrupted
    loop.progress.end()
    return best


def _metrics(step: int, result: Any, batch: Any, rate: float) -> dict[str, Any]:
    total = result.soft_nats + result.text_nats
    return {
        "step": step,
        "rows": list(batch.rows),
        "loss_nats": total / result.loss_tokens,
        Role.SOFT_TARGET: len(batch.soft_positions_N),
        Role.TEXT_TARGET: len(batch.text_positions_N),
        "soft_nats": result.soft_nats / max(1, len(batch.soft_positions_N)),
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
    model: Any, data: Data, loop: Loop, average: dict[str, torch.Tensor], autocast: torch.autocast,
    best: dict[str, Any], step: int,
) -> tuple[dict[str, Any], Validation]:  # fmt: skip
    own = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    if average:
        _put(model, average)
    seen = validate(model, data, 64, loop.pad_id, autocast)
    if not best or seen.kl_nats < best["kl_unats"] / 1e6:
        loop.work.mkdir(parents=True, exist_ok=True)
        checkpoint.save_weights(loop.work / "best.safetensors", model)
        best = {
            "step": step,
            "kl_unats": round(1e6 * seen.kl_nats),
            "agreement_ppm": round(1e6 * seen.agreement),
            "weights": digest_file(loop.work / "best.safetensors"),
        }
    _put(model, own)
    return best, seen


@torch.no_grad()
def _put(model: Any, values: dict[str, torch.Tensor]) -> None:
    for name, parameter in trainable(model).items():
        parameter.copy_(values[name])
